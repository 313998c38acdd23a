//! Patterns of `.dockerignore`, of `COPY --exclude` and of what travels of a directory: read, compiled, matched.
//!
//! A pattern is anchored at the root. `*` and `?` do not match a slash, `**` does. The last pattern that matches decides,
//! `!` turns its meaning, and what matches a directory matches all below it. Nothing here looks at a file system; callers
//! walk it and ask.

mod file;
mod follow;
pub(crate) mod glob;
mod tree;

pub use file::read_ignore_file;
pub use follow::{Links, follow_links};
pub use glob::{InvalidPattern, has_wildcard, matches as glob_matches};
pub use tree::{DirState, TreeFilter, Verdict};

use glob::Token;

use crate::gopath;

/// Most patterns that one list may have.
///
/// LIMIT: real lists have tens; each pattern costs on every file of the context.
pub const MAX_PATTERNS: usize = 10_000;

/// A list of patterns, ready to match.
#[derive(Clone, Debug)]
pub struct PatternMatcher {
    patterns: Vec<Pattern>,
}

/// Which patterns matched a directory; spares looking at all parents again for what is in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ParentMatches(Vec<bool>);

impl PatternMatcher {
    /// Compiles a list of patterns; empty ones are left out.
    ///
    /// # Errors
    ///
    /// When a pattern is a lone `!`, has a bad character class or ends in a backslash, or when there are too many.
    pub fn new<S: AsRef<str>>(patterns: &[S]) -> Result<Self, InvalidPattern> {
        if patterns.len() > MAX_PATTERNS {
            return Err(InvalidPattern::TooMany(patterns.len()));
        }
        let mut compiled = Vec::with_capacity(patterns.len());
        for text in patterns {
            let text = text.as_ref().trim();
            if !text.is_empty() {
                compiled.push(Pattern::new(&gopath::clean(text))?);
            }
        }
        Ok(Self { patterns: compiled })
    }

    /// Tells whether there is no pattern at all.
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// Tells whether a pattern starts with `!`.
    pub fn has_exclusions(&self) -> bool {
        self.patterns.iter().any(|pattern| pattern.exclusion)
    }

    /// Tells whether a pattern, as it was written, is in the list.
    pub(crate) fn has_pattern(&self, text: &str) -> bool {
        self.patterns.iter().any(|pattern| !pattern.exclusion && pattern.text == text)
    }

    /// Tells whether a path, or a directory that it is in, matches.
    pub fn matches(&self, path: &str) -> bool {
        self.matches_below(path, None).0
    }

    /// Like [`Self::matches`], for walks: takes what is known of the directory that the path is in (`None` at the root of a
    /// walk), and returns what is to be handed on to what is below the path.
    pub fn matches_below(
        &self,
        path: &str,
        parent: Option<&ParentMatches>,
    ) -> (bool, ParentMatches) {
        let mut matched = false;
        let mut each = vec![false; self.patterns.len()];
        for (number, pattern) in self.patterns.iter().enumerate() {
            let mut hit = parent.is_some_and(|known| known.0.get(number) == Some(&true));
            if !hit {
                // A pattern that could not change the outcome is not tried, and so not handed on either.
                if pattern.exclusion != matched {
                    continue;
                }
                hit = pattern.matches(path)
                    || (parent.is_none() && parents(path).any(|parent| pattern.matches(parent)));
            }
            each[number] = hit;
            if hit {
                matched = !pattern.exclusion;
            }
        }
        (matched, ParentMatches(each))
    }

    /// Tells whether something below the directory could match a pattern of the given kind.
    fn may_match_below(&self, directory: &str, exclusion: bool) -> bool {
        let of_kind = self.patterns.iter().filter(|pattern| pattern.exclusion == exclusion);
        of_kind.into_iter().any(|pattern| pattern.may_match_below(directory))
    }
}

fn parents(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('/').map(|(at, _)| &path[..at]).filter(|parent| !parent.is_empty())
}

#[derive(Clone, Debug)]
struct Pattern {
    text: String,
    exclusion: bool,
    form: Form,
}

/// How a pattern is tried; most are cheap.
#[derive(Clone, Debug)]
enum Form {
    /// The text itself.
    Exact,
    /// `text/**`: all that starts so.
    Prefix(String),
    /// `**text`: all that ends so.
    Suffix(String),
    Tokens(Vec<Token>),
}

impl Pattern {
    fn new(text: &str) -> Result<Self, InvalidPattern> {
        let (text, exclusion) = match text.strip_prefix('!') {
            Some("") => return Err(InvalidPattern::LoneExclamation),
            Some(rest) => (rest.trim(), true),
            None => (text, false),
        };
        let text = gopath::clean(text);
        let tokens = glob::parse(&text, glob::Stars::Double)?;
        let form = Self::form(&text, tokens);
        Ok(Self { text, exclusion, form })
    }

    fn form(text: &str, tokens: Vec<Token>) -> Form {
        let plain = |text: &str| !text.contains(['*', '?', '[', ']', '\\']);
        if plain(text) {
            return Form::Exact;
        }
        // COMPAT: `**name` also matches what merely ends in the name, as long as nothing else in it is special.
        if let Some(rest) = text.strip_prefix("**").filter(|rest| plain(rest)) {
            return Form::Suffix(rest.to_owned());
        }
        if let Some(rest) = text.strip_suffix("**").filter(|rest| plain(rest)) {
            return Form::Prefix(rest.to_owned());
        }
        Form::Tokens(tokens)
    }

    fn matches(&self, path: &str) -> bool {
        match &self.form {
            Form::Exact => path == self.text,
            Form::Prefix(prefix) => path.starts_with(prefix.as_str()),
            Form::Suffix(suffix) => {
                path.ends_with(suffix.as_str()) || suffix.strip_prefix('/') == Some(path)
            }
            Form::Tokens(tokens) => glob::run(tokens, path),
        }
    }

    fn may_match_below(&self, directory: &str) -> bool {
        let special = self.text.find(['*', '?', '[', ']', '\\']).unwrap_or(self.text.len());
        let literal = &self.text.as_bytes()[..special];
        let directory = directory.as_bytes();
        let common = literal.len().min(directory.len());
        if literal[..common] != directory[..common] {
            return false;
        }
        // The directory is a prefix of the pattern's fixed part only if a slash follows there.
        match literal.len() > directory.len() {
            true => literal[directory.len()] == b'/',
            false => special < self.text.len() || literal == directory,
        }
    }
}

#[cfg(test)]
mod tests;

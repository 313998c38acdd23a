//! One pattern: taken apart into tokens, and run over a path without going back.
//!
//! The syntax is that of Go's `filepath.Match`, with `**` where it is asked for.

/// A pattern that means nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPattern {
    /// `!` and nothing behind it.
    #[error("illegal exclusion pattern: \"!\"")]
    LoneExclamation,
    /// A character class or an escape does not end.
    #[error("syntax error in pattern")]
    Syntax(String),
    /// More than [`super::MAX_PATTERNS`].
    #[error("{0} patterns are more than the {max} that a list may have", max = super::MAX_PATTERNS)]
    TooMany(usize),
}

/// What `**` means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stars {
    /// The same as `*`.
    Single,
    /// Any number of directories.
    Double,
}

/// A piece of a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Token {
    Literal(char),
    /// `?`
    One,
    /// `*`
    Run,
    /// `**/` or `**` before something: nothing, or anything up to a slash.
    Directories,
    /// `**` at the end.
    Anything,
    Class {
        negated: bool,
        ranges: Vec<(char, char)>,
    },
}

/// Tells whether a path has characters that mean something in patterns.
pub fn has_wildcard(path: &str) -> bool {
    let mut escaped = false;
    path.chars().any(|c| match (escaped, c) {
        (true, _) => {
            escaped = false;
            false
        }
        (false, '\\') => {
            escaped = true;
            false
        }
        (false, c) => matches!(c, '*' | '?' | '['),
    })
}

/// Matches a whole path against one pattern; `*` and `?` do not match a slash.
pub fn matches(pattern: &str, path: &str) -> Result<bool, InvalidPattern> {
    Ok(run(&parse(pattern, Stars::Single)?, path))
}

pub(crate) fn parse(pattern: &str, stars: Stars) -> Result<Vec<Token>, InvalidPattern> {
    let bad = || InvalidPattern::Syntax(pattern.to_owned());
    let mut rest = pattern.chars().peekable();
    let mut tokens = Vec::new();
    while let Some(c) = rest.next() {
        let token = match c {
            '*' if stars == Stars::Double && rest.next_if_eq(&'*').is_some() => {
                rest.next_if_eq(&'/');
                match rest.peek() {
                    None => Token::Anything,
                    Some(_) => Token::Directories,
                }
            }
            '*' => Token::Run,
            '?' => Token::One,
            '\\' => Token::Literal(rest.next().ok_or_else(bad)?),
            '[' => class(&mut rest).ok_or_else(bad)?,
            c => Token::Literal(c),
        };
        tokens.push(token);
    }
    Ok(tokens)
}

fn class(rest: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<Token> {
    let negated = rest.next_if_eq(&'^').is_some();
    let mut ranges = Vec::new();
    loop {
        if !ranges.is_empty() && rest.next_if_eq(&']').is_some() {
            return Some(Token::Class { negated, ranges });
        }
        let low = class_char(rest)?;
        let high = if rest.next_if_eq(&'-').is_some() { class_char(rest)? } else { low };
        ranges.push((low, high));
        // A class always ends before the pattern does.
        rest.peek()?;
    }
}

fn class_char(rest: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<char> {
    match rest.next()? {
        '-' | ']' => None,
        '\\' => rest.next(),
        c => Some(c),
    }
}

/// Runs tokens over a path. The set of places that were reached so far is kept, so time is bounded by the product of the
/// lengths whatever the pattern is.
pub(crate) fn run(tokens: &[Token], path: &str) -> bool {
    let bytes = path.as_bytes();
    let mut reached = vec![false; bytes.len() + 1];
    reached[0] = true;
    for token in tokens {
        let mut next = vec![false; bytes.len() + 1];
        let mut any = false;
        for at in (0..=bytes.len()).filter(|at| reached[*at]) {
            any |= step(token, path, at, &mut next);
        }
        if !any {
            return false;
        }
        reached = next;
    }
    reached[bytes.len()]
}

/// Marks where one token leads from one place; returns whether it leads anywhere.
fn step(token: &Token, path: &str, at: usize, next: &mut [bool]) -> bool {
    let rest = &path[at..];
    let first = rest.chars().next();
    let mut mark = |place: usize| {
        next[place] = true;
        true
    };
    match (token, first) {
        (Token::Literal(wanted), Some(c)) if *wanted == c => mark(at + c.len_utf8()),
        (Token::One, Some(c)) if c != '/' => mark(at + c.len_utf8()),
        (Token::Class { negated, ranges }, Some(c)) => {
            let inside = ranges.iter().any(|(low, high)| (*low..=*high).contains(&c));
            inside != *negated && mark(at + c.len_utf8())
        }
        (Token::Run, _) => {
            let end = rest.find('/').unwrap_or(rest.len());
            (0..=end).filter(|n| rest.is_char_boundary(*n)).fold(false, |_, n| mark(at + n))
        }
        (Token::Directories, _) => {
            rest.match_indices('/').for_each(|(slash, _)| {
                mark(at + slash + 1);
            });
            mark(at)
        }
        (Token::Anything, _) => {
            (0..=rest.len()).filter(|n| rest.is_char_boundary(*n)).fold(false, |_, n| mark(at + n))
        }
        (Token::Literal(_) | Token::One | Token::Class { .. }, _) => false,
    }
}

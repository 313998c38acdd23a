//! Words of a Dockerfile: quotes, escapes and variables, as BuildKit expands them.
//!
//! It resembles a shell and is none: no commands, no arithmetic, globs only inside `${name#pattern}` and its like.

mod pattern;

use std::collections::BTreeSet;

/// Longest text that an expansion may make.
///
/// LIMIT: `${a}` can double with every `ENV`; a megabyte is far above what an instruction needs.
const MAX_EXPANSION: usize = 1 << 20;

/// How deep `${a:-${b:-…}}` may nest.
///
/// LIMIT: each level takes stack.
const MAX_DEPTH: usize = 64;

/// Finds the value of a variable.
pub(super) type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// What is made of quotes, escapes and variables that have no value.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lexer {
    /// `\`, or what the `escape` directive says.
    pub(super) escape: char,
    /// Quotes stay in the result.
    pub(super) raw_quotes: bool,
    /// Escapes stay in the result.
    pub(super) raw_escapes: bool,
    /// Quotes mean nothing.
    pub(super) skip_quotes: bool,
    /// References to variables without a value stay as they are.
    pub(super) skip_unset: bool,
}

/// A text with its variables replaced.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Expanded {
    /// The whole.
    pub(super) text: String,
    /// The same, split at blanks outside quotes.
    pub(super) words: Vec<String>,
    /// Variables that had a value.
    pub(super) used: BTreeSet<String>,
    /// Variables that had none.
    pub(super) unset: BTreeSet<String>,
}

impl Lexer {
    pub(super) const fn new(escape: char) -> Self {
        Self {
            escape,
            raw_quotes: false,
            raw_escapes: false,
            skip_quotes: false,
            skip_unset: false,
        }
    }

    /// Replaces variables; fails with what is wrong.
    pub(super) fn expand(self, source: &str, lookup: Lookup<'_>) -> Result<Expanded, String> {
        let mut scan = Scan {
            lexer: self,
            rest: source.chars().collect::<Vec<_>>(),
            at: 0,
            lookup,
            result: Expanded::default(),
            depth: 0,
        };
        let done = scan.until(None, self.raw_escapes);
        let (text, words) = done.map_err(|why| format!("failed to process {source:?}: {why}"))?;
        Ok(Expanded { text, words, ..scan.result })
    }
}

struct Scan<'a> {
    lexer: Lexer,
    rest: Vec<char>,
    at: usize,
    lookup: Lookup<'a>,
    result: Expanded,
    depth: usize,
}

/// Collects words while the text grows.
#[derive(Default)]
struct Words {
    done: Vec<String>,
    current: String,
}

impl Words {
    fn add(&mut self, c: char) {
        if !c.is_whitespace() {
            self.current.push(c);
        } else if !self.current.is_empty() {
            self.done.push(std::mem::take(&mut self.current));
        }
    }

    fn finish(mut self) -> Vec<String> {
        if !self.current.is_empty() {
            self.done.push(self.current);
        }
        self.done
    }
}

impl Scan<'_> {
    fn peek(&self) -> Option<char> {
        self.rest.get(self.at).copied()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += 1;
        Some(c)
    }

    fn next_if(&mut self, wanted: char) -> bool {
        let found = self.peek() == Some(wanted);
        self.at += usize::from(found);
        found
    }

    /// Reads up to `stop`, or to the end.
    fn until(
        &mut self,
        stop: Option<char>,
        raw_escapes: bool,
    ) -> Result<(String, Vec<String>), String> {
        let before = std::mem::replace(&mut self.lexer.raw_escapes, raw_escapes);
        let done = self.read(stop);
        self.lexer.raw_escapes = before;
        done
    }

    fn read(&mut self, stop: Option<char>) -> Result<(String, Vec<String>), String> {
        let mut text = String::new();
        let mut words = Words::default();
        while let Some(c) = self.peek() {
            if stop == Some(c) {
                self.at += 1;
                return Ok((text, words.finish()));
            }
            match c {
                '$' => {
                    let value = self.variable()?;
                    value.chars().for_each(|c| words.add(c));
                    text.push_str(&value);
                }
                '<' => {
                    let piece = self.heredoc_mark();
                    words.current.push_str(&piece);
                    text.push_str(&piece);
                }
                '\'' | '"' if !self.lexer.skip_quotes => {
                    let piece =
                        if c == '"' { self.double_quoted()? } else { self.single_quoted()? };
                    words.current.push_str(&piece);
                    text.push_str(&piece);
                }
                c => self.plain(c, &mut text, &mut words),
            }
            if text.len() > MAX_EXPANSION {
                return Err(format!("the result is longer than {MAX_EXPANSION} bytes"));
            }
        }
        match stop {
            None => Ok((text, words.finish())),
            Some(stop) => {
                Err(format!("unexpected end of statement while looking for matching {stop}"))
            }
        }
    }

    fn plain(&mut self, c: char, text: &mut String, words: &mut Words) {
        self.at += 1;
        if c != self.lexer.escape {
            words.add(c);
            text.push(c);
            return;
        }
        if self.lexer.raw_escapes {
            words.current.push(c);
            text.push(c);
        }
        // An escape at the very end is dropped.
        if let Some(c) = self.next() {
            words.current.push(c);
            text.push(c);
        }
    }

    /// `<<` takes blanks behind it along, so that `<< EOF` stays one word.
    fn heredoc_mark(&mut self) -> String {
        self.at += 1;
        if !self.next_if('<') {
            return "<".to_owned();
        }
        let mut mark = "<<".to_owned();
        while let Some(c @ ('\t' | '\r' | ' ')) = self.peek() {
            mark.push(c);
            self.at += 1;
        }
        mark
    }

    fn single_quoted(&mut self) -> Result<String, String> {
        let mut text = String::new();
        self.quote(&mut text);
        loop {
            match self.peek() {
                None => {
                    return Err(
                        "unexpected end of statement while looking for matching single-quote"
                            .to_owned(),
                    );
                }
                Some('\'') => {
                    self.quote(&mut text);
                    return Ok(text);
                }
                Some(c) => {
                    self.at += 1;
                    text.push(c);
                }
            }
        }
    }

    fn quote(&mut self, text: &mut String) {
        if let Some(c) = self.next().filter(|_| self.lexer.raw_quotes) {
            text.push(c);
        }
    }

    fn double_quoted(&mut self) -> Result<String, String> {
        let mut text = String::new();
        self.quote(&mut text);
        loop {
            match self.peek() {
                None => {
                    return Err(
                        "unexpected end of statement while looking for matching double-quote"
                            .to_owned(),
                    );
                }
                Some('"') => {
                    self.quote(&mut text);
                    return Ok(text);
                }
                Some('$') => text.push_str(&self.variable()?),
                Some(mut c) => {
                    self.at += 1;
                    if c == self.lexer.escape {
                        if self.lexer.raw_escapes {
                            text.push(c);
                        }
                        match self.peek() {
                            None => continue,
                            Some(next) if next == '"' || next == '$' || next == c => {
                                c = next;
                                self.at += 1;
                            }
                            Some(_) => {}
                        }
                    }
                    text.push(c);
                }
            }
        }
    }

    fn variable(&mut self) -> Result<String, String> {
        self.at += 1;
        if self.next_if('{') {
            return self.braced();
        }
        let name = self.name();
        if name.is_empty() {
            return Ok("$".to_owned());
        }
        match self.value(&name) {
            None if self.lexer.skip_unset => Ok(format!("${name}")),
            value => Ok(value.unwrap_or_default()),
        }
    }

    fn braced(&mut self) -> Result<String, String> {
        match self.peek() {
            None => return Err("syntax error: missing '}'".to_owned()),
            Some('{' | '}' | ':') => return Err("syntax error: bad substitution".to_owned()),
            Some(_) => {}
        }
        let name = self.name();
        match self.next() {
            Some('}') => match self.value(&name) {
                None if self.lexer.skip_unset => Ok(format!("${{{name}}}")),
                value => Ok(value.unwrap_or_default()),
            },
            Some(':') => {
                let modifier = self.next();
                self.modified(&name, modifier, true)
            }
            Some('/') => self.replaced(&name),
            modifier => self.modified(&name, modifier, false),
        }
    }

    /// `${name-word}` and its like; `empty_is_unset` when there is a colon before.
    fn modified(
        &mut self,
        name: &str,
        modifier: Option<char>,
        empty_is_unset: bool,
    ) -> Result<String, String> {
        let shown = format!(
            "{}{}",
            if empty_is_unset { ":" } else { "" },
            modifier.map(String::from).unwrap_or_default()
        );
        let unsupported = || Err(format!("unsupported modifier ({shown}) in substitution"));
        let Some(modifier @ ('+' | '-' | '?' | '#' | '%')) = modifier else { return unsupported() };
        let trims = matches!(modifier, '#' | '%');
        if trims && empty_is_unset {
            return unsupported();
        }
        let word = self.inner('}', trims, "syntax error: missing '}'")?;
        let value = self.value(name);
        if self.lexer.skip_unset && value.is_none() {
            return Ok(format!("${{{name}{shown}{word}}}"));
        }
        let missing = value.as_ref().is_none_or(|value| empty_is_unset && value.is_empty());
        match modifier {
            '-' if missing => Ok(word),
            '+' if missing => Ok(String::new()),
            '+' => Ok(word),
            '?' if missing => {
                let state = if value.is_none() { "unset" } else { "empty" };
                let said = format!("is not allowed to be {state}");
                Err(format!("{name}: {}", if word.is_empty() { said } else { word }))
            }
            '#' | '%' => {
                let (word, longest) = match word.strip_prefix(modifier) {
                    Some(word) => (word, true),
                    None => (&*word, false),
                };
                let end = if modifier == '#' { pattern::End::Front } else { pattern::End::Back };
                pattern::trim(word, &value.unwrap_or_default(), end, longest)
            }
            _ => Ok(value.unwrap_or_default()),
        }
    }

    /// `${name/pattern/replacement}`
    fn replaced(&mut self, name: &str) -> Result<String, String> {
        let all = self.next_if('/');
        let pattern = self.inner('/', true, "syntax error: missing '/' in ${}")?;
        let replacement = self.inner('}', true, "syntax error: missing '}'")?;
        let value = self.value(name);
        if self.lexer.skip_unset && value.is_none() {
            return Ok(format!("${{{name}/{pattern}/{replacement}}}"));
        }
        pattern::replace(&pattern, &value.unwrap_or_default(), &replacement, all)
    }

    fn inner(&mut self, stop: char, raw_escapes: bool, missing: &str) -> Result<String, String> {
        if self.depth >= MAX_DEPTH {
            return Err(format!("variables nest deeper than {MAX_DEPTH}"));
        }
        self.depth += 1;
        let read = self.until(Some(stop), raw_escapes);
        self.depth -= 1;
        match read {
            Ok((word, _)) => Ok(word),
            Err(_) if self.peek().is_none() => Err(missing.to_owned()),
            Err(why) => Err(why),
        }
    }

    /// Letters, digits and underscores; or digits alone; or one special character.
    fn name(&mut self) -> String {
        let mut name = String::new();
        match self.peek() {
            Some(c) if c.is_numeric() => {
                while let Some(c) = self.peek().filter(|c| c.is_numeric()) {
                    name.push(c);
                    self.at += 1;
                }
            }
            Some(c @ ('@' | '*' | '#' | '?' | '-' | '$' | '!')) => {
                name.push(c);
                self.at += 1;
            }
            _ => {
                while let Some(c) = self.peek().filter(|c| c.is_alphanumeric() || *c == '_') {
                    name.push(c);
                    self.at += 1;
                }
            }
        }
        name
    }

    fn value(&mut self, name: &str) -> Option<String> {
        let value = (self.lookup)(name);
        let seen = if value.is_some() { &mut self.result.used } else { &mut self.result.unset };
        seen.insert(name.to_owned());
        value
    }
}

#[cfg(test)]
mod tests;

//! Splits a template into text and the tokens of its actions.

use super::TemplateError;

/// A token of an action.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
    /// Text between actions.
    Text(String),
    Left,
    Right,
    /// `.Name`
    Field(String),
    /// `.` alone
    Dot,
    /// `$`, `$name`
    Variable(String),
    /// A function or keyword.
    Word(String),
    /// A text constant and how it was written.
    Text2(String, String),
    /// A number as written.
    Number(String),
    /// A character constant: its code and how it was written.
    Char(i64, String),
    Pipe,
    Comma,
    /// `=` or `:=`
    Assign(&'static str),
    Open,
    Close,
    Space,
}

/// Returns tokens with the byte they start at.
pub(super) fn tokens(name: &str, text: &str) -> Result<Vec<(usize, Token)>, TemplateError> {
    let mut all = Vec::new();
    let mut at = 0;
    let mut trim = false;
    while at < text.len() {
        let rest = &text[at..];
        let open = rest.find("{{");
        let mut plain = &rest[..open.unwrap_or(rest.len())];
        let start = at;
        if trim {
            plain = plain.trim_start_matches([' ', '\t', '\r', '\n']);
        }
        let inner = open.map(|open| at + open + 2);
        let trims_left = inner.is_some_and(|inner| {
            text[inner..].starts_with('-') && text[inner + 1..].starts_with([' ', '\t', '\r', '\n'])
        });
        if trims_left {
            plain = plain.trim_end_matches([' ', '\t', '\r', '\n']);
        }
        if !plain.is_empty() {
            all.push((start, Token::Text(plain.to_owned())));
        }
        let Some(mut inner) = inner else { break };
        if trims_left {
            inner += 2;
        }
        (at, trim) = match comment_end(&text[inner..]) {
            Some((length, trims)) => (inner + length, trims),
            None => action(name, text, inner, &mut all)?,
        };
    }
    Ok(all)
}

/// Returns the length of a comment with the closing braces.
fn comment_end(text: &str) -> Option<(usize, bool)> {
    let body = text.strip_prefix("/*")?;
    let end = body.find("*/")? + 4;
    let rest = &text[end..];
    if rest.starts_with("}}") {
        return Some((end + 2, false));
    }
    let blank = rest.starts_with([' ', '\t', '\r', '\n']);
    (blank && rest[1..].starts_with("-}}")).then_some((end + 4, true))
}

/// Reads an action up to its closing braces; tells where it ends and whether it trims what follows.
fn action(
    name: &str,
    text: &str,
    start: usize,
    all: &mut Vec<(usize, Token)>,
) -> Result<(usize, bool), TemplateError> {
    all.push((start, Token::Left));
    let mut at = start;
    loop {
        let rest = &text[at..];
        if rest.starts_with("}}") {
            all.push((at, Token::Right));
            return Ok((at + 2, false));
        }
        if rest.starts_with([' ', '\t', '\r', '\n']) && rest[1..].starts_with("-}}") {
            all.push((at, Token::Right));
            return Ok((at + 4, true));
        }
        let fail = |reason: String| TemplateError(error_text(name, text, at, &reason));
        if rest.is_empty() {
            return Err(fail("unclosed action".to_owned()));
        }
        let (token, length) = token(rest).map_err(fail)?;
        all.push((at, token));
        at += length;
    }
}

/// `template: name:line: reason`
pub(super) fn error_text(name: &str, text: &str, at: usize, reason: &str) -> String {
    let line = text[..at.min(text.len())].matches('\n').count() + 1;
    format!("template: {name}:{line}: {reason}")
}

fn token(rest: &str) -> Result<(Token, usize), String> {
    let mut chars = rest.chars();
    let first = chars.next().unwrap_or(' ');
    let second = chars.next();
    match first {
        ' ' | '\t' | '\r' | '\n' => {
            let blank = rest.len() - rest.trim_start_matches([' ', '\t', '\r', '\n']).len();
            // The blank before a closing trim mark belongs to it.
            let blank =
                if rest[blank..].starts_with("-}}") && blank > 1 { blank - 1 } else { blank };
            Ok((Token::Space, blank))
        }
        '|' => Ok((Token::Pipe, 1)),
        ',' => Ok((Token::Comma, 1)),
        '(' => Ok((Token::Open, 1)),
        ')' => Ok((Token::Close, 1)),
        '=' => Ok((Token::Assign("="), 1)),
        ':' if second == Some('=') => Ok((Token::Assign(":="), 2)),
        ':' => Err("expected :=".to_owned()),
        '"' => quoted(rest),
        '`' => {
            let end = rest[1..].find('`').ok_or("unterminated raw quoted string")?;
            let (inner, source) = (&rest[1..=end], &rest[..end + 2]);
            Ok((Token::Text2(inner.to_owned(), source.to_owned()), end + 2))
        }
        '\'' => character(rest),
        '.' if second.is_some_and(|c| c.is_ascii_digit()) => Ok(number(rest)),
        '.' => {
            let length = word_length(&rest[1..]);
            let token =
                if length == 0 { Token::Dot } else { Token::Field(rest[1..=length].to_owned()) };
            Ok((token, length + 1))
        }
        '$' => {
            let length = word_length(&rest[1..]);
            Ok((Token::Variable(rest[..=length].to_owned()), length + 1))
        }
        '+' | '-' | '0'..='9' => Ok(number(rest)),
        c if c.is_alphanumeric() || c == '_' => {
            let length = word_length(rest);
            Ok((Token::Word(rest[..length].to_owned()), length))
        }
        c => Err(format!("unexpected bad character U+{:04X} '{c}' in command", c as u32)),
    }
}

fn word_length(text: &str) -> usize {
    text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len())
}

fn number(rest: &str) -> (Token, usize) {
    let end = rest
        .char_indices()
        .skip(1)
        .find(|(at, c)| {
            let sign = matches!(c, '+' | '-') && rest[..*at].ends_with(['e', 'E']);
            !(c.is_alphanumeric() || *c == '.' || *c == '_' || sign)
        })
        .map_or(rest.len(), |(at, _)| at);
    (Token::Number(rest[..end].to_owned()), end)
}

fn quoted(rest: &str) -> Result<(Token, usize), String> {
    let unterminated = || "unterminated quoted string".to_owned();
    let mut out = String::new();
    let mut chars = rest.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Ok((Token::Text2(out, rest[..=at].to_owned()), at + 1)),
            '\n' => break,
            '\\' => {
                let (escaped, length) = escape(&rest[at + 1..]).ok_or_else(unterminated)?;
                out.push(escaped);
                for _ in 1..=length.saturating_sub(1) {
                    chars.next();
                }
                chars.next();
            }
            c => out.push(c),
        }
    }
    Err(unterminated())
}

/// Reads what follows a backslash; all escapes are ASCII, so the length counts characters too.
fn escape(text: &str) -> Option<(char, usize)> {
    let first = text.chars().next()?;
    let code = |from: usize, length: usize, radix| {
        let digits = text.get(from..from + length)?;
        Some((char::from_u32(u32::from_str_radix(digits, radix).ok()?)?, from + length))
    };
    match first {
        'n' => Some(('\n', 1)),
        't' => Some(('\t', 1)),
        'r' => Some(('\r', 1)),
        'a' => Some(('\u{7}', 1)),
        'b' => Some(('\u{8}', 1)),
        'f' => Some(('\u{c}', 1)),
        'v' => Some(('\u{b}', 1)),
        '\\' | '"' | '\'' => Some((first, 1)),
        'x' => code(1, 2, 16),
        'u' => code(1, 4, 16),
        'U' => code(1, 8, 16),
        '0'..='7' => code(0, 3, 8),
        _ => None,
    }
}

fn character(rest: &str) -> Result<(Token, usize), String> {
    let unterminated = || "unterminated character constant".to_owned();
    let inner = &rest[1..];
    let (value, length) = match inner.chars().next() {
        Some('\\') => {
            let (value, length) = escape(&inner[1..]).ok_or_else(unterminated)?;
            (value, length + 1)
        }
        Some(c) => (c, c.len_utf8()),
        None => return Err(unterminated()),
    };
    if !inner[length..].starts_with('\'') {
        return Err(unterminated());
    }
    Ok((Token::Char(i64::from(value as u32), rest[..length + 2].to_owned()), length + 2))
}

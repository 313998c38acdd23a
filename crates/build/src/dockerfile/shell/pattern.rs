//! Patterns inside `${…}`: `*` and `?`, no classes.

/// Which end of a value is trimmed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Front,
    Back,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Token {
    Literal(char),
    One,
    Run,
}

/// Most steps that replacing may take.
///
/// LIMIT: `a*a*b` against a long run of `a` costs the square of its length.
const MAX_WORK: usize = 1 << 28;

fn tokens(pattern: &str) -> Result<Vec<Token>, String> {
    let mut rest = pattern.chars();
    let mut tokens = Vec::new();
    while let Some(c) = rest.next() {
        tokens.push(match c {
            '*' => Token::Run,
            '?' => Token::One,
            '\\' => match rest.next() {
                // `}` and `/` are escaped for the sake of `${…}`, not of the pattern.
                Some(c @ ('}' | '/' | '*' | '?' | '\\')) => Token::Literal(c),
                other => {
                    let shown = other.map(String::from).unwrap_or_default();
                    return Err(format!(
                        "invalid pattern ({pattern}) in substitution: invalid escape '\\{shown}'"
                    ));
                }
            },
            c => Token::Literal(c),
        });
    }
    Ok(tokens)
}

/// Cuts off what matches at one end: the shortest or the longest.
pub(super) fn trim(pattern: &str, value: &str, end: End, longest: bool) -> Result<String, String> {
    let mut tokens = tokens(pattern)?;
    let mut chars: Vec<char> = value.chars().collect();
    if end == End::Back {
        tokens.reverse();
        chars.reverse();
    }
    let Some(length) = matched(&tokens, &chars, longest) else { return Ok(value.to_owned()) };
    let mut left = chars.split_off(length);
    if end == End::Back {
        left.reverse();
    }
    Ok(left.into_iter().collect())
}

/// Replaces the first, or each, longest match.
pub(super) fn replace(
    pattern: &str,
    value: &str,
    replacement: &str,
    all: bool,
) -> Result<String, String> {
    let tokens = tokens(pattern)?;
    let chars: Vec<char> = value.chars().collect();
    if chars.len().saturating_mul(chars.len()).saturating_mul(tokens.len()) > MAX_WORK {
        return Err(format!("a value of {} characters is too long for ({pattern})", chars.len()));
    }
    let mut result = String::new();
    let mut at = 0;
    let mut may_be_empty = true;
    while at <= chars.len() {
        let found =
            matched(&tokens, &chars[at..], true).filter(|length| *length > 0 || may_be_empty);
        match found {
            Some(length) => {
                result.push_str(replacement);
                at += length;
                // Nothing right behind a match is no match of its own.
                may_be_empty = length == 0;
                if length == 0 {
                    result.extend(chars.get(at));
                    at += 1;
                }
                if !all {
                    break;
                }
            }
            None => {
                result.extend(chars.get(at));
                at += 1;
                may_be_empty = true;
            }
        }
    }
    result.extend(chars.get(at..).unwrap_or_default());
    Ok(result)
}

/// Length of the match at the start of a text.
fn matched(tokens: &[Token], text: &[char], longest: bool) -> Option<usize> {
    let mut reached = vec![false; text.len() + 1];
    reached[0] = true;
    for token in tokens {
        let mut next = vec![false; text.len() + 1];
        let mut running = false;
        for at in 0..=text.len() {
            let here = text.get(at).copied();
            match token {
                Token::Literal(wanted) if reached[at] && here == Some(*wanted) => {
                    next[at + 1] = true;
                }
                Token::One if reached[at] && here.is_some_and(|c| c != '\n') => next[at + 1] = true,
                Token::Run => {
                    running |= reached[at];
                    next[at] = running;
                    running &= here != Some('\n');
                }
                Token::Literal(_) | Token::One => {}
            }
        }
        reached = next;
    }
    if longest { reached.iter().rposition(|hit| *hit) } else { reached.iter().position(|hit| *hit) }
}

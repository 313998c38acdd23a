//! `WWW-Authenticate`: what a registry wants to know of who asks (RFC 9110, section 11; the distribution's token protocol).

use std::collections::BTreeMap;

/// What a registry asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    /// Name and password with each request.
    Basic,
    /// A token from somebody else.
    Bearer(Bearer),
}

/// Where tokens come from, and for what.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Bearer {
    pub(super) realm: String,
    pub(super) service: String,
    pub(super) scope: String,
}

// LIMIT: parameters of one challenge; servers send four.
const MAX_PARAMETERS: usize = 32;

/// Reads one header, which may hold several challenges; the token protocol is preferred.
pub(super) fn parse<'h>(headers: impl Iterator<Item = &'h str>) -> Option<Challenge> {
    let mut found = None;
    for (scheme, parameters) in headers.flat_map(challenges) {
        if scheme.eq_ignore_ascii_case("bearer") && parameters.contains_key("realm") {
            let text = |name: &str| parameters.get(name).cloned().unwrap_or_default();
            let bearer =
                Bearer { realm: text("realm"), service: text("service"), scope: text("scope") };
            return Some(Challenge::Bearer(bearer));
        }
        if scheme.eq_ignore_ascii_case("basic") {
            found = Some(Challenge::Basic);
        }
    }
    found
}

fn challenges(header: &str) -> Vec<(String, BTreeMap<String, String>)> {
    let mut found: Vec<(String, BTreeMap<String, String>)> = Vec::new();
    let mut rest = header.trim_start_matches([' ', ',', '\t']);
    while !rest.is_empty() && found.len() <= MAX_PARAMETERS {
        let (word, behind) = token(rest);
        if word.is_empty() {
            break;
        }
        let behind = behind.trim_start();
        match behind.strip_prefix('=') {
            Some(value) => {
                let (value, behind) = parameter(value.trim_start());
                if let Some((_, parameters)) = found.last_mut()
                    && parameters.len() < MAX_PARAMETERS
                {
                    parameters.insert(word.to_ascii_lowercase(), value);
                }
                rest = behind;
            }
            None => {
                found.push((word.to_owned(), BTreeMap::new()));
                rest = behind;
            }
        }
        rest = rest.trim_start_matches([' ', ',', '\t']);
    }
    found
}

fn token(text: &str) -> (&str, &str) {
    let end = text.find([' ', '\t', ',', '=', '"']).unwrap_or(text.len());
    text.split_at(end)
}

/// Reads a value: a word, or a text in quotes with escapes.
fn parameter(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([' ', '\t', ',']).unwrap_or(text.len());
        return (text[..end].to_owned(), &text[end..]);
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, char)) = chars.next() {
        match char {
            '"' => return (value, &quoted[at + 1..]),
            '\\' => value.extend(chars.next().map(|(_, escaped)| escaped)),
            other => value.push(other),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests;

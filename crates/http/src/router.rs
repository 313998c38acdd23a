//! Finds the route of a request. Patterns are paths with `{name}` for one segment and `{name:.*}` for anything with
//! slashes, as image names have. Routes are tried in their order.

use http::Method;

use crate::percent;

/// Routes to values of type `T`.
#[derive(Clone, Debug)]
pub struct Router<T> {
    routes: Vec<(Method, Vec<Part>, T)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(&'static str),
    Segment(&'static str),
    Rest(&'static str),
}

/// A route that was found.
#[derive(Debug, PartialEq, Eq)]
pub struct Match<'r, T> {
    /// What it leads to.
    pub route: &'r T,
    /// Version in front of the path (`1.51` of `/v1.51/info`).
    pub version: Option<String>,
    /// Values of the pattern's names.
    pub params: Vec<(&'static str, String)>,
}

impl<T> Default for Router<T> {
    fn default() -> Self {
        Self { routes: Vec::new() }
    }
}

impl<T> Router<T> {
    /// Adds a route.
    pub fn add(&mut self, method: Method, pattern: &'static str, route: T) {
        self.routes.push((method, parse(pattern), route));
    }

    /// Finds the route of an encoded path.
    pub fn find(&self, method: &Method, path: &str) -> Option<Match<'_, T>> {
        let path = percent::decode(path, false)?;
        let (version, path) = split_version(&path);
        self.routes.iter().filter(|(known, ..)| known == method).find_map(|(_, parts, route)| {
            let mut params = Vec::new();
            matches(parts, path, &mut params).then(|| Match {
                route,
                version: version.map(str::to_owned),
                params,
            })
        })
    }

    /// Splits the version off an encoded path, whether or not there is such a route.
    pub fn version(path: &str) -> Option<&str> {
        split_version(path).0
    }
}

fn parse(pattern: &'static str) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut rest = pattern;
    while let Some((text, tail)) = rest.split_once('{') {
        let (name, tail) = tail.split_once('}').unwrap_or((tail, ""));
        parts.push(Part::Text(text));
        parts.push(match name.strip_suffix(":.*") {
            Some(name) => Part::Rest(name),
            None => Part::Segment(name),
        });
        rest = tail;
    }
    parts.push(Part::Text(rest));
    parts
}

/// Splits `/v1.51/info` into version and path.
fn split_version(path: &str) -> (Option<&str>, &str) {
    let versioned = path.strip_prefix("/v").and_then(|rest| {
        let (version, _) = rest.split_once('/')?;
        let is_version = !version.is_empty()
            && version.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
        is_version.then(|| (Some(version), &rest[version.len()..]))
    });
    versioned.unwrap_or((None, path))
}

fn matches(parts: &[Part], path: &str, params: &mut Vec<(&'static str, String)>) -> bool {
    let (name, may_cross, rest) = match parts {
        [] => return path.is_empty(),
        [Part::Text(text), rest @ ..] => {
            return path.strip_prefix(text).is_some_and(|path| matches(rest, path, params));
        }
        [Part::Segment(name), rest @ ..] => (*name, false, rest),
        [Part::Rest(name), rest @ ..] => (*name, true, rest),
    };
    let longest = if may_cross { path.len() } else { path.find('/').unwrap_or(path.len()) };
    for end in (1..=longest).rev().filter(|end| path.is_char_boundary(*end)) {
        let before = params.len();
        params.push((name, path[..end].to_owned()));
        if matches(rest, &path[end..], params) {
            return true;
        }
        params.truncate(before);
    }
    false
}

#[cfg(test)]
mod tests;

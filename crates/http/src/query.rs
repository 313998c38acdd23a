//! The query of a request, read as Docker's daemon reads it.

use crate::percent;

/// Parameters in their order; a name may occur several times.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Reads `a=1&b=2`. Pairs that are not properly encoded are left out, as Go does.
    pub fn parse(text: &str) -> Self {
        let pairs = text.split('&').filter(|pair| !pair.is_empty()).filter_map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Some((percent::decode(name, true)?, percent::decode(value, true)?))
        });
        Self(pairs.collect())
    }

    /// Returns the first value of `name`, empty when it was not given.
    pub fn text(&self, name: &str) -> &str {
        self.find(name).unwrap_or_default()
    }

    /// Finds the first value of `name`.
    pub fn find(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Returns all values of `name`.
    pub fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Tells whether a switch is on; `default` when it was not given.
    // COMPAT: everything but these words is on.
    pub fn switch(&self, name: &str, default: bool) -> bool {
        let is_off = |value: &str| {
            ["", "0", "no", "false", "none"]
                .iter()
                .any(|word| value.trim().eq_ignore_ascii_case(word))
        };
        self.find(name).map_or(default, |value| !is_off(value))
    }

    /// Tells whether a switch is on; off when it was not given.
    pub fn flag(&self, name: &str) -> bool {
        self.switch(name, false)
    }
}

#[cfg(test)]
mod tests;

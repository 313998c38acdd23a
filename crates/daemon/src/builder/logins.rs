//! The logins that came with a classic build, by registry. A build over BuildKit's protocol asks its client instead.

use std::collections::BTreeMap;

use rorqual_build::Login;

// LIMIT: registries of one build; clients send all that they know.
const MOST: usize = 1000;

/// Logins by the host of their registry.
#[derive(Debug, Default)]
pub(crate) struct Logins(BTreeMap<String, Login>);

/// The host of the default registry, as [`super::images::authentication`] asks for it.
const HUB: &str = "registry-1.docker.io";

impl Logins {
    /// Keeps logins by what clients name registries: a host, or an address.
    pub(crate) fn new(all: impl IntoIterator<Item = (String, Login)>) -> Self {
        let known = all.into_iter().take(MOST);
        let known = known.filter(|(_, login)| !login.secret.is_empty());
        Self(known.map(|(key, login)| (host(&key).to_owned(), login)).collect())
    }

    /// Finds the login for a registry, by its host.
    pub(crate) fn find(&self, host: &str) -> Option<Login> {
        self.0.get(host).cloned()
    }
}

/// Reads `https://host[:port]/v1/` and its like. COMPAT: the default registry has names of old.
fn host(key: &str) -> &str {
    let rest = key.split_once("://").map_or(key, |(_, rest)| rest);
    match rest.split('/').next().unwrap_or_default() {
        "docker.io" | "index.docker.io" => HUB,
        host => host,
    }
}

#[cfg(test)]
mod tests;

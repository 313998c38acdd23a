//! Which servers a repository is asked for at, in which order. Pure but for the look at what addresses a name has.

use rorqual_core::{ErrorKind, Repository};

use super::address::Network;
use super::options::{RegistryOptions, RegistryRule};
use crate::Error;

/// What an operation wants of a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Mirrors may answer.
    Read,
    /// Only the registry itself will do.
    Write,
}

/// A server that speaks for a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Endpoint {
    /// `host[:port]` as in an address, and as `certs.d` names it.
    pub(super) authority: String,
    pub(super) https: bool,
    /// Check the certificate.
    pub(super) verify: bool,
    /// Path in front of repositories' names, without slashes around it.
    pub(super) prefix: String,
    /// It stands in for another registry.
    pub(super) mirror: bool,
    /// Servers of other owners that may have the credentials for this one, by the settings.
    pub(super) token_servers: Vec<String>,
}

/// The default registry's server. COMPAT: its name in references is another.
const HUB: &str = "registry-1.docker.io";

impl Endpoint {
    /// Returns a repository's path at this server.
    pub(super) fn path(&self, repository: &str) -> String {
        match self.prefix.as_str() {
            "" => repository.to_owned(),
            prefix => format!("{prefix}/{repository}"),
        }
    }

    /// Returns the address that paths are appended to.
    pub(super) fn base(&self) -> String {
        let scheme = if self.https { "https" } else { "http" };
        format!("{scheme}://{}", self.authority)
    }

    /// Tells whether the settings let a server have the credentials for this one.
    pub(super) fn lends_to(&self, authority: &str) -> bool {
        let authority = authority.to_ascii_lowercase();
        let (host, _) = split(&authority);
        self.token_servers.iter().map(|entry| entry.to_ascii_lowercase()).any(|entry| {
            match entry.strip_prefix("*.") {
                Some(domain) => is_below(host, domain),
                None => entry == authority || entry == host,
            }
        })
    }

    /// Reads a mirror's address.
    fn mirror(text: &str) -> Result<Self, Error> {
        let bad = |why: &str| {
            let message = format!("registry mirror {text:?}: {why}");
            Error::Registry { kind: ErrorKind::InvalidArgument, message }
        };
        let (https, rest) = match text.split_once("://") {
            Some(("https", rest)) => (true, rest),
            Some(("http", rest)) => (false, rest),
            Some(_) => return Err(bad("need http:// or https://")),
            None => (true, text),
        };
        let (authority, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        if authority.is_empty()
            || authority.contains(['@', '?', '#'])
            || prefix.contains(['?', '#'])
        {
            return Err(bad("need scheme://host[:port][/path] without credentials and query"));
        }
        let prefix = prefix.trim_matches('/').trim_start_matches("v2/").to_owned();
        let prefix = if prefix == "v2" { String::new() } else { prefix };
        let (authority, token_servers) = (authority.to_owned(), Vec::new());
        Ok(Self { authority, https, verify: true, prefix, mirror: true, token_servers })
    }
}

/// Checks a mirror's address.
pub(super) fn check_mirror(text: &str) -> Result<(), Error> {
    Endpoint::mirror(text).map(drop)
}

fn is_below(host: &str, domain: &str) -> bool {
    let below = host.strip_suffix(domain);
    !domain.is_empty() && below.is_some_and(|below| below.ends_with('.') && below.len() > 1)
}

/// Finds the rule for a repository: the longest key that is its host, a parent domain, or a prefix of its path.
pub(super) fn rule<'o>(
    options: &'o RegistryOptions,
    repository: &Repository,
) -> Option<&'o RegistryRule> {
    let full = repository.to_string();
    let matches = |key: &str| match key.strip_prefix("*.") {
        Some(domain) => is_below(repository.host(), domain),
        None => full.strip_prefix(key).is_some_and(|rest| rest.starts_with('/') || rest.is_empty()),
    };
    let found = options.rules.iter().filter(|(key, _)| matches(key.trim_end_matches('/')));
    // A name says more than a pattern of the same length.
    let (_, rule) = found.max_by_key(|(key, _)| (!key.starts_with("*."), key.len()))?;
    Some(rule)
}

/// Lists the endpoints of a repository; `addresses` are those of its host, where they matter.
pub(super) fn endpoints(
    options: &RegistryOptions,
    repository: &Repository,
    purpose: Purpose,
    addresses: &[std::net::IpAddr],
) -> Result<Vec<Endpoint>, Error> {
    let rule = rule(options, repository).cloned().unwrap_or_default();
    if rule.blocked {
        let message =
            format!("registry {} is blocked by this daemon's settings", repository.host());
        return Err(Error::Registry { kind: ErrorKind::Forbidden, message });
    }
    let mut found = Vec::new();
    if purpose == Purpose::Read {
        let hub = repository.host() == "docker.io" && rule.mirrors.is_empty();
        let mirrors = if hub { &options.mirrors } else { &rule.mirrors };
        for mirror in mirrors {
            let mut endpoint = Endpoint::mirror(mirror)?;
            endpoint.verify = !is_insecure(options, &endpoint.authority, &[]);
            found.push(endpoint);
        }
        if rule.mirrors_only && !found.is_empty() {
            return Ok(found);
        }
    }
    let host = repository.host();
    let authority = if host == "docker.io" { HUB } else { host }.to_owned();
    let insecure = rule.insecure || is_insecure(options, &authority, addresses);
    let secure = Endpoint {
        authority,
        https: true,
        verify: !insecure,
        prefix: String::new(),
        mirror: false,
        token_servers: rule.token_servers,
    };
    let plain = insecure.then(|| Endpoint { https: false, ..secure.clone() });
    found.push(secure);
    found.extend(plain);
    Ok(found)
}

/// Tells whether the settings name networks, so that the addresses of a host matter.
pub(super) fn has_networks(options: &RegistryOptions) -> bool {
    options.insecure.iter().any(|entry| Network::parse(entry).is_some())
}

/// Returns host and port of an authority.
pub(super) fn split(authority: &str) -> (&str, Option<u16>) {
    let (host, port) = match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, port)) => (host, port.strip_prefix(':')),
        None => match authority.rsplit_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        },
    };
    (host, port.and_then(|port| port.parse().ok()))
}

/// COMPAT: a registry on this machine needs no certificate. Other than in dockerd, a name counts only when it says so itself.
fn is_insecure(options: &RegistryOptions, authority: &str, addresses: &[std::net::IpAddr]) -> bool {
    let (host, _) = split(authority);
    let literal = host.parse::<std::net::IpAddr>().ok();
    let local = host == "localhost"
        || host.ends_with(".localhost")
        || literal.is_some_and(|address| address.is_loopback());
    local
        || options.insecure.iter().any(|entry| match Network::parse(entry) {
            Some(network) => {
                literal.iter().chain(addresses).any(|address| network.contains(*address))
            }
            None => entry.eq_ignore_ascii_case(authority),
        })
}

#[cfg(test)]
mod tests;

//! Settings of the registry client. Nothing is read or connected here.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::{address, endpoint};

/// How to reach registries that match a rule.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RegistryRule {
    /// Base addresses that are asked first, in order; a path in one goes before the repository's.
    pub mirrors: Vec<String>,
    /// Nobody but the mirrors is asked.
    pub mirrors_only: bool,
    /// Nothing may be fetched from or sent to it.
    pub blocked: bool,
    /// Certificates are not checked, and plain HTTP is taken where there is no TLS.
    pub insecure: bool,
    /// `host[:port]` or `*.domain` of others who may be sent the credentials for it, in exchange for tokens.
    pub token_servers: Vec<String>,
}

/// Proxies for outgoing requests; empty for none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proxies {
    /// For `http:`.
    pub http: String,
    /// For `https:`.
    pub https: String,
    /// Names, addresses and networks that are reached directly, separated by commas.
    pub none: String,
}

impl Proxies {
    /// Reads `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY` (or lower-case) of the environment.
    pub fn from_environment() -> Self {
        let read = |name: &str| {
            let value = std::env::var(name).or_else(|_| std::env::var(name.to_ascii_lowercase()));
            value.unwrap_or_default()
        };
        Self { http: read("HTTP_PROXY"), https: read("HTTPS_PROXY"), none: read("NO_PROXY") }
    }
}

/// Settings of the registry client.
#[derive(Clone, Debug)]
pub struct RegistryOptions {
    /// Mirrors of the default registry.
    pub mirrors: Vec<String>,
    /// `host[:port]` or networks whose certificates are not checked.
    pub insecure: Vec<String>,
    /// Rules by `host`, `*.domain` or `host/path`; the longest match wins.
    pub rules: Vec<(String, RegistryRule)>,
    /// Directories with `host[:port]/{*.crt,*.cert,*.key}`.
    pub certificates: Vec<PathBuf>,
    /// Proxies.
    pub proxies: Proxies,
    /// Layers of one pull on the way at a time.
    pub downloads: usize,
    /// Layers of one push on the way at a time.
    pub uploads: usize,
    /// Tries of one request or blob that make no progress.
    pub attempts: u32,
    /// First pause before another try; doubles each time.
    pub pause: Duration,
    /// How long a peer may stay silent.
    pub patience: Duration,
    /// Whom we say we are.
    pub user_agent: String,
    /// Tells addresses that a public registry may not send us to.
    pub is_private: fn(IpAddr) -> bool,
}

impl RegistryOptions {
    /// Checks what can be told without connecting.
    pub fn check(&self) -> Result<(), crate::Error> {
        let ruled = self.rules.iter().flat_map(|(_, rule)| &rule.mirrors);
        self.mirrors.iter().chain(ruled).try_for_each(|mirror| endpoint::check_mirror(mirror))
    }
}

impl Default for RegistryOptions {
    fn default() -> Self {
        Self {
            mirrors: Vec::new(),
            insecure: Vec::new(),
            rules: Vec::new(),
            certificates: vec!["/etc/docker/certs.d".into()],
            proxies: Proxies::default(),
            // COMPAT: Docker's defaults but for downloads, where it has 3.
            downloads: 4,
            uploads: 5,
            attempts: 5,
            pause: Duration::from_millis(500),
            patience: Duration::from_secs(60),
            user_agent: concat!("rorqual/", env!("CARGO_PKG_VERSION")).to_owned(),
            is_private: address::is_private,
        }
    }
}

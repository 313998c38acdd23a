//! What can be configured: the document of the configuration file, which flags then override. One key means one thing.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use rorqual_core::units;
use serde::{Deserialize, Deserializer};

use crate::auth::keys::address;
use crate::error::{Error, Result};

/// The configuration of a registry.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Config {
    /// Addresses to serve at: `HOST:PORT`, `tcp://…`, `unix://…`.
    pub listen: Vec<String>,
    /// Directory, or URL of a bucket.
    pub storage: String,
    /// Address of metrics and health; empty: none.
    pub debug_listen: String,
    /// TLS.
    pub tls: Tls,
    /// Who may do what.
    pub auth: Auth,
    /// Refuse everything that changes something.
    pub read_only: bool,
    /// Allow manifests, tags and blobs to be deleted.
    pub delete: bool,
    /// Bounds.
    pub limits: Limits,
    /// Most that repositories may hold.
    pub quotas: Vec<Quota>,
    /// Garbage collection.
    pub gc: Gc,
    /// Which tags go by themselves.
    pub retention: Vec<Retention>,
    /// Pull-through cache.
    pub proxy: Option<Proxy>,
    /// Who is told of pushes, pulls and deletions.
    pub notifications: Vec<Endpoint>,
    /// Serve the web pages.
    pub web: bool,
    /// The log.
    pub log: Log,
    /// How long requests under way may take once the registry is told to end.
    pub drain: Span,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: Vec::new(),
            storage: String::new(),
            debug_listen: String::new(),
            tls: Tls::default(),
            auth: Auth::default(),
            read_only: false,
            delete: false,
            limits: Limits::default(),
            quotas: Vec::new(),
            gc: Gc::default(),
            retention: Vec::new(),
            proxy: None,
            notifications: Vec::new(),
            web: true,
            log: Log::default(),
            drain: Span::secs(30),
        }
    }
}

/// A time span as people write it: `90s`, `1h30m`, `30d`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

impl Span {
    const fn secs(secs: u64) -> Self {
        Self(Duration::from_secs(secs))
    }

    /// Reads one.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let days = text.strip_suffix('d').and_then(|days| days.parse::<u64>().ok());
        if let Some(days) = days {
            // LIMIT: more than a hundred years is a mistake.
            return Ok(Self::secs(days.min(36_500) * 86_400));
        }
        units::parse_duration(text).map(Self).map_err(|error| Error::Config(error.to_string()))
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&units::go_duration(self.0))
    }
}

/// A number of bytes as people write it: `512m`, `10g`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

impl Size {
    /// Reads one.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        units::parse_size(text).map(Self).map_err(|error| Error::Config(error.to_string()))
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Either {
            Number(u64),
            Text(String),
        }
        match Either::deserialize(deserializer)? {
            Either::Number(bytes) => Ok(Self(bytes)),
            Either::Text(text) => Self::parse(&text).map_err(serde::de::Error::custom),
        }
    }
}

/// Files for TLS.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Tls {
    /// Certificate chain, PEM.
    pub cert: Option<PathBuf>,
    /// Key, PEM.
    pub key: Option<PathBuf>,
    /// Authority whose clients alone may come.
    pub client_ca: Option<PathBuf>,
}

/// Who may do what.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Auth {
    /// Users and their bcrypt hashes.
    pub htpasswd: Option<PathBuf>,
    /// Rights per repository.
    pub policy: Option<PathBuf>,
    /// Tokens instead of passwords at each request.
    pub token: Option<Token>,
}

/// Token mode.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Token {
    /// Where clients get tokens; empty: from this registry itself.
    pub realm: String,
    /// This registry's name in tokens.
    pub service: String,
    /// Who signs tokens.
    pub issuer: String,
    /// The own service's key, made if the file is missing.
    pub key: Option<PathBuf>,
    /// Public key (PEM) or key set (JWKS) of a foreign service: a file, or the address where it is published.
    pub public_keys: Option<PathBuf>,
    /// Authority of that address, PEM.
    pub public_keys_ca: Option<PathBuf>,
    /// How long tokens hold.
    pub lifetime: Span,
}

impl Default for Token {
    fn default() -> Self {
        Self {
            realm: String::new(),
            service: "rorqual-registry".to_owned(),
            issuer: "rorqual-registry".to_owned(),
            key: None,
            public_keys: None,
            public_keys_ca: None,
            lifetime: Span::secs(300),
        }
    }
}

/// Bounds on what clients may do.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Limits {
    /// Bytes of a manifest.
    pub manifest: Size,
    /// Bytes of a blob.
    pub blob: Size,
    /// Uploads that have begun and not ended.
    pub uploads: usize,
    /// Age at which such an upload is given up.
    pub upload_age: Span,
    /// Connections at a time.
    pub connections: usize,
    /// Requests of one client per second; 0: any number.
    pub rate: f64,
    /// Requests of one client at once.
    pub burst: f64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            // LIMIT: what the specification asks registries to take at least.
            manifest: Size(4 << 20),
            // LIMIT: more than any layer in use.
            blob: Size(64 << 30),
            uploads: 1000,
            upload_age: Span::secs(24 * 3600),
            connections: 4096,
            rate: 0.0,
            burst: 100.0,
        }
    }
}

/// Most that repositories may hold.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Quota {
    /// Which: a name, in which `*` stands for anything.
    pub repository: String,
    /// Bytes of each.
    #[serde(default)]
    pub size: Option<Size>,
    /// Tags of each.
    #[serde(default)]
    pub tags: Option<usize>,
}

/// Garbage collection.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Gc {
    /// How often; `0s`: only by command.
    pub interval: Span,
    /// Younger things stay in any case: longer than any push takes from its first to its last request.
    pub grace: Span,
    /// Age at which manifests without a tag go; `None`: they stay.
    pub untagged: Option<Span>,
    /// How long deleted manifests and tags can be restored.
    pub undo: Span,
}

impl Default for Gc {
    fn default() -> Self {
        Self {
            interval: Span::secs(6 * 3600),
            grace: Span::secs(2 * 3600),
            untagged: None,
            undo: Span::secs(24 * 3600),
        }
    }
}

/// Which tags go by themselves, at each collection.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Retention {
    /// Of which repositories.
    pub repository: String,
    /// Which tags.
    #[serde(default = "anything")]
    pub tags: String,
    /// The newest that stay in any case.
    #[serde(default)]
    pub keep: Option<usize>,
    /// Age up to which they stay.
    #[serde(default)]
    pub age: Option<Span>,
}

fn anything() -> String {
    "*".to_owned()
}

/// Pull-through cache.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Proxy {
    /// The registry behind it.
    pub url: String,
    /// User there.
    #[serde(default)]
    pub username: Option<String>,
    /// File with the password.
    #[serde(default)]
    pub password_file: Option<PathBuf>,
    /// How long a tag is believed before the upstream is asked again, and how long it is believed to be missing.
    #[serde(default = "default_refresh")]
    pub refresh: Span,
    /// How long what nobody pulls is kept.
    #[serde(default = "default_ttl")]
    pub ttl: Span,
    /// Requests to the upstream per hour; 0: any number.
    #[serde(default)]
    pub budget: u32,
    /// Authority of the upstream's certificate, PEM, beside the system's.
    #[serde(default)]
    pub ca: Option<PathBuf>,
}

const fn default_refresh() -> Span {
    Span::secs(60)
}

const fn default_ttl() -> Span {
    Span::secs(7 * 86_400)
}

/// Who is told of pushes, pulls and deletions.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Endpoint {
    /// Where to.
    pub url: String,
    /// Headers to send along, credentials for instance.
    #[serde(default)]
    pub headers: std::collections::BTreeMap<String, String>,
    /// `push`, `pull`, `mount`, `delete`; none: all.
    #[serde(default)]
    pub actions: Vec<String>,
    /// Time for one attempt.
    #[serde(default = "default_timeout")]
    pub timeout: Span,
}

const fn default_timeout() -> Span {
    Span::secs(5)
}

/// The log.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Log {
    /// `error`, `warn`, `info`, `debug`, `trace`
    pub level: String,
    /// JSON instead of text.
    pub json: bool,
    /// One line per request.
    pub access: bool,
}

impl Default for Log {
    fn default() -> Self {
        Self { level: "info".to_owned(), json: false, access: true }
    }
}

impl Config {
    /// Reads a configuration file.
    ///
    /// # Errors
    ///
    /// When it cannot be read, is no JSON, or has a key that means nothing.
    pub fn load(path: &std::path::Path) -> Result<Self> {
        let text = std::fs::read(path)
            .map_err(|error| Error::Config(format!("cannot read {}: {error}", path.display())))?;
        serde_json::from_slice(&text)
            .map_err(|error| Error::Config(format!("cannot use {}: {error}", path.display())))
    }

    /// Checks what no single key can tell.
    pub(crate) fn check(&self) -> Result<()> {
        let wrong = |text: &str| Err(Error::Config(text.to_owned()));
        if self.storage.is_empty() {
            return wrong("no storage: say --storage DIRECTORY or URL");
        }
        if self.tls.cert.is_some() != self.tls.key.is_some() {
            return wrong("TLS needs both --tls-cert and --tls-key");
        }
        if self.tls.client_ca.is_some() && self.tls.cert.is_none() {
            return wrong("--tls-client-ca needs --tls-cert and --tls-key");
        }
        if let Some(token) = &self.auth.token {
            let foreign = token.public_keys.is_some();
            if token.public_keys_ca.is_some()
                && token.public_keys.as_deref().and_then(address).is_none()
            {
                return wrong(
                    "auth.token.public-keys-ca is for keys at an address: auth.token.public-keys",
                );
            }
            if foreign && token.realm.is_empty() {
                return wrong("tokens of a foreign service need its address: auth.token.realm");
            }
            if foreign && (token.key.is_some() || self.auth.policy.is_some()) {
                return wrong(
                    "a foreign token service decides rights itself: no key and no policy here",
                );
            }
            if !foreign && self.auth.htpasswd.is_none() {
                return wrong("the own token service needs users: auth.htpasswd");
            }
            if !foreign && token.key.is_none() {
                return wrong("the own token service needs a file for its key: auth.token.key");
            }
        } else if self.auth.policy.is_some() && self.auth.htpasswd.is_none() {
            return wrong("a policy needs users: auth.htpasswd");
        }
        if self.proxy.is_some() && self.read_only {
            return wrong(
                "a pull-through cache writes what it pulls: read-only cannot be used with it",
            );
        }
        let vain = self.retention.iter().find(|rule| rule.keep.is_none() && rule.age.is_none());
        match vain {
            None => Ok(()),
            Some(rule) => {
                wrong(&format!("the retention rule for {:?} needs keep or age", rule.repository))
            }
        }
    }
}

/// Tells whether a name fits a pattern in which `*` stands for anything.
pub(crate) fn fits(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((head, rest)) => {
            let Some(name) = name.strip_prefix(head) else { return false };
            rest.is_empty()
                || (0..=name.len()).any(|at| name.is_char_boundary(at) && fits(rest, &name[at..]))
        }
    }
}

#[cfg(test)]
mod tests;

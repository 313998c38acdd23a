//! Who the user is to registries: credential helpers, a sealed store of our own, and plain entries that others wrote.
//!
//! For each registry one place is in force: the helper that the settings name, else our own store. Plain entries of `config.json` are
//! read in any case; they are written only when that is asked for.

mod helper;
pub mod vault;

use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use serde_json::{Value, json};

use crate::config::{Config, ConfigError};

/// What the default registry is called where credentials are kept. COMPAT: Docker's own name for it.
pub const HUB: &str = "https://index.docker.io/v1/";
/// Name of a user whose secret is an identity token.
const TOKEN: &str = "<token>";
/// Name of our own store as a helper.
pub const OWN_HELPER: &str = "rorqual";
/// Setting that has credentials written in plain, as `plain`.
const HOW: &str = "rorqualCredentials";

/// Credentials that cannot be read or kept.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// A helper failed; its words.
    // COMPAT: docker's text.
    #[error("error {action} credentials - err: {reason}, out: `{output}`")]
    Helper {
        /// `getting`, `saving`, `erasing`, `listing`
        action: &'static str,
        /// How it ended.
        reason: String,
        /// What it printed.
        output: String,
    },
    /// Our own store cannot be used.
    #[error("cannot use the store of credentials {path:?}: {reason}")]
    Vault {
        /// The file.
        path: PathBuf,
        /// Why, and what to do.
        reason: String,
    },
    /// The settings cannot be written.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

/// What a registry knows the user by.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Credential {
    /// Name; empty with an identity token.
    pub username: String,
    /// Password, or the token.
    pub secret: String,
    /// The secret is an identity token.
    pub is_token: bool,
}

impl std::fmt::Debug for Credential {
    /// Shows no secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credential").field("username", &self.username).finish_non_exhaustive()
    }
}

impl Credential {
    fn from_helper(username: String, secret: String) -> Self {
        let is_token = username == TOKEN;
        Self { username: if is_token { String::new() } else { username }, secret, is_token }
    }

    fn helper_name(&self) -> &str {
        if self.is_token { TOKEN } else { &self.username }
    }

    /// Returns the document that the daemon wants, for the registry it is meant for.
    pub fn document(&self, server: &str) -> Value {
        if self.is_token {
            return json!({"identitytoken": self.secret, "serveraddress": server});
        }
        json!({"username": self.username, "password": self.secret, "serveraddress": server})
    }
}

/// Returns the text of the header `X-Registry-Auth`.
pub fn header(document: &Value) -> String {
    URL_SAFE.encode(document.to_string())
}

/// Where a credential was put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// A helper or our own store has it.
    Safely,
    /// It is in `config.json`, readable by whoever reads that file.
    Plain,
}

/// Returns what a registry is called where credentials are kept: `host[:port]`, or [`HUB`].
pub fn server_key(server: &str) -> String {
    let bare = host_of(server);
    match bare {
        "" | "docker.io" | "index.docker.io" | "registry-1.docker.io" => HUB.to_owned(),
        host => host.to_owned(),
    }
}

fn host_of(server: &str) -> &str {
    let rest = server.strip_prefix("https://").or_else(|| server.strip_prefix("http://"));
    rest.unwrap_or(server).split('/').next().unwrap_or_default()
}

/// Returns the helper that is in force for a registry, `None` for our own store.
fn helper_of<'c>(config: &'c Config, key: &str) -> Option<&'c str> {
    let of_host = config.value("credHelpers").and_then(|helpers| {
        let own = helpers.get(key).or_else(|| helpers.get(host_of(key)));
        own.and_then(Value::as_str).filter(|name| !name.is_empty())
    });
    of_host.or_else(|| config.text("credsStore")).filter(|name| *name != OWN_HELPER)
}

/// Finds the credential for a registry; `None` for nobody.
pub fn find(config: &Config, server: &str) -> Result<Option<Credential>, CredentialsError> {
    let key = server_key(server);
    if let Some(found) = from_environment(&key) {
        return Ok(Some(found));
    }
    let kept = match helper_of(config, &key) {
        Some(name) => helper::get(name, &key)?,
        None => vault::Vault::of(config.directory()).get(&key)?,
    };
    Ok(kept.or_else(|| plain(config.value("auths")?, &key)))
}

/// Keeps a credential. `plain` writes it into `config.json` as it is.
pub fn keep(
    config: &mut Config,
    server: &str,
    credential: &Credential,
    plain: bool,
) -> Result<Kept, CredentialsError> {
    let key = server_key(server);
    let plain = plain || config.text(HOW) == Some("plain");
    let name = helper_of(config, &key).map(str::to_owned);
    let entry = match (&name, plain) {
        (Some(name), _) => {
            helper::store(name, &key, credential)?;
            json!({})
        }
        (None, false) => {
            let first = config
                .value("auths")
                .and_then(Value::as_object)
                .is_none_or(serde_json::Map::is_empty);
            if first && config.text("credsStore").is_none() && helper::exists(OWN_HELPER) {
                // The docker command finds them there, too.
                config.set("credsStore", Some(OWN_HELPER.into()));
            }
            vault::Vault::of(config.directory()).store(&key, credential)?;
            json!({})
        }
        (None, true) => plain_entry(credential),
    };
    let mut auths = config.value("auths").cloned().unwrap_or_else(|| json!({}));
    if !auths.is_object() {
        auths = json!({});
    }
    auths[&key] = entry;
    config.set("auths", Some(auths));
    config.save()?;
    Ok(if name.is_none() && plain { Kept::Plain } else { Kept::Safely })
}

/// Forgets a credential; tells whether there was one.
pub fn forget(config: &mut Config, server: &str) -> Result<bool, CredentialsError> {
    let key = server_key(server);
    let erased = match helper_of(config, &key) {
        Some(name) => {
            helper::erase(name, &key)?;
            false
        }
        None => vault::Vault::of(config.directory()).erase(&key)?,
    };
    let Some(Value::Object(mut auths)) = config.value("auths").cloned() else { return Ok(erased) };
    let same = auths.keys().filter(|name| server_key(name) == key).cloned().collect::<Vec<_>>();
    for name in &same {
        auths.shift_remove(name);
    }
    if !same.is_empty() {
        config.set("auths", Some(Value::Object(auths)));
        config.save()?;
    }
    Ok(erased || !same.is_empty())
}

/// `DOCKER_AUTH_CONFIG`, which comes before everything else.
fn from_environment(key: &str) -> Option<Credential> {
    let text = std::env::var("DOCKER_AUTH_CONFIG").ok()?;
    let document = serde_json::from_str::<Value>(&text).ok()?;
    plain(document.get("auths")?, key)
}

/// Finds a plain entry. COMPAT: older ones have a scheme and a path around the host.
fn plain(auths: &Value, key: &str) -> Option<Credential> {
    let auths = auths.as_object()?;
    let same = |(name, _): &(&String, &Value)| server_key(name) == key;
    let entry = auths.get(key).or_else(|| Some(auths.iter().find(same)?.1))?;
    let text = |name: &str| entry.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let token = text("identitytoken");
    if !token.is_empty() {
        return Some(Credential { username: String::new(), secret: token, is_token: true });
    }
    let (username, secret) = (text("username"), text("password"));
    if !username.is_empty() {
        return Some(Credential { username, secret, is_token: false });
    }
    let decoded = String::from_utf8(STANDARD.decode(text("auth")).ok()?).ok()?;
    let (username, secret) = decoded.split_once(':')?;
    let (username, secret) = (username.to_owned(), secret.trim_end_matches('\0').to_owned());
    (!username.is_empty()).then_some(Credential { username, secret, is_token: false })
}

fn plain_entry(credential: &Credential) -> Value {
    if credential.is_token {
        return json!({"auth": STANDARD.encode(":"), "identitytoken": credential.secret});
    }
    json!({"auth": STANDARD.encode(format!("{}:{}", credential.username, credential.secret))})
}

#[cfg(test)]
mod tests;

//! The user's `config.json`: read leniently, written atomically, unknown keys kept.

use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

/// A `config.json` that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Reading or writing failed.
    #[error("cannot access {path:?}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Not a JSON object.
    #[error("cannot read {path:?}: {reason}")]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where and why.
        reason: String,
    },
}

/// The user's settings.
#[derive(Clone, Debug)]
pub struct Config {
    directory: PathBuf,
    document: Map<String, Value>,
}

impl Config {
    /// Returns settings without any key; nothing is read.
    pub fn empty(directory: &Path) -> Self {
        Self { directory: directory.to_owned(), document: Map::new() }
    }

    /// Reads `config.json` of a directory; a missing file is an empty one.
    pub fn load(directory: &Path) -> Result<Self, ConfigError> {
        let path = directory.join("config.json");
        let document = match std::fs::read(&path) {
            Ok(bytes) if bytes.iter().all(u8::is_ascii_whitespace) => Map::new(),
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map_err(|error| ConfigError::Syntax { path, reason: error.to_string() })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Map::new(),
            Err(source) => return Err(ConfigError::Io { path, source }),
        };
        Ok(Self { directory: directory.to_owned(), document })
    }

    /// Returns the directory the settings and contexts live in.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Returns a setting that is a non-empty text.
    pub fn text(&self, key: &str) -> Option<&str> {
        self.document.get(key)?.as_str().filter(|text| !text.is_empty())
    }

    /// Returns a setting as it is.
    pub fn value(&self, key: &str) -> Option<&Value> {
        self.document.get(key)
    }

    /// Returns the texts of a setting that is a list.
    pub fn texts(&self, key: &str) -> impl Iterator<Item = &str> {
        self.document
            .get(key)
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
    }

    /// Returns `HttpHeaders`.
    pub fn headers(&self) -> Vec<(String, String)> {
        let Some(Value::Object(headers)) = self.document.get("HttpHeaders") else {
            return Vec::new();
        };
        let text = |(name, value): (&String, &Value)| {
            let fixed = name.eq_ignore_ascii_case("user-agent");
            (!fixed).then(|| Some((name.clone(), value.as_str()?.to_owned())))?
        };
        headers.iter().filter_map(text).collect()
    }

    /// Returns `pruneFilters`.
    pub fn prune_filters(&self) -> Vec<String> {
        self.texts("pruneFilters").map(str::to_owned).collect()
    }

    /// Returns the variables that `proxies` puts into containers of the daemon at `host`.
    pub fn proxy_variables(&self, host: &str) -> Vec<(String, String)> {
        const NAMES: [(&str, &str); 5] = [
            ("httpProxy", "HTTP_PROXY"),
            ("httpsProxy", "HTTPS_PROXY"),
            ("ftpProxy", "FTP_PROXY"),
            ("noProxy", "NO_PROXY"),
            ("allProxy", "ALL_PROXY"),
        ];
        let Some(proxies) = self.document.get("proxies") else { return Vec::new() };
        let Some(proxy) = proxies.get(host).or_else(|| proxies.get("default")) else {
            return Vec::new();
        };
        let mut variables = Vec::new();
        for (key, name) in NAMES {
            if let Some(value) = proxy.get(key).and_then(Value::as_str).filter(|v| !v.is_empty()) {
                variables.push((name.to_owned(), value.to_owned()));
                variables.push((name.to_ascii_lowercase(), value.to_owned()));
            }
        }
        variables
    }

    /// Changes a setting; `None` removes it.
    pub fn set(&mut self, key: &str, value: Option<Value>) {
        match value {
            Some(value) => self.document.insert(key.to_owned(), value),
            None => self.document.shift_remove(key),
        };
    }

    /// Writes the file: complete beside the old one, then in its place; a link is followed.
    pub fn save(&self) -> Result<(), ConfigError> {
        let path = self.directory.join("config.json");
        let failed = |source| ConfigError::Io { path: path.clone(), source };
        std::fs::create_dir_all(&self.directory).map_err(failed)?;
        let target = std::fs::canonicalize(&path).unwrap_or_else(|_| path.clone());
        write_atomically(&target, &tabbed(&Value::Object(self.document.clone()))).map_err(failed)
    }
}

/// Writes `bytes` to a new file with mode 0600 and renames it to `path`.
pub(crate) fn write_atomically(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let beside = path.with_file_name(name);
    let write = || {
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&beside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&beside, path)
    };
    write().inspect_err(|_| {
        let _ = std::fs::remove_file(&beside);
    })
}

/// Writes JSON indented by tabs, as docker's client does.
fn tabbed(document: &Value) -> Vec<u8> {
    let mut bytes = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"\t");
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, formatter);
    if serde::Serialize::serialize(document, &mut serializer).is_err() {
        // INVARIANT: a JSON value in memory always has a text.
        bytes = document.to_string().into_bytes();
    }
    bytes
}

#[cfg(test)]
mod tests;

//! Contexts: named daemons in the user's configuration directory, in Docker's own layout.
//!
//! `contexts/meta/<sha256 of name>/meta.json` and `contexts/tls/<sha256>/docker/{ca,cert,key}.pem`.

use std::io;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::TlsFiles;
use crate::config::write_atomically;

/// A context that cannot be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum ContextError {
    /// There is none of this name.
    #[error("context \"{0}\": context not found: open {1}: no such file or directory")]
    NotFound(String, String),
    /// The name has other letters than allowed.
    #[error(
        "context name \"{0}\" is invalid, names are validated against regexp \"^[a-zA-Z0-9][a-zA-Z0-9_.+-]+$\""
    )]
    InvalidName(String),
    /// `default` is not stored.
    #[error("\"default\" is a reserved context name")]
    Reserved,
    /// Files cannot be accessed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Not what a context file holds.
    #[error("invalid context file: {0}")]
    Syntax(String),
}

/// The contexts of a user.
#[derive(Clone, Debug)]
pub struct ContextStore {
    root: PathBuf,
}

/// Names of the files of TLS material.
pub const TLS_NAMES: [&str; 3] = ["ca.pem", "cert.pem", "key.pem"];

/// Tells whether a context may be called so.
pub fn is_valid_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    name.len() >= 2
        && bytes.next().is_some_and(|byte| byte.is_ascii_alphanumeric())
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || b"_.+-".contains(&byte))
}

impl ContextStore {
    /// Opens the contexts of a configuration directory.
    pub fn new(config_directory: &Path) -> Self {
        Self { root: config_directory.join("contexts") }
    }

    /// Returns where a context's description is.
    pub fn meta_directory(&self, name: &str) -> PathBuf {
        self.root.join("meta").join(hashed(name))
    }

    /// Returns where a context's TLS material is.
    pub fn tls_directory(&self, name: &str) -> PathBuf {
        self.root.join("tls").join(hashed(name))
    }

    /// Returns the `meta.json` of each context, sorted by name.
    pub fn list(&self) -> Result<Vec<Value>, ContextError> {
        let entries = match std::fs::read_dir(self.root.join("meta")) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
        };
        let mut all = Vec::new();
        for entry in entries {
            match read_meta(&entry?.path().join("meta.json")) {
                Ok(meta) => all.push(meta),
                // Removed meanwhile, or not a context.
                Err(ContextError::Io(error)) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        all.sort_by_key(|meta| meta["Name"].as_str().unwrap_or_default().to_owned());
        Ok(all)
    }

    /// Returns the `meta.json` of one context.
    pub fn load(&self, name: &str) -> Result<Value, ContextError> {
        let path = self.meta_directory(name).join("meta.json");
        match read_meta(&path) {
            Err(ContextError::Io(error)) if error.kind() == io::ErrorKind::NotFound => {
                Err(ContextError::NotFound(name.to_owned(), path.display().to_string()))
            }
            other => other,
        }
    }

    /// Returns the files of TLS material of a context's endpoint that exist.
    pub fn tls_files(&self, name: &str) -> Vec<(&'static str, PathBuf)> {
        let directory = self.tls_directory(name).join("docker");
        let file = |name| (name, directory.join(name));
        TLS_NAMES.into_iter().map(file).filter(|(_, path)| path.is_file()).collect()
    }

    /// Returns the address and the TLS rules of a stored context.
    pub fn endpoint(&self, name: &str) -> Result<(String, Option<TlsFiles>), ContextError> {
        let meta = self.load(name)?;
        let endpoint = &meta["Endpoints"]["docker"];
        let host = endpoint["Host"].as_str().unwrap_or_default().to_owned();
        let skip_verify = endpoint["SkipTLSVerify"].as_bool().unwrap_or(false);
        let files = self.tls_files(name);
        let find = |wanted: &str| {
            files.iter().find(|(name, _)| *name == wanted).map(|(_, path)| path.clone())
        };
        let tls = TlsFiles {
            ca: find("ca.pem"),
            cert: find("cert.pem"),
            key: find("key.pem"),
            skip_verify,
        };
        Ok((host, (skip_verify || !files.is_empty()).then_some(tls)))
    }

    /// Writes a context; TLS material replaces what there was.
    pub fn save(
        &self,
        meta: &Value,
        tls: Option<&[(String, Vec<u8>)]>,
    ) -> Result<(), ContextError> {
        let name = meta["Name"].as_str().unwrap_or_default();
        if name == "default" {
            return Err(ContextError::Reserved);
        }
        if !is_valid_name(name) {
            return Err(ContextError::InvalidName(name.to_owned()));
        }
        if let Some(files) = tls {
            let directory = self.tls_directory(name);
            remove_tree(&directory)?;
            if !files.is_empty() {
                std::fs::create_dir_all(directory.join("docker"))?;
            }
            for (file, bytes) in files.iter().filter(|(f, _)| TLS_NAMES.contains(&f.as_str())) {
                write_atomically(&directory.join("docker").join(file), bytes)?;
            }
        }
        let directory = self.meta_directory(name);
        std::fs::create_dir_all(&directory)?;
        write_atomically(&directory.join("meta.json"), meta.to_string().as_bytes())?;
        Ok(())
    }

    /// Removes a context and its TLS material.
    pub fn remove(&self, name: &str) -> Result<(), ContextError> {
        self.load(name)?;
        remove_tree(&self.tls_directory(name))?;
        remove_tree(&self.meta_directory(name))?;
        Ok(())
    }
}

/// Returns a `meta.json` for a daemon.
pub fn new_meta(name: &str, description: &str, endpoint: &Value) -> Value {
    let metadata =
        if description.is_empty() { json!({}) } else { json!({ "Description": description }) };
    json!({ "Name": name, "Metadata": metadata, "Endpoints": { "docker": endpoint } })
}

fn hashed(name: &str) -> String {
    rorqual_core::Digest::sha256(Sha256::digest(name.as_bytes()).into()).hex().to_owned()
}

fn read_meta(path: &Path) -> Result<Value, ContextError> {
    let bytes = std::fs::read(path)?;
    let meta: Value =
        serde_json::from_slice(&bytes).map_err(|error| ContextError::Syntax(error.to_string()))?;
    if meta["Name"].is_string() {
        Ok(meta)
    } else {
        Err(ContextError::Syntax(format!("no Name in {}", path.display())))
    }
}

fn remove_tree(path: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests;

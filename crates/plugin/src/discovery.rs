//! Where plugins are: socket files, and files that hold an address. Looks; connects to nothing.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use rorqual_client::{Host, TlsFiles};
use serde::Deserialize;

use crate::{Error, Result};

/// LIMIT: a page holds an address and three paths many times over.
const MAX_FILE: u64 = 64 << 10;

/// The directories in which plugins are looked for.
#[derive(Clone, Debug)]
pub struct Places {
    /// Holds `NAME.sock` or `NAME/NAME.sock`.
    pub sockets: PathBuf,
    /// Hold `NAME.spec`, `NAME.json`, or the same in a directory `NAME`; earlier ones win.
    pub files: Vec<PathBuf>,
}

/// How a plugin is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) host: Host,
    pub(crate) tls: Option<TlsFiles>,
}

impl Places {
    /// Returns Docker's places.
    pub fn docker() -> Self {
        Self {
            sockets: PathBuf::from("/run/docker/plugins"),
            files: vec!["/etc/docker/plugins".into(), "/usr/lib/docker/plugins".into()],
        }
    }

    /// Finds a plugin. Blocking.
    pub(crate) fn find(&self, name: &str) -> Result<Address> {
        let missing = || Error::NotFound(name.to_owned());
        if !is_file_name(name) {
            return Err(missing());
        }
        let socket = candidates(&self.sockets, name, "sock")
            .into_iter()
            .find(|path| path.metadata().is_ok_and(|metadata| metadata.file_type().is_socket()));
        if let Some(path) = socket {
            return Ok(Address { host: Host::Unix(path), tls: None });
        }
        for directory in &self.files {
            for kind in ["spec", "json"] {
                let found = candidates(directory, name, kind);
                let Some(path) = found.into_iter().find(|path| path.is_file()) else { continue };
                return read_address(&path, kind);
            }
        }
        Err(missing())
    }

    /// Names everything that looks like a plugin; what it is for shows when it is activated. Blocking.
    pub(crate) fn names(&self) -> BTreeSet<String> {
        let mut names = BTreeSet::new();
        let kinds = |path: &Path| -> &'static [&'static str] {
            if path == self.sockets { &["sock"] } else { &["spec", "json"] }
        };
        for directory in std::iter::once(&self.sockets).chain(&self.files) {
            for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
                let path = entry.path();
                let Some(stem) = path.file_stem().and_then(|stem| stem.to_str()) else { continue };
                let exists = |kind: &&str| {
                    candidates(directory, stem, kind).iter().any(|path| path.exists())
                };
                if kinds(directory).iter().any(exists) {
                    names.insert(stem.to_owned());
                }
            }
        }
        names
    }
}

/// A name from outside becomes a part of a path only if it is a single component.
fn is_file_name(name: &str) -> bool {
    // LIMIT: what a file system takes as one name, with the longest of our endings.
    !matches!(name, "" | "." | "..") && name.len() <= 250 && !name.contains(['/', '\0'])
}

fn candidates(directory: &Path, name: &str, kind: &str) -> [PathBuf; 2] {
    let file = format!("{name}.{kind}");
    [directory.join(&file), directory.join(name).join(file)]
}

fn read_address(path: &Path, kind: &str) -> Result<Address> {
    let failed = |reason: String| Error::Specification { path: path.to_owned(), reason };
    let mut text = String::new();
    let file = File::open(path).map_err(|error| failed(error.to_string()))?;
    let read = file.take(MAX_FILE + 1).read_to_string(&mut text);
    read.map_err(|error| failed(error.to_string()))?;
    if text.len() as u64 > MAX_FILE {
        return Err(failed(format!("it is larger than {MAX_FILE} bytes")));
    }
    let address = if kind == "json" {
        let document: Document =
            serde_json::from_str(&text).map_err(|error| failed(error.to_string()))?;
        document.address()
    } else {
        (text.trim().to_owned(), None)
    };
    let (text, tls) = address;
    let Ok(host @ (Host::Unix(_) | Host::Tcp { .. })) = text.parse::<Host>() else {
        return Err(failed(format!("{text:?} is no address (unix://, tcp://, http(s)://)")));
    };
    if matches!(host, Host::Tcp { https: true, .. }) && tls.is_none() {
        return Err(failed(
            "https needs a .json file whose TLSConfig says whom to trust".to_owned(),
        ));
    }
    Ok(Address { host, tls })
}

/// A `.json` file.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Document {
    #[serde(default)]
    addr: String,
    #[serde(rename = "TLSConfig")]
    tls: Option<TlsDocument>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[derive(Default)]
struct TlsDocument {
    insecure_skip_verify: bool,
    #[serde(rename = "CAFile")]
    ca_file: PathBuf,
    cert_file: PathBuf,
    key_file: PathBuf,
}

impl Document {
    fn address(self) -> (String, Option<TlsFiles>) {
        let given = |path: PathBuf| (!path.as_os_str().is_empty()).then_some(path);
        let tls = self.tls.map(|tls| {
            let ca = given(tls.ca_file);
            TlsFiles {
                // COMPAT: dockerd trusts anybody where no authority is named.
                skip_verify: tls.insecure_skip_verify || ca.is_none(),
                ca,
                cert: given(tls.cert_file),
                key: given(tls.key_file),
            }
        });
        (self.addr, tls)
    }
}

#[cfg(test)]
mod tests;

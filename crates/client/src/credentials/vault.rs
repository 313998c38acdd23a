//! Our own store of credentials: sealed in a file beside `config.json`, with a key that lies elsewhere.
//!
//! It needs no desktop and no set-up. It protects where the settings directory gets into hands that the key does not: backups,
//! synchronised or published dot files, images and archives of the directory, a glance at the screen. The key is made for one user on
//! one machine, so both files together are of no use elsewhere. It does not protect from programs of the same user, nor from root.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, Salt};
use aws_lc_rs::rand;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Credential, CredentialsError};
use crate::config::write_atomically;

const FILE: &str = "rorqual-credentials.json";
const KEY_BYTES: usize = 32;
// LIMIT: the file; a user has a handful of entries.
const MAX_FILE: u64 = 4 << 20;
/// What the key is derived for; another layout gets another text.
const PURPOSE: &[u8] = b"rorqual credentials 1";

/// The store that belongs to a settings directory.
#[derive(Clone, Debug)]
pub struct Vault {
    file: PathBuf,
    key: PathBuf,
}

/// What is sealed.
#[derive(Serialize, Deserialize)]
struct Sealed {
    username: String,
    secret: String,
}

impl Vault {
    /// Opens the store of a settings directory; nothing is read yet.
    pub fn of(directory: &Path) -> Self {
        let home = |name: &str| {
            std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute())
        };
        let data = home("XDG_DATA_HOME").or_else(|| Some(home("HOME")?.join(".local/share")));
        let key = data.unwrap_or_else(|| directory.to_owned()).join("rorqual/credentials.key");
        Self { file: directory.join(FILE), key }
    }

    /// Uses these files, for tests.
    #[cfg(test)]
    pub(crate) fn at(file: PathBuf, key: PathBuf) -> Self {
        Self { file, key }
    }

    fn failed(&self, path: &Path, reason: impl std::fmt::Display) -> CredentialsError {
        let path = if path.as_os_str().is_empty() { self.file.clone() } else { path.to_owned() };
        CredentialsError::Vault { path, reason: reason.to_string() }
    }

    /// Finds a credential.
    pub fn get(&self, server: &str) -> Result<Option<Credential>, CredentialsError> {
        let entries = self.read()?;
        let Some(text) = entries.get(server).and_then(Value::as_str) else { return Ok(None) };
        self.open(server, text).map(Some)
    }

    /// Puts a credential.
    pub fn store(&self, server: &str, credential: &Credential) -> Result<(), CredentialsError> {
        let _lock = self.lock()?;
        let mut entries = self.read()?;
        entries.insert(server.to_owned(), self.seal(server, credential)?.into());
        self.write(entries)
    }

    /// Removes a credential; tells whether it was there.
    pub fn erase(&self, server: &str) -> Result<bool, CredentialsError> {
        if !self.file.exists() {
            return Ok(false);
        }
        let _lock = self.lock()?;
        let mut entries = self.read()?;
        let was = entries.shift_remove(server).is_some();
        if was {
            self.write(entries)?;
        }
        Ok(was)
    }

    /// Lists registries and user names.
    pub fn list(&self) -> Result<Vec<(String, String)>, CredentialsError> {
        let entries = self.read()?;
        let opened = entries.iter().map(|(server, text)| {
            let credential = self.open(server, text.as_str().unwrap_or_default())?;
            Ok((server.clone(), credential.helper_name().to_owned()))
        });
        opened.collect()
    }

    fn read(&self) -> Result<Map<String, Value>, CredentialsError> {
        let file = match File::open(&self.file) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Map::new()),
            Err(error) => return Err(self.failed(&self.file, error)),
        };
        let size = file.metadata().map_err(|error| self.failed(&self.file, error))?.len();
        if size > MAX_FILE {
            return Err(self.failed(&self.file, "it is too large"));
        }
        let document: Value =
            serde_json::from_reader(file).map_err(|error| self.failed(&self.file, error))?;
        if document["version"] != 1 {
            return Err(self.failed(&self.file, "it was written by another version"));
        }
        Ok(document["entries"].as_object().cloned().unwrap_or_default())
    }

    fn write(&self, entries: Map<String, Value>) -> Result<(), CredentialsError> {
        let document = serde_json::json!({"version": 1, "entries": entries});
        write_atomically(&self.file, document.to_string().as_bytes())
            .map_err(|error| self.failed(&self.file, error))
    }

    /// Keeps other calls away while entries change.
    fn lock(&self) -> Result<File, CredentialsError> {
        let path = self.file.with_extension("lock");
        let make = || {
            if let Some(parent) = path.parent() {
                fs::DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
            }
            let file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(&path)?;
            file.lock()?;
            Ok(file)
        };
        make().map_err(|error: io::Error| self.failed(&path, error))
    }

    fn seal(&self, server: &str, credential: &Credential) -> Result<String, CredentialsError> {
        let sealed = Sealed {
            username: credential.helper_name().to_owned(),
            secret: credential.secret.clone(),
        };
        let mut bytes =
            serde_json::to_vec(&sealed).map_err(|error| self.failed(&self.file, error))?;
        let key = self.key(true)?;
        let failed = |_| self.failed(&self.file, "sealing failed");
        let mut nonce = [0; NONCE_LEN];
        rand::fill(&mut nonce).map_err(failed)?;
        let unique = Nonce::assume_unique_for_key(nonce);
        key.seal_in_place_append_tag(unique, Aad::from(server), &mut bytes).map_err(failed)?;
        Ok(STANDARD.encode([&nonce[..], &bytes].concat()))
    }

    fn open(&self, server: &str, text: &str) -> Result<Credential, CredentialsError> {
        let lost = || {
            let reason = format!(
                "the credentials for {server} were sealed for another user or machine, or were damaged: log in again"
            );
            self.failed(&self.file, reason)
        };
        let mut bytes = STANDARD.decode(text).map_err(|_| lost())?;
        if bytes.len() < NONCE_LEN {
            return Err(lost());
        }
        let mut sealed = bytes.split_off(NONCE_LEN);
        let nonce = Nonce::try_assume_unique_for_key(&bytes).map_err(|_| lost())?;
        let key = self.key(false)?;
        let opened =
            key.open_in_place(nonce, Aad::from(server), &mut sealed).map_err(|_| lost())?;
        let Sealed { username, secret } = serde_json::from_slice(opened).map_err(|_| lost())?;
        Ok(Credential::from_helper(username, secret))
    }

    /// Derives the key for this user on this machine from the key file.
    fn key(&self, make: bool) -> Result<LessSafeKey, CredentialsError> {
        if make && !self.key.exists() {
            self.make_key().map_err(|error| self.failed(&self.key, error))?;
        }
        let metadata = fs::metadata(&self.key).map_err(|error| self.failed(&self.key, error))?;
        if metadata.mode() & 0o077 != 0 {
            let reason =
                "others may read the key: chmod 600 it, and change the passwords if they did";
            return Err(self.failed(&self.key, reason));
        }
        let secret = fs::read(&self.key).map_err(|error| self.failed(&self.key, error))?;
        if secret.len() != KEY_BYTES {
            return Err(self.failed(&self.key, "it is damaged: remove it and log in again"));
        }
        let machine = fs::read("/etc/machine-id").unwrap_or_default();
        let user = metadata.uid().to_le_bytes();
        let failed = |_| self.failed(&self.key, "no key can be derived");
        let derived = Salt::new(HKDF_SHA256, PURPOSE).extract(&secret);
        let info = [&user[..], machine.trim_ascii()];
        let expanded = derived.expand(&info, &AES_256_GCM).map_err(failed)?;
        Ok(LessSafeKey::new(UnboundKey::from(expanded)))
    }

    /// Makes the key; of two at once one wins.
    fn make_key(&self) -> io::Result<()> {
        if let Some(parent) = self.key.parent() {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
        }
        let mut secret = [0; KEY_BYTES];
        rand::fill(&mut secret).map_err(|_| io::Error::other("no random numbers"))?;
        let beside = self.key.with_extension(format!("{}.tmp", std::process::id()));
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
        let made = file.write_all(&secret).and_then(|()| file.sync_all());
        let made = made.and_then(|()| match fs::hard_link(&beside, &self.key) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            result => result,
        });
        fs::remove_file(&beside)?;
        made
    }
}

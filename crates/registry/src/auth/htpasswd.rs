//! Users and passwords in Apache's file format; bcrypt only.
//!
//! Verifying takes a tenth of a second by design, so it happens on blocking threads, few at a time, and what was verified is
//! remembered for a while as a keyed hash, never as a password.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime};

use rorqual_store::blocking;
use sha2::{Digest as _, Sha256};
use tokio::sync::Semaphore;

use crate::error::{Error, Result};
use crate::storage::hex;

/// Users of one file; read again when it changes.
pub(crate) struct Htpasswd {
    path: PathBuf,
    current: RwLock<Read>,
    known: Mutex<HashMap<[u8; 32], Instant>>,
    /// Key of the hashes in `known`, new with each process.
    key: [u8; 32],
    turns: Semaphore,
}

#[derive(Default)]
struct Read {
    users: HashMap<String, String>,
    modified: Option<SystemTime>,
    looked: Option<Instant>,
}

// LIMIT: verifications at a time, so that guessing leaves room for everything else.
const TURNS: usize = 2;
// LIMIT: how long a verified password is believed, and how many are.
const BELIEVED: Duration = Duration::from_secs(300);
const REMEMBERED: usize = 1024;
// LIMIT: how often the file is looked at.
const LOOK: Duration = Duration::from_secs(2);
/// Verified for users that do not exist, so that they take as long.
const NOBODY: &str = "$2b$10$abcdefghijklmnopqrstuuLGi9nJbuhzbJlvMcuH1uXDCkxvYFxPy";

/// Reads the lines `user:hash`.
fn parse(text: &str) -> Result<HashMap<String, String>, String> {
    let mut users = HashMap::new();
    for (at, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (user, hash) =
            line.split_once(':').ok_or_else(|| format!("line {}: need USER:HASH", at + 1))?;
        let is_bcrypt = ["$2a$", "$2b$", "$2y$"].iter().any(|kind| hash.starts_with(kind))
            && hash.len() == 60
            && hash.is_ascii();
        if !is_bcrypt {
            return Err(format!(
                "line {}: the hash of {user:?} is not bcrypt; make one with `rorqual registry hash-password` or `htpasswd -B`",
                at + 1
            ));
        }
        users.insert(user.to_owned(), hash.to_owned());
    }
    Ok(users)
}

impl Htpasswd {
    /// Reads the file; blocking.
    pub(crate) fn load(path: &Path) -> Result<Self> {
        let mut key = [0; 32];
        getrandom::fill(&mut key)
            .map_err(|error| Error::Config(format!("no random numbers: {error}")))?;
        let read = read(path)?;
        Ok(Self {
            path: path.to_owned(),
            current: RwLock::new(read),
            known: Mutex::default(),
            key,
            turns: Semaphore::new(TURNS),
        })
    }

    /// Reads the file again; what is wrong with it is logged, and the users stay. Blocking.
    pub(crate) fn reload(&self) {
        match read(&self.path) {
            Ok(fresh) => *self.current.write().unwrap_or_else(PoisonError::into_inner) = fresh,
            Err(error) => tracing::warn!(%error, "the users stay as they were"),
        }
    }

    fn reload_if_changed(&self) {
        let now = Instant::now();
        let known = {
            let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
            if current.looked.is_some_and(|at| now.duration_since(at) < LOOK) {
                return;
            }
            current.modified
        };
        let modified = std::fs::metadata(&self.path).and_then(|meta| meta.modified()).ok();
        if modified != known {
            self.reload();
        }
        self.current.write().unwrap_or_else(PoisonError::into_inner).looked = Some(now);
    }

    fn hash_of(&self, user: &str) -> Option<String> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).users.get(user).cloned()
    }

    /// Returns a word that changes with a user's password; `None`: no such user.
    pub(crate) fn generation(&self, user: &str) -> Option<String> {
        let hash = self.hash_of(user)?;
        let digest = Sha256::digest(hash.as_bytes());
        Some(hex(&digest[..8]))
    }

    fn fingerprint(&self, user: &str, password: &str, hash: &str) -> [u8; 32] {
        let mut hasher = Sha256::new_with_prefix(self.key);
        for part in [user, password, hash] {
            hasher.update((part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        hasher.finalize().into()
    }

    /// Tells whether the password is the user's.
    pub(crate) async fn verify(self: &Arc<Self>, user: &str, password: &str) -> Result<bool> {
        let this = Arc::clone(self);
        blocking(move || this.reload_if_changed()).await;
        let hash = self.hash_of(user);
        let fingerprint = self.fingerprint(user, password, hash.as_deref().unwrap_or(NOBODY));
        let believed = {
            let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            known.get(&fingerprint).is_some_and(|at| at.elapsed() < BELIEVED)
        };
        if believed && hash.is_some() {
            return Ok(true);
        }
        // INVARIANT: the semaphore is never closed.
        let turn = self.turns.acquire().await.ok();
        let is_user = hash.is_some();
        let (hash, password) = (hash.unwrap_or_else(|| NOBODY.to_owned()), password.to_owned());
        let fits = blocking(move || bcrypt::verify(password, &hash).unwrap_or(false)).await;
        drop(turn);
        if fits && is_user {
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            if known.len() >= REMEMBERED {
                known.retain(|_, at| at.elapsed() < BELIEVED);
            }
            if known.len() >= REMEMBERED {
                known.clear();
            }
            known.insert(fingerprint, Instant::now());
        }
        Ok(fits && is_user)
    }
}

fn read(path: &Path) -> Result<Read> {
    let failed = |error: &dyn std::fmt::Display| {
        Error::Config(format!("cannot use {}: {error}", path.display()))
    };
    let modified = std::fs::metadata(path).and_then(|meta| meta.modified()).ok();
    let text = std::fs::read_to_string(path).map_err(|error| failed(&error))?;
    let users = parse(&text).map_err(|error| failed(&error))?;
    Ok(Read { users, modified, looked: None })
}

#[cfg(test)]
mod tests;

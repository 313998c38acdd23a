//! Cache mounts: directories that outlive builds, and who may use them at the same time.

use std::collections::HashMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rorqual_store::{KeyGuard, blocking};

use super::Inner;
use super::cache::{CacheKind, Entry, now};
use super::key::Keyed;
use crate::Error;
use crate::error::other;
use crate::graph::CacheSharing;

/// LIMIT: directories of one private cache mount; more builds at a time than this wait for nothing, they are refused.
const MAX_PRIVATE: usize = 64;

/// How many steps use each directory, so that none is removed under them.
static USERS: Mutex<Option<HashMap<PathBuf, usize>>> = Mutex::new(None);

fn users<T>(work: impl FnOnce(&mut HashMap<PathBuf, usize>) -> T) -> T {
    let mut all = USERS.lock().unwrap_or_else(PoisonError::into_inner);
    work(all.get_or_insert_default())
}

/// A cache mount that a step uses.
pub(crate) struct InUse {
    pub(crate) path: PathBuf,
    turn: Option<KeyGuard<String>>,
}

impl InUse {
    /// Keeps a directory from being pruned.
    pub(crate) fn of(path: PathBuf) -> Self {
        users(|all| *all.entry(path.clone()).or_default() += 1);
        Self { path, turn: None }
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        users(|all| {
            if let Some(count) = all.get_mut(&self.path) {
                *count -= 1;
                if *count == 0 {
                    all.remove(&self.path);
                }
            }
        });
    }
}

/// Lends a cache mount for the time of a step.
pub(crate) async fn lend(
    inner: &Arc<Inner>,
    id: &str,
    sharing: CacheSharing,
    description: &str,
    fill: impl AsyncFnOnce(PathBuf) -> Result<(), Error>,
) -> Result<InUse, Error> {
    let name = |number: usize| {
        Keyed::new("mount").with(id.as_bytes()).with(&number.to_le_bytes()).digest()
    };
    let mut number = 0;
    let turn = match sharing {
        CacheSharing::Shared => None,
        CacheSharing::Locked => Some(inner.mounts.lock(id.to_owned()).await),
        CacheSharing::Private => loop {
            let key = format!("{id}\0{number}");
            if let Some(turn) = inner.mounts.try_lock(key) {
                break Some(turn);
            }
            number += 1;
            if number >= MAX_PRIVATE {
                let text = format!("the private cache mount {id:?} is in use {MAX_PRIVATE} times");
                return Err(Error::Unsupported(text));
            }
        },
    };
    let key = name(number).hex().to_owned();
    let directory = format!("mounts/{key}");
    let path = inner.parts.directory.join(&directory);
    let mut lent = InUse::of(path.clone());
    lent.turn = turn;
    begin(inner, &key, path, fill).await?;
    let known = inner.parts.cache.get(&key);
    let entry = Entry {
        kind: CacheKind::CacheMount,
        description: description.to_owned(),
        outputs: Vec::new(),
        directory,
        tag: String::new(),
        size: 0,
        created: known.as_ref().map_or_else(now, |known| known.created),
        used: now(),
        uses: known.map_or(1, |known| known.uses + 1),
        key,
    };
    inner.parts.cache.put(entry).await?;
    Ok(lent)
}

/// Finds the directory of a cache mount, once no step has it for itself; it is not pruned meanwhile.
pub(crate) async fn present(inner: &Arc<Inner>, id: &str) -> Option<(PathBuf, InUse)> {
    let turn = inner.mounts.lock(id.to_owned()).await;
    let key = Keyed::new("mount").with(id.as_bytes()).with(&0_usize.to_le_bytes()).digest();
    let path = inner.parts.directory.join(format!("mounts/{}", key.hex()));
    let mut lent = InUse::of(path.clone());
    lent.turn = Some(turn);
    path.is_dir().then_some((path, lent))
}

/// Makes a directory that is not there yet, with what it begins with: whole or not at all.
async fn begin(
    inner: &Arc<Inner>,
    key: &str,
    path: PathBuf,
    fill: impl AsyncFnOnce(PathBuf) -> Result<(), Error>,
) -> Result<(), Error> {
    let _alone = inner.mounts.lock(format!("{key}\0begin")).await;
    let making = || other("make a cache mount");
    if path.is_dir() {
        return Ok(());
    }
    let part = path.with_extension("part");
    let fresh = part.clone();
    blocking(move || {
        match std::fs::remove_dir_all(&fresh) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        std::fs::create_dir(&fresh)?;
        std::fs::set_permissions(&fresh, std::fs::Permissions::from_mode(0o755))
    })
    .await
    .map_err(making())?;
    fill(part.clone()).await?;
    std::fs::rename(part, path).map_err(making())
}

/// Removes a directory unless a step uses it; returns whether it is gone.
pub(crate) async fn remove(path: &Path) -> Result<bool, Error> {
    let path = path.to_owned();
    blocking(move || {
        // ORDER: renamed while nobody can come to use it, removed afterwards.
        let aside = path.with_extension("gone");
        let moved = users(|all| match all.contains_key(&path) {
            true => Ok(false),
            false => match std::fs::rename(&path, &aside) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
                _ => Ok(true),
            },
        })?;
        if moved {
            match std::fs::remove_dir_all(&aside) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(moved)
    })
    .await
    .map_err(other("remove a cache mount"))
}

/// Measures a directory.
pub(crate) async fn size(path: &Path) -> Result<u64, Error> {
    let path = path.to_owned();
    blocking(move || Ok(measure(&path, 0)))
        .await
        .map_err(|error: std::io::Error| other("measure a cache mount")(error))
}

fn measure(path: &Path, depth: usize) -> u64 {
    // LIMIT: what lies deeper is not counted.
    if depth > 200 {
        return 0;
    }
    let Ok(entries) = std::fs::read_dir(path) else { return 0 };
    let sizes = entries.flatten().map(|entry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => measure(&entry.path(), depth + 1),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    });
    sizes.sum()
}

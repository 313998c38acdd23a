//! The driver `local`: a directory per volume, `<root>/<name>/_data`, over which options may mount something.
//!
//! INVARIANT: a volume's turn is held while its mount point changes, and nothing below a mount is ever removed.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs::DirBuilder;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use rorqual_core::{ContainerId, VolumeName};
use rorqual_store::blocking;
use tokio::sync::{Mutex as TurnMutex, OwnedMutexGuard};

use crate::contract::{Error, VolumeDriver, VolumeOptions};
use crate::options::MountPlan;

pub(crate) mod mounter;

use mounter::{HostMounter, Mounter};

type Users = BTreeSet<ContainerId>;

/// Volumes in a directory of ours.
pub struct Local {
    root: PathBuf,
    mounter: Arc<dyn Mounter>,
    /// Who uses the mount of each volume that has one.
    users: Mutex<BTreeMap<VolumeName, Arc<TurnMutex<Users>>>>,
}

impl Local {
    /// Uses the directory `root`, which is made with the first volume.
    pub fn new(root: PathBuf) -> Self {
        Self::with(root, Arc::new(HostMounter))
    }

    pub(crate) fn with(root: PathBuf, mounter: Arc<dyn Mounter>) -> Self {
        Self { root, mounter, users: Mutex::default() }
    }

    async fn turn(&self, name: &VolumeName) -> OwnedMutexGuard<Users> {
        let turn = {
            let mut all = self.users.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(all.entry(name.clone()).or_default())
        };
        turn.lock_owned().await
    }

    /// Takes everything away that is mounted at a volume's mount point.
    async fn clear(&self, name: &VolumeName) -> Result<(), Error> {
        let (path, mounter) = (self.mountpoint(name), Arc::clone(&self.mounter));
        blocking(move || {
            // LIMIT: as many mounts on top of each other as nobody stacks by accident.
            for _ in 0..64 {
                if !mounter.is_mounted(&path).map_err(failed("look at", &path))? {
                    return Ok(());
                }
                mounter.unmount(&path).map_err(failed("unmount", &path))?;
            }
            Err(failed("unmount", &path)(std::io::Error::other(
                "too many mounts on top of each other",
            )))
        })
        .await
    }
}

fn failed(action: &str, path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    let action = format!("{action} {}", path.display());
    move |source| Error::Io { action, source }
}

#[async_trait]
impl VolumeDriver for Local {
    fn check(&self, options: &VolumeOptions) -> Result<(), Error> {
        MountPlan::parse(options).map(|_| ())
    }

    fn mountpoint(&self, name: &VolumeName) -> PathBuf {
        self.root.join(name.as_str()).join("_data")
    }

    async fn create(&self, name: &VolumeName) -> Result<(), Error> {
        let data = self.mountpoint(name);
        blocking(move || make_directory(&data)).await
    }

    async fn remove(&self, name: &VolumeName) -> Result<(), Error> {
        let users = self.turn(name).await;
        if !users.is_empty() {
            return Err(Error::Mounted(name.clone()));
        }
        // ORDER: what is mounted belongs to somebody else and must be gone before files are removed.
        self.clear(name).await?;
        let directory = self.root.join(name.as_str());
        blocking(move || match std::fs::remove_dir_all(&directory) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                Err(failed("remove", &directory)(source))
            }
            _ => Ok(()),
        })
        .await?;
        self.users.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
        Ok(())
    }

    async fn mount(
        &self,
        name: &VolumeName,
        options: &VolumeOptions,
        user: ContainerId,
    ) -> Result<(), Error> {
        let Some(mut plan) = MountPlan::parse(options)? else { return Ok(()) };
        let mut users = self.turn(name).await;
        if users.is_empty() {
            let (path, mounter) = (self.mountpoint(name), Arc::clone(&self.mounter));
            let mount = move || {
                if mounter.is_mounted(&path).map_err(failed("look at", &path))? {
                    return Ok(());
                }
                let done = plan.resolve_server().and_then(|()| mounter.mount(&plan, &path));
                done.map_err(|source| {
                    let target = path.display().to_string();
                    Error::Mount { mount: plan.words(&target), path: target, source }
                })
            };
            // The turn travels along: whoever is dropped here leaves a mount that `unmount` waits for.
            let mounted = tokio::spawn(async move {
                let result = blocking(mount).await;
                if result.is_ok() {
                    users.insert(user);
                }
                result
            });
            return mounted.await.unwrap_or_else(|failure| {
                Err(failed("mount volume", Path::new(name.as_str()))(std::io::Error::other(
                    failure,
                )))
            });
        }
        users.insert(user);
        Ok(())
    }

    async fn unmount(&self, name: &VolumeName, user: ContainerId) -> Result<(), Error> {
        let known = {
            let all = self.users.lock().unwrap_or_else(PoisonError::into_inner);
            all.contains_key(name)
        };
        if !known {
            return Ok(());
        }
        let mut users = self.turn(name).await;
        if users.remove(&user) && users.is_empty() {
            self.clear(name).await?;
        }
        Ok(())
    }

    async fn size(&self, name: &VolumeName) -> u64 {
        let data = self.mountpoint(name);
        blocking(move || tree_size(&data)).await
    }

    async fn recover(&self, known: Vec<VolumeName>, users: Vec<(VolumeName, ContainerId)>) {
        for (name, user) in users {
            self.turn(&name).await.insert(user);
        }
        for name in known {
            let users = self.turn(&name).await;
            if users.is_empty()
                && let Err(error) = self.clear(&name).await
            {
                tracing::warn!(volume = %name, error = rorqual_core::full_message(&error), "cannot unmount");
            }
        }
    }
}

fn make_directory(data: &Path) -> Result<(), Error> {
    // As Docker: others may pass through `volumes/NAME`, not list it.
    let parent = data.parent().unwrap_or(data);
    let make = |mode, path: &Path| {
        DirBuilder::new().recursive(true).mode(mode).create(path).map_err(failed("make", path))
    };
    make(0o701, parent)?;
    make(0o755, data)
}

/// Sums what files occupy; a file of several names counts once.
fn tree_size(root: &Path) -> u64 {
    let mut open = vec![root.to_owned()];
    let mut seen = HashSet::new();
    let mut total = 0;
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(&directory).into_iter().flatten().flatten() {
            match entry.metadata() {
                Ok(meta) if meta.is_dir() => open.push(entry.path()),
                Ok(meta) if meta.nlink() > 1 && !seen.insert((meta.dev(), meta.ino())) => {}
                Ok(meta) => total += meta.len(),
                Err(_) => {}
            }
        }
    }
    total
}

#[cfg(test)]
mod tests;

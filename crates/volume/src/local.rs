//! The driver `local`: a directory per volume, `<root>/<name>/_data`, over which options may mount something.
//!
//! INVARIANT: a volume's turn is held while its mount point changes, and nothing below a mount is ever removed.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs::DirBuilder;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use async_trait::async_trait;
use rorqual_core::{ContainerId, VolumeName};
use rorqual_store::blocking;
use rorqual_sys::path::Dir;
use rorqual_sys::quota::{ProjectQuotas, join_project, project_of};
use tokio::sync::{Mutex as TurnMutex, OwnedMutexGuard};

use crate::contract::{Described, Error, VolumeDriver, VolumeOptions};
use crate::drivers::LOCAL;
use crate::options::{MountPlan, quota_size};

pub(crate) mod mounter;
mod staging;

use mounter::{HostMounter, Mounter};

pub use staging::Staged;

type Users = BTreeSet<ContainerId>;

/// Volumes in a directory of ours.
pub struct Local {
    root: PathBuf,
    mounter: Arc<dyn Mounter>,
    /// Project quotas of the root's file system, looked for once.
    quotas: OnceLock<Option<ProjectQuotas>>,
    /// Who uses the mount of each volume that has one.
    users: Mutex<BTreeMap<VolumeName, Arc<TurnMutex<Users>>>>,
}

impl Local {
    /// Uses the directory `root`, which is made with the first volume.
    pub fn new(root: PathBuf) -> Self {
        Self::with(root, Arc::new(HostMounter))
    }

    pub(crate) fn with(root: PathBuf, mounter: Arc<dyn Mounter>) -> Self {
        Self { root, mounter, quotas: OnceLock::new(), users: Mutex::default() }
    }

    /// Returns the directory that holds the data while the volume is mounted.
    pub fn mountpoint(&self, name: &VolumeName) -> PathBuf {
        self.root.join(name.as_str()).join("_data")
    }

    /// Returns the quotas that bound volumes, if there are any here.
    fn quotas(&self) -> Option<&ProjectQuotas> {
        let look = || {
            // ORDER: quotas belong to the file system, so the directory must be there to look at.
            let made = DirBuilder::new().recursive(true).mode(0o701).create(&self.root);
            let found = made.and_then(|()| ProjectQuotas::of(&self.root));
            found.unwrap_or_else(|error| {
                tracing::debug!(%error, "no project quotas for volumes");
                None
            })
        };
        self.quotas.get_or_init(look).as_ref()
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

    /// Makes a volume's directory, bounded if that is asked for. Blocking.
    fn make(&self, name: &VolumeName, size: Option<u64>) -> Result<(), Error> {
        let data = self.mountpoint(name);
        make_directory(&data)?;
        let Some(size) = size else { return Ok(()) };
        let quotas = self.quotas().ok_or_else(no_quotas)?;
        let bound = || {
            let directory = Dir::open(&data)?;
            let known = project_of(&directory)?;
            let project = match known {
                0 => quotas.unused_project(draw(name.as_str()))?,
                known => known,
            };
            // ORDER: the bound before the first file that it counts.
            quotas.limit(project, size)?;
            join_project(&directory, project)
        };
        bound().map_err(failed("bound the size of", &data))
    }

    /// Gives a removed volume's project back. Blocking.
    fn unbound(&self, name: &VolumeName) {
        let free = || -> std::io::Result<()> {
            let Some(quotas) = self.quotas() else { return Ok(()) };
            match project_of(Dir::open(&self.mountpoint(name))?)? {
                0 => Ok(()),
                project => quotas.limit(project, 0),
            }
        };
        // A bound on files that are gone does no harm.
        if let Err(error) = free() {
            tracing::debug!(volume = %name, %error, "cannot take a bound away");
        }
    }
}

/// A number for a name to begin the search for a free project at; FNV-1a.
fn draw(name: &str) -> u32 {
    name.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

fn no_quotas() -> Error {
    // COMPAT: dockerd's text.
    Error::InvalidArgument("quota size requested but no quota support".to_owned())
}

pub(crate) fn failed(action: &str, path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    let action = format!("{action} {}", path.display());
    move |source| Error::Io { action, source }
}

#[async_trait]
impl VolumeDriver for Local {
    fn name(&self) -> &str {
        LOCAL
    }

    async fn scope(&self) -> String {
        LOCAL.to_owned()
    }

    fn check(&self, options: &VolumeOptions) -> Result<(), Error> {
        MountPlan::parse(options)?;
        match quota_size(options)? {
            Some(_) if self.quotas().is_none() => Err(no_quotas()),
            _ => Ok(()),
        }
    }

    async fn create(&self, name: &VolumeName, options: &VolumeOptions) -> Result<(), Error> {
        let size = quota_size(options)?;
        // A few system calls that wait for no disk.
        self.make(name, size)
    }

    async fn remove(&self, name: &VolumeName) -> Result<(), Error> {
        let users = self.turn(name).await;
        if !users.is_empty() {
            return Err(Error::Mounted(name.clone()));
        }
        // ORDER: what is mounted belongs to somebody else and must be gone before files are removed.
        self.clear(name).await?;
        self.unbound(name);
        self.set_aside(name).await?;
        self.users.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
        Ok(())
    }

    async fn forget(&self, name: &VolumeName) {
        self.empty(name).await;
    }

    async fn mount(
        &self,
        name: &VolumeName,
        options: &VolumeOptions,
        user: ContainerId,
    ) -> Result<PathBuf, Error> {
        let data = self.mountpoint(name);
        let Some(mut plan) = MountPlan::parse(options)? else { return Ok(data) };
        let mut users = self.turn(name).await;
        if !users.is_empty() {
            users.insert(user);
            return Ok(data);
        }
        let (path, mounter) = (data.clone(), Arc::clone(&self.mounter));
        let mount = move || {
            if mounter.is_mounted(&path).map_err(failed("look at", &path))? {
                return Ok(());
            }
            let done = plan.resolve_server().and_then(|()| mounter.mount(&plan, &path));
            done.map_err(|source| {
                let target = path.display().to_string();
                let source = as_docker(&source);
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
        let mounted = mounted.await.unwrap_or_else(|failure| {
            let failure = std::io::Error::other(failure);
            Err(failed("mount volume", Path::new(name.as_str()))(failure))
        });
        mounted.map(|()| data)
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

    async fn describe(&self, name: &VolumeName) -> Result<Option<Described>, Error> {
        let mountpoint = self.mountpoint(name);
        Ok(Some(Described { mountpoint, ..Described::default() }))
    }

    /// None: what is in our directory is known by its records.
    async fn list(&self) -> Result<Vec<(VolumeName, Described)>, Error> {
        Ok(Vec::new())
    }

    async fn size(&self, name: &VolumeName) -> Option<u64> {
        let data = self.mountpoint(name);
        Some(blocking(move || tree_size(&data)).await)
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

pub(crate) fn make_directory(data: &Path) -> Result<(), Error> {
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

/// Says why the kernel refused, as Go's library does.
// COMPAT: docker's client tells by "no such file or directory" that it ends with 127.
fn as_docker(error: &std::io::Error) -> std::io::Error {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default().to_ascii_lowercase();
    std::io::Error::new(error.kind(), text)
}

#[cfg(test)]
mod tests;

//! Storage on a local disk: one file per object, uploads below `uploads/`, writes in the making below `tmp/`.
//!
//! The operator's own symbolic links are followed (blobs may live on another disk, then `tmp` must too); nothing from a
//! request becomes a path without passing [`crate::name`].

mod upload;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::ops::Range;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use rorqual_core::Digest;
use rorqual_store::blocking;
use rustix::io::Errno;

use super::{Content, Durability, Entry, Meta, Object, Pieces, Storage, Swapped};
use crate::error::{Error, Result};
use upload::Standings;

/// The storage below one directory; clones share it.
#[derive(Clone)]
pub(crate) struct Disk(Arc<Inner>);

struct Inner {
    root: PathBuf,
    /// Tells our unfinished files from those of other processes.
    token: u64,
    serial: AtomicU64,
    standings: Standings,
}

// LIMIT: blobs up to this size are read at once, because opening costs more than reading.
const SMALL: u64 = 64 << 10;
// LIMIT: no write takes this long; a file in `tmp` that is older was left by a crash.
const STALE: Duration = Duration::from_secs(24 * 3600);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn failed(action: &str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let action = format!("{action} {}", path.display());
    move |source| Error::io(action, source)
}

/// Turns "no such file" into nothing.
fn found<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error)
            if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

fn make_dir(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Makes the folders above `path`; with `durable` they outlive a power cut.
fn make_parents(path: &Path, durable: bool) -> io::Result<()> {
    let parent = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let missing: Vec<&Path> = parent.ancestors().take_while(|folder| !folder.exists()).collect();
    make_dir(parent)?;
    if durable {
        for above in missing.iter().filter_map(|folder| folder.parent()) {
            File::open(above)?.sync_all()?;
        }
    }
    Ok(())
}

/// Moves a finished file to its place; the folder may vanish meanwhile when it gets empty.
fn publish(from: &Path, to: &Path, durable: bool) -> io::Result<()> {
    // LIMIT: each turn means that somebody emptied the folder just then.
    for _ in 0..16 {
        match fs::rename(from, to) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => make_parents(to, durable)?,
            result => {
                result?;
                if durable && let Some(parent) = to.parent() {
                    // A folder that is gone already took the file with it, at somebody's wish.
                    found(File::open(parent).and_then(|folder| folder.sync_all()))?;
                }
                return Ok(());
            }
        }
    }
    Err(io::ErrorKind::ResourceBusy.into())
}

impl Disk {
    /// Opens the directory, making it if need be.
    pub(crate) async fn open(root: &Path) -> Result<Self> {
        let root = root.to_owned();
        let mut token = [0; 8];
        getrandom::fill(&mut token)
            .map_err(|error| Error::Config(format!("no random numbers: {error}")))?;
        let token = u64::from_le_bytes(token);
        blocking(move || {
            for folder in ["", "tmp", super::super::name::key::UPLOADS] {
                let path = root.join(folder);
                make_dir(&path).map_err(failed("make", &path))?;
            }
            sweep(&root.join("tmp"))?;
            sweep_folders(&root.join(super::super::name::key::UPLOADS))?;
            let (serial, standings) = (AtomicU64::new(0), Arc::default());
            Ok(Self(Arc::new(Inner { root, token, serial, standings })))
        })
        .await
    }

    fn path(&self, key: &str) -> PathBuf {
        self.0.root.join(key)
    }

    fn upload_path(&self, upload: &str) -> PathBuf {
        self.0.root.join(super::super::name::key::UPLOADS).join(upload)
    }

    /// Returns a new place for an unfinished file.
    fn temporary(&self) -> PathBuf {
        let serial = self.0.serial.fetch_add(1, Ordering::Relaxed);
        self.0.root.join("tmp").join(format!("{:016x}-{serial}", self.0.token))
    }

    /// Runs blocking work with a handle of its own.
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let disk = self.clone();
        blocking(move || work(&disk)).await
    }

    fn write(&self, key: &str, bytes: &[u8], durability: Durability) -> Result<()> {
        let (path, temporary) = (self.path(key), self.temporary());
        let durable = durability == Durability::Durable;
        let fill = || {
            let mut file =
                OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
            file.write_all(bytes)?;
            // ORDER: the bytes are on disk before a name leads to them.
            if durable { file.sync_data() } else { Ok(()) }
        };
        let written = fill().and_then(|()| publish(&temporary, &path, durable));
        if written.is_err() {
            fs::remove_file(&temporary).ok();
        }
        written.map_err(failed("write", &path))
    }

    fn swap(&self, key: &str, expected: Option<&[u8]>, bytes: &[u8]) -> Result<Swapped> {
        let root = File::open(&self.0.root).map_err(failed("open", &self.0.root))?;
        // ORDER: all who swap, in all processes, hold the directory from the look to the write.
        match rustix::fs::flock(&root, rustix::fs::FlockOperation::LockExclusive) {
            Ok(()) => {}
            // Network file systems may not lock directories, or nothing.
            Err(Errno::BADF | Errno::NOLCK | Errno::OPNOTSUPP) => return Ok(Swapped::Unsupported),
            Err(error) => return Err(failed("lock", &self.0.root)(error.into())),
        }
        let path = self.path(key);
        let there = found(fs::read(&path)).map_err(failed("read", &path))?;
        if there.as_deref() != expected {
            return Ok(Swapped::Differs);
        }
        self.write(key, bytes, Durability::Volatile).map(|()| Swapped::Done)
    }
}

/// Removes what a crash left in `tmp`; younger files may be another process's.
fn sweep(tmp: &Path) -> Result<()> {
    for entry in fs::read_dir(tmp).map_err(failed("read", tmp))?.flatten() {
        let modified = entry.metadata().and_then(|meta| meta.modified());
        let is_old = modified.is_ok_and(|at| at.elapsed().is_ok_and(|age| age > STALE));
        if is_old {
            fs::remove_file(entry.path()).ok();
        }
    }
    Ok(())
}

/// Removes empty folders that a crash left; one that another process is about to fill is made again by that.
fn sweep_folders(uploads: &Path) -> Result<()> {
    for entry in fs::read_dir(uploads).map_err(failed("read", uploads))?.flatten() {
        // One that is not empty refuses.
        fs::remove_dir(entry.path()).ok();
    }
    Ok(())
}

#[async_trait]
impl Storage for Disk {
    async fn get(&self, key: &str) -> Result<Option<Object>> {
        let path = self.path(key);
        blocking(move || {
            let read = || {
                let mut file = File::open(&path)?;
                let meta = file.metadata()?;
                let mut bytes = Vec::with_capacity(meta.len() as usize);
                file.read_to_end(&mut bytes)?;
                Ok(Object { bytes: bytes.into(), modified: meta.modified()? })
            };
            found(read()).map_err(failed("read", &path))
        })
        .await
    }

    async fn head(&self, key: &str) -> Result<Option<Meta>> {
        let path = self.path(key);
        blocking(move || {
            let stat = || {
                let meta = fs::metadata(&path)?;
                Ok((meta.is_file(), Meta { size: meta.len(), modified: meta.modified()? }))
            };
            let meta = found(stat()).map_err(failed("stat", &path))?;
            Ok(meta.and_then(|(is_file, meta)| is_file.then_some(meta)))
        })
        .await
    }

    async fn put(&self, key: &str, bytes: Bytes, durability: Durability) -> Result<()> {
        let key = key.to_owned();
        self.run(move |disk| disk.write(&key, &bytes, durability)).await
    }

    async fn swap(&self, key: &str, expected: Option<&[u8]>, bytes: Bytes) -> Result<Swapped> {
        let (key, expected) = (key.to_owned(), expected.map(<[u8]>::to_vec));
        self.run(move |disk| disk.swap(&key, expected.as_deref(), &bytes)).await
    }

    async fn delete(&self, key: &str) -> Result<()> {
        let key = key.to_owned();
        self.run(move |disk| {
            let path = disk.path(&key);
            found(fs::remove_file(&path)).map_err(failed("remove", &path))?;
            // Folders that became empty go too; one that did not refuses.
            let above =
                Path::new(&key).ancestors().skip(1).filter(|folder| folder.iter().count() > 1);
            for folder in above {
                if fs::remove_dir(disk.0.root.join(folder)).is_err() {
                    break;
                }
            }
            Ok(())
        })
        .await
    }

    async fn list(&self, folder: &str, after: Option<&str>, limit: usize) -> Result<Vec<Entry>> {
        let (path, after) = (self.path(folder), after.map(str::to_owned));
        blocking(move || list(&path, after.as_deref(), limit).map_err(failed("read", &path))).await
    }

    async fn folders(&self, folder: &str) -> Result<Vec<String>> {
        let path = self.path(folder);
        blocking(move || {
            let read = || {
                let Some(entries) = found(fs::read_dir(&path))? else { return Ok(Vec::new()) };
                let mut names = Vec::new();
                for entry in entries {
                    let entry = entry?;
                    if entry.path().is_dir() {
                        names.extend(entry.file_name().into_string());
                    }
                }
                names.sort_unstable();
                Ok(names)
            };
            read().map_err(failed("read", &path))
        })
        .await
    }

    async fn open(&self, key: &str, range: Range<u64>) -> Result<Content> {
        let path = self.path(key);
        blocking(move || {
            let read = || {
                let file = File::open(&path)?;
                if range.end - range.start > SMALL {
                    return Ok(Content::File(Arc::new(file), range));
                }
                let mut bytes = vec![0; (range.end - range.start) as usize];
                file.read_exact_at(&mut bytes, range.start)?;
                Ok(Content::Bytes(bytes.into()))
            };
            read().map_err(failed("read", &path))
        })
        .await
    }

    async fn append(&self, upload: &str, offset: u64, pieces: Pieces, limit: u64) -> Result<u64> {
        upload::append(self, upload, offset, pieces, limit).await
    }

    async fn length(&self, upload: &str) -> Result<u64> {
        let path = self.upload_path(upload).join("data");
        blocking(move || {
            let meta = found(fs::metadata(&path)).map_err(failed("stat", &path))?;
            Ok(meta.map_or(0, |meta| meta.len()))
        })
        .await
    }

    async fn commit(&self, upload: &str, digest: &Digest, key: &str) -> Result<u64> {
        let (upload, expected, key) = (upload.to_owned(), digest.clone(), key.to_owned());
        self.run(move |disk| disk.claim(&upload)?.commit(expected, &disk.path(&key))).await
    }

    async fn discard(&self, upload: &str) -> Result<()> {
        let upload = upload.to_owned();
        self.run(move |disk| {
            disk.claim(&upload)?.forget();
            Ok(())
        })
        .await
    }

    fn spool(&self) -> PathBuf {
        self.0.root.join("tmp")
    }

    async fn adopt(&self, file: &Path, key: &str) -> Result<()> {
        let (file, key) = (file.to_owned(), key.to_owned());
        self.run(move |disk| {
            let target = disk.path(&key);
            let sync = File::open(&file).and_then(|file| file.sync_data());
            sync.and_then(|()| publish(&file, &target, true)).map_err(failed("publish", &target))
        })
        .await
    }
}

fn list(path: &Path, after: Option<&str>, limit: usize) -> io::Result<Vec<Entry>> {
    let Some(entries) = found(fs::read_dir(path))? else { return Ok(Vec::new()) };
    let mut names = Vec::new();
    for entry in entries {
        let Ok(name) = entry?.file_name().into_string() else { continue };
        if after.is_none_or(|after| name.as_str() > after) {
            names.push(name);
        }
    }
    names.sort_unstable();
    let mut listed = Vec::new();
    for name in names {
        if listed.len() == limit {
            break;
        }
        // What was removed meanwhile is not there.
        let Some(meta) = found(fs::metadata(path.join(&name)))? else { continue };
        if meta.is_file() {
            let modified = meta.modified().unwrap_or(SystemTime::UNIX_EPOCH);
            listed.push(Entry { name, meta: Meta { size: meta.len(), modified } });
        }
    }
    Ok(listed)
}

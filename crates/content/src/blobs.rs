//! Blobs as files: `content/blobs/<algorithm>/<hex>`, unfinished ones in `content/ingest/`.
//!
//! A blob is durable before it is visible, and visible only under a digest its bytes have. Removal is by collection only.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use rorqual_core::{Algorithm, Digest};
use rorqual_store::blocking;
use sha2::{Digest as _, Sha256, Sha512};

use crate::reach::{self, Reached};
use crate::{Blobs, Error, Ingest, Lease, ReadAt};

/// The blobs below one data root; clones share it.
#[derive(Clone)]
pub struct LocalBlobs(Arc<Inner>);

struct Inner {
    blobs: PathBuf,
    ingest: PathBuf,
    serial: AtomicU64,
    leases: Arc<Mutex<Leases>>,
}

/// Who holds what back from collection.
#[derive(Default)]
struct Leases {
    /// Counts commits and leases alike, so that they can be put in order.
    clock: u64,
    /// When living leases began, with how many began then.
    live: BTreeMap<u64, usize>,
    /// When blobs were committed since the store was opened.
    committed: HashMap<Digest, u64>,
}

impl Leases {
    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    fn protects(&self, digest: &Digest) -> bool {
        match (self.live.keys().next(), self.committed.get(digest)) {
            (Some(began), Some(committed)) => committed > began,
            _ => false,
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn failed(action: &str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let action = format!("{action} {}", path.display());
    move |source| Error::Io { action, source }
}

impl LocalBlobs {
    /// Opens the blobs of a data root and sweeps what a crash left unfinished. Blocking.
    pub fn open(data_root: &Path) -> Result<Self, Error> {
        let content = data_root.join("content");
        let (blobs, ingest) = (content.join("blobs"), content.join("ingest"));
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            make_dir(&blobs.join(algorithm.name()))?;
        }
        make_dir(&ingest)?;
        for entry in fs::read_dir(&ingest).map_err(failed("read", &ingest))? {
            let path = entry.map_err(failed("read", &ingest))?.path();
            fs::remove_file(&path).map_err(failed("remove", &path))?;
        }
        let inner = Inner { blobs, ingest, serial: AtomicU64::new(0), leases: Arc::default() };
        Ok(Self(Arc::new(inner)))
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.0.blobs.join(digest.algorithm().name()).join(digest.hex())
    }

    fn open_file(&self, digest: &Digest) -> Result<File, Error> {
        let path = self.path(digest);
        match File::open(&path) {
            Ok(file) => Ok(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(Error::NoSuchBlob(digest.clone()))
            }
            Err(error) => Err(failed("open", &path)(error)),
        }
    }

    fn stored(&self) -> Result<Vec<(Digest, u64)>, Error> {
        let mut found = Vec::new();
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            let dir = self.0.blobs.join(algorithm.name());
            for entry in fs::read_dir(&dir).map_err(failed("read", &dir))? {
                let entry = entry.map_err(failed("read", &dir))?;
                let name = entry.file_name().to_string_lossy().into_owned();
                let Ok(digest) = format!("{}:{name}", algorithm.name()).parse() else { continue };
                let size = entry.metadata().map_err(failed("stat", &entry.path()))?.len();
                found.push((digest, size));
            }
        }
        Ok(found)
    }

    fn sweep(&self, roots: Vec<Digest>) -> Result<u64, Error> {
        let Reached(kept) = reach::reach(self, roots)?;
        let mut freed = 0;
        for (digest, size) in self.stored()? {
            // ORDER: under the lock, so that nobody commits this blob again between the look and the removal.
            let leases = lock(&self.0.leases);
            if kept.contains(&digest) || leases.protects(&digest) {
                continue;
            }
            let path = self.path(&digest);
            fs::remove_file(&path).map_err(failed("remove", &path))?;
            drop(leases);
            freed += size;
        }
        let mut leases = lock(&self.0.leases);
        if leases.live.is_empty() {
            leases.committed.clear();
        }
        Ok(freed)
    }
}

fn make_dir(path: &Path) -> Result<(), Error> {
    use std::os::unix::fs::DirBuilderExt;
    let result = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    result.map_err(failed("make", path))
}

struct LocalIngest {
    store: LocalBlobs,
    path: PathBuf,
    file: Option<File>,
    hasher: Sha256,
    size: u64,
    limit: u64,
}

impl Write for LocalIngest {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.size.saturating_add(bytes.len() as u64) > self.limit {
            let text = format!("the blob has more than {} bytes", self.limit);
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, text));
        }
        let file = self.file.as_mut().ok_or(io::ErrorKind::NotConnected)?;
        let len = file.write(bytes)?;
        self.hasher.update(&bytes[..len]);
        self.size += len as u64;
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl LocalIngest {
    /// Computes the digest with the function that `expected` names.
    fn digest_like(&self, expected: Option<&Digest>) -> Result<Digest, Error> {
        if expected.is_none_or(|digest| digest.algorithm() == Algorithm::Sha256) {
            return Ok(self.digest());
        }
        let mut hasher = Sha512::new();
        let mut file = File::open(&self.path).map_err(failed("open", &self.path))?;
        io::copy(&mut file, &mut HashWriter(&mut hasher)).map_err(failed("read", &self.path))?;
        sha512(hasher)
    }
}

fn sha512(hasher: Sha512) -> Result<Digest, Error> {
    let mut text = "sha512:".to_owned();
    for byte in hasher.finalize() {
        // Writing to a text cannot fail.
        write!(text, "{byte:02x}").ok();
    }
    text.parse().map_err(|error| Error::InvalidDocument { what: "digest", source: Box::new(error) })
}

/// Checks bytes in memory against the digest they are promised to have.
pub fn verify(bytes: &[u8], expected: &Digest) -> Result<(), Error> {
    let found = match expected.algorithm() {
        Algorithm::Sha256 => Digest::sha256(Sha256::digest(bytes).into()),
        Algorithm::Sha512 => sha512(Sha512::new_with_prefix(bytes))?,
    };
    if found == *expected {
        return Ok(());
    }
    Err(Error::WrongDigest { expected: expected.clone(), found })
}

/// A digest that is computed while bytes pass.
#[derive(Clone)]
enum Hasher {
    Sha256(Sha256),
    Sha512(Sha512),
}

impl Hasher {
    fn of(digest: &Digest) -> Self {
        match digest.algorithm() {
            Algorithm::Sha256 => Self::Sha256(Sha256::new()),
            Algorithm::Sha512 => Self::Sha512(Sha512::new()),
        }
    }

    fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hasher) => hasher.update(bytes),
            Self::Sha512(hasher) => hasher.update(bytes),
        }
    }

    fn digest(self) -> Result<Digest, Error> {
        match self {
            Self::Sha256(hasher) => Ok(Digest::sha256(hasher.finalize().into())),
            Self::Sha512(hasher) => sha512(hasher),
        }
    }
}

/// A blob that fails at its end when its bytes on disk are not what they were.
struct Verified {
    file: File,
    hasher: Hasher,
    digest: Digest,
}

impl Read for Verified {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let len = self.file.read(into)?;
        if len > 0 {
            self.hasher.update(&into[..len]);
        } else if !into.is_empty() {
            let found = self.hasher.clone().digest().map_err(io::Error::other)?;
            if found != self.digest {
                let expected = self.digest.clone();
                let error = Error::WrongDigest { expected, found };
                return Err(io::Error::new(io::ErrorKind::InvalidData, error));
            }
        }
        Ok(len)
    }
}

struct HashWriter<'h>(&'h mut Sha512);

impl Write for HashWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct LocalBytes(File);

impl ReadAt for LocalBytes {
    fn read_at(&self, into: &mut [u8], at: u64) -> io::Result<usize> {
        std::os::unix::fs::FileExt::read_at(&self.0, into, at)
    }
}

impl Ingest for LocalIngest {
    fn reader(&self) -> Result<Arc<dyn ReadAt>, Error> {
        let file = File::open(&self.path).map_err(failed("open", &self.path))?;
        Ok(Arc::new(LocalBytes(file)))
    }

    fn digest(&self) -> Digest {
        Digest::sha256(self.hasher.clone().finalize().into())
    }

    fn commit(mut self: Box<Self>, expected: Option<&Digest>) -> Result<(Digest, u64), Error> {
        let found = self.digest_like(expected)?;
        if let Some(expected) = expected.filter(|expected| **expected != found) {
            return Err(Error::WrongDigest { expected: expected.clone(), found });
        }
        let file = self.file.take();
        let target = self.store.path(&found);
        let known = target.exists();
        if let (Some(file), false) = (&file, known) {
            // ORDER: the bytes are on disk before a name leads to them.
            file.sync_data().map_err(failed("sync", &self.path))?;
        }
        {
            let mut leases = lock(&self.store.0.leases);
            let now = leases.tick();
            leases.committed.insert(found.clone(), now);
            // It may have been collected since we looked; renaming over the same bytes does no harm either.
            if !known || !target.exists() {
                fs::rename(&self.path, &target).map_err(failed("publish", &target))?;
            }
        }
        if !known && let Some(parent) = target.parent() {
            let synced = File::open(parent).and_then(|dir| dir.sync_all());
            synced.map_err(failed("sync", parent))?;
        }
        Ok((found, self.size))
    }
}

impl Drop for LocalIngest {
    fn drop(&mut self) {
        // After a commit the name is gone; what a failure leaves is swept at the next start.
        fs::remove_file(&self.path).ok();
    }
}

struct LocalLease {
    began: u64,
    leases: Arc<Mutex<Leases>>,
}

impl Lease for LocalLease {}

impl Drop for LocalLease {
    fn drop(&mut self) {
        let mut leases = lock(&self.leases);
        if let Some(count) = leases.live.get_mut(&self.began) {
            *count -= 1;
            if *count == 0 {
                leases.live.remove(&self.began);
            }
        }
    }
}

#[async_trait]
impl Blobs for LocalBlobs {
    fn ingest(&self, limit: u64) -> Result<Box<dyn Ingest>, Error> {
        use std::os::unix::fs::OpenOptionsExt;
        let serial = self.0.serial.fetch_add(1, Ordering::Relaxed);
        let path = self.0.ingest.join(format!("{}-{serial}", std::process::id()));
        let file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        let file = Some(file.map_err(failed("make", &path))?);
        let store = self.clone();
        Ok(Box::new(LocalIngest { store, path, file, hasher: Sha256::new(), size: 0, limit }))
    }

    fn open(&self, digest: &Digest) -> Result<Box<dyn Read + Send>, Error> {
        let file = self.open_file(digest)?;
        Ok(Box::new(Verified { file, hasher: Hasher::of(digest), digest: digest.clone() }))
    }

    fn size(&self, digest: &Digest) -> Result<Option<u64>, Error> {
        let path = self.path(digest);
        match fs::metadata(&path) {
            Ok(metadata) => Ok(Some(metadata.len())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed("stat", &path)(error)),
        }
    }

    fn read(&self, digest: &Digest, limit: u64) -> Result<Vec<u8>, Error> {
        let mut bytes = Vec::new();
        let file = self.open_file(digest)?;
        let read = file.take(limit.saturating_add(1)).read_to_end(&mut bytes);
        read.map_err(failed("read", &self.path(digest)))?;
        if bytes.len() as u64 > limit {
            return Err(Error::WrongSize(format!("{digest} has more than {limit} bytes")));
        }
        verify(&bytes, digest)?;
        Ok(bytes)
    }

    fn lease(&self) -> Arc<dyn Lease> {
        let mut leases = lock(&self.0.leases);
        let began = leases.tick();
        *leases.live.entry(began).or_default() += 1;
        Arc::new(LocalLease { began, leases: Arc::clone(&self.0.leases) })
    }

    async fn reach(&self, roots: Vec<Digest>) -> Result<Vec<Digest>, Error> {
        let store = self.clone();
        let reached = blocking(move || reach::reach(&store, roots)).await?;
        Ok(reached.0.into_iter().collect())
    }

    async fn collect(&self, roots: Vec<Digest>) -> Result<u64, Error> {
        let store = self.clone();
        blocking(move || store.sweep(roots)).await
    }

    async fn forget(&self, digest: &Digest) -> Result<bool, Error> {
        let path = self.path(digest);
        let remove = move || match fs::remove_file(&path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(failed("remove", &path)(error)),
        };
        blocking(remove).await
    }

    async fn disk_usage(&self) -> Result<u64, Error> {
        let store = self.clone();
        let stored = blocking(move || store.stored()).await?;
        Ok(stored.into_iter().map(|(_, size)| size).sum())
    }
}

#[cfg(test)]
mod tests;

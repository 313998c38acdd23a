//! Blobs and image records in memory, for tests of this crate's users. Passes the same suite as the real ones.

use std::collections::BTreeMap;
use std::io::{Cursor, Read, Write};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use rorqual_core::{DiffId, Digest, ImageId, Reference, Timestamp};
use sha2::{Digest as _, Sha256};

use crate::reach::{self, Reached};
use crate::{Blobs, Descriptor, Error, ImageRecord, Images, Ingest, Lease, ReadAt, name};

type Table = Arc<Mutex<BTreeMap<Digest, Arc<[u8]>>>>;

/// Blobs in memory.
#[derive(Clone, Default)]
pub struct FakeBlobs {
    blobs: Table,
    leases: Arc<()>,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl FakeBlobs {
    /// Makes an empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts a blob and returns its digest.
    pub fn put(&self, bytes: &[u8]) -> Digest {
        let digest = Digest::sha256(Sha256::digest(bytes).into());
        lock(&self.blobs).insert(digest.clone(), bytes.into());
        digest
    }

    fn get(&self, digest: &Digest) -> Result<Arc<[u8]>, Error> {
        let found = lock(&self.blobs).get(digest).cloned();
        found.ok_or_else(|| Error::NoSuchBlob(digest.clone()))
    }
}

#[derive(Clone, Default)]
struct FakeBytes(Arc<Mutex<Vec<u8>>>);

impl ReadAt for FakeBytes {
    fn read_at(&self, into: &mut [u8], at: u64) -> std::io::Result<usize> {
        let bytes = lock(&self.0);
        let from = usize::try_from(at).unwrap_or(usize::MAX).min(bytes.len());
        let len = into.len().min(bytes.len() - from);
        into[..len].copy_from_slice(&bytes[from..from + len]);
        Ok(len)
    }
}

struct FakeIngest {
    store: FakeBlobs,
    bytes: FakeBytes,
    limit: u64,
}

impl Write for FakeIngest {
    fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
        let mut bytes = lock(&self.bytes.0);
        if (bytes.len() + buf.len()) as u64 > self.limit {
            return Err(std::io::Error::new(
                std::io::ErrorKind::FileTooLarge,
                "blob beyond its limit",
            ));
        }
        bytes.extend_from_slice(buf);
        Ok(buf.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Ingest for FakeIngest {
    fn reader(&self) -> Result<Arc<dyn ReadAt>, Error> {
        Ok(Arc::new(self.bytes.clone()))
    }

    fn digest(&self) -> Digest {
        Digest::sha256(Sha256::digest(&*lock(&self.bytes.0)).into())
    }

    fn commit(self: Box<Self>, expected: Option<&Digest>) -> Result<(Digest, u64), Error> {
        let found = self.digest();
        match expected {
            Some(expected) if *expected != found => {
                Err(Error::WrongDigest { expected: expected.clone(), found })
            }
            _ => {
                let bytes = lock(&self.bytes.0);
                Ok((self.store.put(&bytes), bytes.len() as u64))
            }
        }
    }
}

struct FakeLease(#[expect(dead_code, reason = "counted by its clones")] Arc<()>);

impl Lease for FakeLease {}

#[async_trait]
impl Blobs for FakeBlobs {
    fn ingest(&self, limit: u64) -> Result<Box<dyn Ingest>, Error> {
        Ok(Box::new(FakeIngest { store: self.clone(), bytes: FakeBytes::default(), limit }))
    }

    fn open(&self, digest: &Digest) -> Result<Box<dyn Read + Send>, Error> {
        Ok(Box::new(Cursor::new(self.get(digest)?)))
    }

    fn size(&self, digest: &Digest) -> Result<Option<u64>, Error> {
        Ok(lock(&self.blobs).get(digest).map(|bytes| bytes.len() as u64))
    }

    fn read(&self, digest: &Digest, limit: u64) -> Result<Vec<u8>, Error> {
        let bytes = self.get(digest)?;
        if bytes.len() as u64 > limit {
            return Err(Error::WrongSize(format!(
                "{digest} has {} bytes, more than {limit}",
                bytes.len()
            )));
        }
        Ok(bytes.to_vec())
    }

    fn lease(&self) -> Arc<dyn Lease> {
        Arc::new(FakeLease(Arc::clone(&self.leases)))
    }

    async fn reach(&self, roots: Vec<Digest>) -> Result<Vec<Digest>, Error> {
        Ok(reach::reach(self, roots)?.0.into_iter().collect())
    }

    async fn collect(&self, roots: Vec<Digest>) -> Result<u64, Error> {
        // Any lease protects everything here; each clone of the store holds one handle of both.
        if Arc::strong_count(&self.leases) > Arc::strong_count(&self.blobs) {
            return Ok(0);
        }
        let Reached(kept) = reach::reach(self, roots)?;
        let mut freed = 0;
        lock(&self.blobs).retain(|digest, bytes| {
            let keep = kept.contains(digest);
            freed += if keep { 0 } else { bytes.len() as u64 };
            keep
        });
        Ok(freed)
    }

    async fn forget(&self, digest: &Digest) -> Result<bool, Error> {
        Ok(lock(&self.blobs).remove(digest).is_some())
    }

    async fn disk_usage(&self) -> Result<u64, Error> {
        Ok(lock(&self.blobs).values().map(|bytes| bytes.len() as u64).sum())
    }
}

/// Image records in memory.
#[derive(Clone, Default)]
pub struct FakeImages {
    images: Arc<Mutex<BTreeMap<ImageId, ImageRecord>>>,
    packed: Arc<Mutex<BTreeMap<DiffId, Descriptor>>>,
}

impl FakeImages {
    /// Makes an empty store.
    pub fn new() -> Self {
        Self::default()
    }
}

#[async_trait]
impl Images for FakeImages {
    async fn put(&self, image: ImageRecord) -> Result<(), Error> {
        name::put(&mut lock(&self.images), image);
        Ok(())
    }

    async fn resolve(&self, text: &str) -> Result<ImageRecord, Error> {
        name::resolve(text, lock(&self.images).values()).cloned()
    }

    async fn image(&self, id: &ImageId) -> Result<ImageRecord, Error> {
        lock(&self.images).get(id).cloned().ok_or_else(|| name::missing_id(id))
    }

    async fn list(&self) -> Result<Vec<ImageRecord>, Error> {
        Ok(lock(&self.images).values().cloned().collect())
    }

    async fn tag(
        &self,
        id: &ImageId,
        name: &Reference,
        at: Timestamp,
    ) -> Result<Option<ImageId>, Error> {
        name::tag(&mut lock(&self.images), id, name, at)
    }

    async fn untag(&self, id: &ImageId, name: &Reference) -> Result<bool, Error> {
        name::untag(&mut lock(&self.images), id, name)
    }

    async fn remove(&self, id: &ImageId) -> Result<(), Error> {
        lock(&self.images).remove(id).map(drop).ok_or_else(|| name::missing_id(id))
    }

    async fn packed_forms(&self) -> Result<Vec<(DiffId, Descriptor)>, Error> {
        Ok(lock(&self.packed).clone().into_iter().collect())
    }

    async fn note_packed(&self, layer: &DiffId, packed: &Descriptor) -> Result<(), Error> {
        lock(&self.packed).insert(layer.clone(), packed.clone());
        Ok(())
    }

    async fn forget_packed(&self, layers: Vec<DiffId>) -> Result<(), Error> {
        lock(&self.packed).retain(|layer, _| !layers.contains(layer));
        Ok(())
    }
}

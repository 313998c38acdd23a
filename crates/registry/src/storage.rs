//! Where the registry keeps things: small objects by key, and blobs that come piece by piece.
//!
//! Keys are paths of words that [`crate::name`] has checked. An object is visible whole or not at all. An upload begins
//! with the first [`Storage::append`], grows by further ones, possibly in other processes, and ends with
//! [`Storage::commit`], which makes it visible under a key if its bytes have the digest, or with [`Storage::discard`]. What
//! is written durably is on disk (or in the object store) when the call returns. All state lives in the storage, so several
//! processes may use one; what they owe each other is told in [`crate::gc`].
//!
//! Nothing here knows what a repository is.

use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use rorqual_core::{BoxError, Digest};

use crate::error::{Error, Result};

pub(crate) mod cloud;
pub(crate) mod disk;
mod hash;
#[cfg(test)]
pub(crate) mod suite;

pub(crate) use hash::{Hasher, hex};

/// Bytes that come piece by piece.
pub(crate) type Pieces = BoxStream<'static, Result<Bytes, BoxError>>;

/// A small object.
#[derive(Clone, Debug)]
pub(crate) struct Object {
    pub(crate) bytes: Bytes,
    pub(crate) modified: SystemTime,
}

/// What is known of an object without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Meta {
    pub(crate) size: u64,
    pub(crate) modified: SystemTime,
}

/// An object of a folder.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) meta: Meta,
}

/// When a write counts as done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Durability {
    /// Once it survives a power cut.
    Durable,
    /// Once all processes see it.
    Volatile,
}

/// What became of a write that depends on what is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Swapped {
    Done,
    /// Something else is there than was expected.
    Differs,
    /// The store has no such writes.
    Unsupported,
}

/// The bytes of a blob.
pub(crate) enum Content {
    /// In memory, because they are few.
    Bytes(Bytes),
    /// A file of ours and the part of it.
    File(Arc<File>, Range<u64>),
    /// From elsewhere.
    Pieces(Pieces),
}

/// See the module.
#[async_trait]
pub(crate) trait Storage: Send + Sync + 'static {
    /// Reads an object; `None` when there is none.
    async fn get(&self, key: &str) -> Result<Option<Object>>;
    /// Looks at an object.
    async fn head(&self, key: &str) -> Result<Option<Meta>>;
    /// Writes an object, replacing one that is there.
    async fn put(&self, key: &str, bytes: Bytes, durability: Durability) -> Result<()>;
    /// Writes an object in one step with the look whether `expected` is there (`None`: nothing). Of several who expect the
    /// same and write something else, one succeeds.
    async fn swap(&self, key: &str, expected: Option<&[u8]>, bytes: Bytes) -> Result<Swapped>;
    /// Removes an object; fine when there is none.
    async fn delete(&self, key: &str) -> Result<()>;
    /// Lists at most `limit` objects right in a folder, in the order of their names, behind `after`.
    async fn list(&self, folder: &str, after: Option<&str>, limit: usize) -> Result<Vec<Entry>>;
    /// Lists the folders right in a folder, in order.
    async fn folders(&self, folder: &str) -> Result<Vec<String>>;
    /// Opens a part of a blob that is known to be there.
    async fn open(&self, key: &str, range: Range<u64>) -> Result<Content>;

    /// Adds to an upload that stands at `offset` and must not grow beyond `limit`. Returns where it stands then. When the
    /// pieces break off, what came stays and the next call may go on from [`Storage::length`].
    async fn append(&self, upload: &str, offset: u64, pieces: Pieces, limit: u64) -> Result<u64>;
    /// Returns where an upload stands.
    async fn length(&self, upload: &str) -> Result<u64>;
    /// Makes an upload visible under `key`, durably, if its bytes have the digest; the upload is gone afterwards, also on
    /// [`Error::WrongDigest`]. An object that is there already stays.
    async fn commit(&self, upload: &str, digest: &Digest, key: &str) -> Result<u64>;
    /// Forgets an upload and what else is kept below its folder.
    async fn discard(&self, upload: &str) -> Result<()>;

    /// Makes a local file whose bytes were verified visible under `key`. The file is gone afterwards where it was on the
    /// same disk, otherwise the caller's to remove.
    async fn adopt(&self, file: &Path, key: &str) -> Result<()>;

    /// Where files for [`Storage::adopt`] are best made.
    fn spool(&self) -> PathBuf {
        std::env::temp_dir().join(format!("rorqual-registry-{}", std::process::id()))
    }

    /// Tells whether it can be written to at present.
    async fn probe(&self) -> Result<()> {
        let key = format!("probe/{}", std::process::id());
        self.put(&key, Bytes::from_static(b"ok"), Durability::Volatile).await?;
        self.delete(&key).await
    }
}

/// Opens the storage that a path or URL names.
pub(crate) async fn open(location: &str) -> Result<Arc<dyn Storage>> {
    match location.split_once("://") {
        None => Ok(Arc::new(disk::Disk::open(Path::new(location)).await?)),
        Some(("file", path)) => Ok(Arc::new(disk::Disk::open(Path::new(path)).await?)),
        Some(_) => Ok(Arc::new(cloud::Cloud::open(location)?)),
    }
}

/// Lists a whole folder, page by page.
pub(crate) async fn list_all(storage: &dyn Storage, folder: &str) -> Result<Vec<Entry>> {
    // LIMIT: what object stores give at once.
    const PAGE: usize = 1000;
    let mut all: Vec<Entry> = Vec::new();
    loop {
        let after = all.last().map(|entry| entry.name.clone());
        let page = storage.list(folder, after.as_deref(), PAGE).await?;
        let is_last = page.len() < PAGE;
        all.extend(page);
        if is_last {
            return Ok(all);
        }
    }
}

/// The failure of an upload that grows beyond its bound.
pub(crate) fn too_large(limit: u64) -> Error {
    Error::refused(
        crate::error::Code::SizeInvalid,
        format!("the blob is larger than {limit} bytes, the limit of this registry"),
    )
}

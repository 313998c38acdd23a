//! Blobs by digest. An ingest is invisible until it is committed under a digest that its bytes have.

use std::io::{Read, Write};
use std::sync::Arc;

use async_trait::async_trait;
use rorqual_core::Digest;

use crate::Error;

/// Keeps new blobs from being collected until a record refers to them; dropping it ends that.
pub trait Lease: Send + Sync {}

/// Bytes that are read at any place, also while more are written behind them.
pub trait ReadAt: Send + Sync {
    /// Reads what is there from `at` on, at most what fits; nothing at the end.
    fn read_at(&self, into: &mut [u8], at: u64) -> std::io::Result<usize>;
}

/// An unfinished blob. Dropping it without a commit discards the bytes.
pub trait Ingest: Write + Send {
    /// Opens the bytes for reading while they are written; a commit does not end it. Nobody has verified them.
    fn reader(&self) -> Result<Arc<dyn ReadAt>, Error>;
    /// Returns the digest of the bytes so far.
    fn digest(&self) -> Digest;
    /// Makes the bytes visible under their digest; fails and discards them when `expected` is another. Idempotent: a blob
    /// that is there already stays.
    fn commit(self: Box<Self>, expected: Option<&Digest>) -> Result<(Digest, u64), Error>;
}

/// The blobs of one data root.
#[async_trait]
pub trait Blobs: Send + Sync + 'static {
    /// Begins a new blob; blocking writes, for use on a blocking thread. `limit` bounds its size in bytes.
    fn ingest(&self, limit: u64) -> Result<Box<dyn Ingest>, Error>;
    /// Opens a blob for reading; the end of one that was damaged on disk is a failure.
    fn open(&self, digest: &Digest) -> Result<Box<dyn Read + Send>, Error>;
    /// Returns a blob's size in bytes, `None` when it is missing.
    fn size(&self, digest: &Digest) -> Result<Option<u64>, Error>;
    /// Reads a small blob whole, verified; fails beyond `limit` bytes.
    fn read(&self, digest: &Digest, limit: u64) -> Result<Vec<u8>, Error>;
    /// Keeps collection away from everything committed while the lease lives.
    fn lease(&self) -> Arc<dyn Lease>;
    /// Lists what `roots` lead to, themselves included, whether it is here or not.
    async fn reach(&self, roots: Vec<Digest>) -> Result<Vec<Digest>, Error>;
    /// Removes every blob that `roots` and what they refer to do not reach and no lease protects; returns bytes freed.
    async fn collect(&self, roots: Vec<Digest>) -> Result<u64, Error>;
    /// Removes one blob though something may refer to it: what it leads to is no longer reached. False when it is not here.
    async fn forget(&self, digest: &Digest) -> Result<bool, Error>;
    /// Sum of all blobs' sizes, bytes.
    async fn disk_usage(&self) -> Result<u64, Error>;
}

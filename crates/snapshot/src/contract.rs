//! The snapshotter contract.
//!
//! Importing: [`Snapshotter::apply`] unpacks one layer's tar, whatever other layers are there (layers are keyed by their
//! own DiffID and independent of each other, so they are applied in parallel), and makes it visible by a rename once its
//! digest has been verified. Running: [`Snapshotter::prepare`] makes the writable part for a container over a list of
//! layers, [`Snapshotter::rootfs`] says how to mount it. Committing: [`Snapshotter::diff`] turns the writable part into a
//! new layer's tar. Whatever no record refers to is removed with [`Snapshotter::retain`].
//!
//! Paths inside a snapshot are resolved with `openat2(2)` and `RESOLVE_IN_ROOT`, so nothing in an image can lead outside.

use std::io::{Read, Write};
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use rorqual_core::mount::RootfsPlan;
use rorqual_core::{ContainerId, DiffId, Timestamp};
use serde::{Deserialize, Serialize};

use crate::Error;

/// Bytes of a layer's tar, as they come: plain, gzip or zstd (told by their first bytes).
pub type LayerBlob = Box<dyn Read + Send>;

/// A layer to unpack.
pub struct LayerSource {
    /// Compressed or plain tar.
    pub blob: LayerBlob,
    /// The promised digest of the plain tar; `None` to accept what comes (`import`).
    pub expected: Option<DiffId>,
}

/// What is known of a layer on disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerInfo {
    /// Its identity.
    pub diff_id: DiffId,
    /// Sum of file sizes in bytes, as Docker counts an image's size.
    pub size: u64,
    /// Bytes on disk (`st_blocks`), counted once per inode.
    pub disk: u64,
    /// Bytes of its plain tar, as its descriptor in a manifest says.
    pub tar: u64,
}

/// A writable snapshot to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotRequest {
    /// For which container.
    pub container: ContainerId,
    /// Layers, bottom first.
    pub layers: Vec<DiffId>,
    /// Bound in bytes on the writable part, where the file system has project quotas.
    pub size: Option<u64>,
}

/// What a snapshot occupies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Sum of file sizes of the writable part, bytes.
    pub writable: u64,
    /// Sum of the sizes of the layers below, bytes.
    pub layers: u64,
}

/// Kind of a difference, numbered as on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ChangeKind {
    /// 0
    Modified = 0,
    /// 1
    Added = 1,
    /// 2
    Deleted = 2,
}

/// A difference between a container and its image.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Change {
    /// Absolute path inside the container.
    pub path: String,
    /// What happened to it.
    pub kind: ChangeKind,
}

/// Layers and snapshots on one data root.
#[async_trait]
pub trait Snapshotter: Send + Sync + 'static {
    /// Finds a layer.
    async fn find_layer(&self, layer: &DiffId) -> Result<Option<LayerInfo>, Error>;
    /// Unpacks a layer; two callers with the same digest share the work.
    async fn apply(&self, source: LayerSource) -> Result<LayerInfo, Error>;
    /// Makes the writable snapshot of a container and its directory.
    async fn prepare(&self, request: SnapshotRequest) -> Result<(), Error>;
    /// Says how to mount a container's root file system.
    async fn rootfs(&self, container: &ContainerId) -> Result<RootfsPlan, Error>;
    /// Removes a container's directory with all that is in it; a missing one is fine.
    async fn remove(&self, container: &ContainerId) -> Result<(), Error>;
    /// Measures a snapshot.
    async fn usage(&self, container: &ContainerId) -> Result<Usage, Error>;
    /// Lists what a container changed, sorted by path.
    async fn changes(&self, container: &ContainerId) -> Result<Vec<Change>, Error>;
    /// Makes a layer of what a container changed: stores it under its DiffID and writes the plain tar to `sink`.
    async fn diff(
        &self,
        container: &ContainerId,
        sink: Box<dyn Write + Send>,
    ) -> Result<LayerInfo, Error>;
    /// Writes a layer's plain tar again, byte for byte as its DiffID demands.
    async fn layer_tar(&self, layer: &DiffId, sink: Box<dyn Write + Send>) -> Result<(), Error>;
    /// Opens a container's file system; `pid` of its init while it runs, so that mounts are seen.
    async fn open(&self, container: &ContainerId, pid: Option<i32>)
    -> Result<Arc<dyn Tree>, Error>;
    /// Opens a read-only view of layers (bottom first).
    async fn view(&self, layers: &[DiffId]) -> Result<Arc<dyn Tree>, Error>;
    /// Removes container directories that are not listed, and layers that are neither listed nor below a listed container;
    /// returns the bytes freed.
    async fn retain(&self, layers: &[DiffId], containers: &[ContainerId]) -> Result<u64, Error>;
    /// Returns the trees of layers (given bottom first), the top one first, as an overlay takes them.
    fn layer_trees(&self, layers: &[DiffId]) -> Vec<PathBuf>;
    /// Returns the directory that holds a container's own files (`log`, `hosts`, …).
    fn container_dir(&self, container: &ContainerId) -> PathBuf;
}

/// What `HEAD /containers/ID/archive` tells of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArchiveStat {
    /// Base name.
    pub name: String,
    /// Size in bytes.
    pub size: u64,
    /// `st_mode`
    pub mode: u32,
    /// Modification time.
    pub mtime: Timestamp,
    /// Where a symbolic link leads inside the root; empty otherwise.
    pub link_target: String,
}

/// How to extract into a container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extract {
    /// Refuse to replace a directory by something else and the reverse.
    pub no_overwrite_dir_non_dir: bool,
    /// Keep the archive's owners; otherwise root.
    pub copy_uid_gid: bool,
    /// Refuse to write: the root is mounted read-only.
    pub read_only: bool,
}

/// A tar stream out of a container, produced while it is read.
pub type Archive = Box<dyn Read + Send>;

/// A container's or image's file system, reached by descriptor.
#[async_trait]
pub trait Tree: Send + Sync + 'static {
    /// Describes a path, without following a final link.
    async fn stat(&self, path: &str) -> Result<ArchiveStat, Error>;
    /// Opens a tar of a path (a directory with its own name in front), for `cp` out; `/.` at the end leaves it out.
    async fn archive(&self, path: &str) -> Result<Archive, Error>;
    /// Opens a tar of the whole root, for `export`.
    async fn export(&self) -> Result<Archive, Error>;
    /// Extracts a tar (plain, gzip, zstd, bzip2, xz told by their first bytes) into an existing directory.
    async fn extract(&self, path: &str, archive: LayerBlob, how: Extract) -> Result<(), Error>;
    /// Reads a small file; `None` when it is missing; fails beyond `limit` bytes.
    async fn read(&self, path: &str, limit: u64) -> Result<Option<Vec<u8>>, Error>;
    /// Copies a directory's content with owners, modes, times and extended attributes to an empty directory on the host;
    /// a missing or empty source copies nothing. For volumes at their first use.
    async fn copy_out(&self, path: &str, host_dir: PathBuf) -> Result<(), Error>;
}

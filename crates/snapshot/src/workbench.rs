//! The contract of changing files without a program that does it: what builders copy, make and remove.
//!
//! Work happens in a snapshot made by [`Snapshotter::prepare`](crate::Snapshotter::prepare): [`Workbench::edit`] changes
//! it, [`Workbench::commit`] turns it into a layer without writing its files a second time. All paths are resolved inside
//! their roots, sources too; what changes meanwhile may give a wrong copy, never one from elsewhere.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use rorqual_core::mount::OverlayPlan;
use rorqual_core::{ContainerId, DiffId, Digest};

use crate::{Archive, Error, LayerBlob, LayerInfo};

/// Files to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileTree {
    /// Layers over each other, bottom first; none is the empty file system.
    Layers(Vec<DiffId>),
    /// A directory of the host, whose path is trusted.
    Directory(PathBuf),
}

/// Tells which paths are meant, among those that a selection picks. Paths are relative to what was picked.
pub trait PathFilter: Send + Sync {
    /// Tells whether a path is meant.
    fn wants(&self, path: &str) -> bool;
    /// Tells whether something below a directory that is not meant itself could be.
    fn may_want_below(&self, directory: &str) -> bool;
}

/// Picks files of a tree.
#[derive(Clone)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a switch of its own, as build definitions have them"
)]
pub struct Selection {
    /// Absolute path, perhaps with wildcards; `/./` in it marks where the kept part begins, for [`Self::parents`].
    pub source: String,
    /// `*`, `?` and `[…]` mean something.
    pub wildcard: bool,
    /// A wildcard may match nothing.
    pub allow_empty: bool,
    /// Follow a symbolic link that `source` itself is.
    pub follow: bool,
    /// Keep the directories above what was picked.
    pub parents: bool,
    /// Only part of it.
    pub filter: Option<Arc<dyn PathFilter>>,
    /// Owners matter.
    pub owners: bool,
}

/// Whose a new file is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    /// As in the source; root for what has none.
    Keep,
    /// `user[:group]`, names looked up in the tree that is changed.
    Named(String),
    /// Numbers.
    Ids(u32, u32),
}

/// A copy.
#[derive(Clone)]
pub struct CopyEdit {
    /// From where.
    pub from: FileTree,
    /// What.
    pub selection: Selection,
    /// Absolute path; a `/` at the end means a directory.
    pub target: String,
    /// Whose.
    pub owner: Owner,
    /// Permissions: octal, or symbolic as chmod(1) takes them.
    pub mode: Option<String>,
    /// Copy what a directory holds, not the directory.
    pub contents_only: bool,
    /// Unpack archives (told by their content).
    pub unpack: bool,
    /// Make the target's missing parents.
    pub make_parents: bool,
    /// A name in the way of another kind is replaced.
    pub replace: bool,
    /// Time of what is made, seconds since the epoch.
    pub created: Option<i64>,
}

/// A change of files.
#[derive(Clone)]
pub enum Edit {
    /// Copies from another tree.
    Copy(Box<CopyEdit>),
    /// Writes a file, in place of an older one.
    MakeFile {
        /// Absolute path.
        path: String,
        /// Content.
        data: Vec<u8>,
        /// Permission bits.
        mode: u32,
        /// Whose.
        owner: Owner,
        /// Its time, seconds since the epoch.
        created: Option<i64>,
    },
    /// Makes a directory; one that is there stays as it is when `parents` is set.
    MakeDir {
        /// Absolute path.
        path: String,
        /// Permission bits.
        mode: u32,
        /// Its parents too.
        parents: bool,
        /// Whose.
        owner: Owner,
        /// Its time, seconds since the epoch.
        created: Option<i64>,
    },
    /// Makes a symbolic link.
    Symlink {
        /// What it says.
        old: String,
        /// Absolute path.
        new: String,
        /// Whose.
        owner: Owner,
        /// Its time, seconds since the epoch.
        created: Option<i64>,
    },
    /// Removes.
    Remove {
        /// Absolute path, perhaps with wildcards.
        path: String,
        /// It may be missing.
        allow_missing: bool,
        /// `*`, `?`, `[…]` mean something.
        wildcard: bool,
    },
    /// Removes what was made only to mount something there: each path, if it is an empty directory or file.
    Prune {
        /// Absolute paths, deepest first.
        paths: Vec<String>,
    },
}

/// What a selection holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contents {
    /// Digest of names, kinds, permissions and bytes; without times.
    pub digest: Digest,
    /// The same of each entry, shortened, by path; empty beyond a bound.
    pub entries: Vec<(String, u64)>,
}

/// What can be mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mountable {
    /// A directory made of layers.
    Layers(OverlayPlan),
    /// A file of one layer.
    File(PathBuf),
}

/// An entry of a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TreeStat {
    /// Last name.
    pub name: String,
    /// `st_mode`
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Bytes.
    pub size: u64,
    /// Modification time, nanoseconds since the epoch.
    pub mtime: i64,
    /// Target of a symbolic link.
    pub link: String,
}

/// Changes files in snapshots and looks into trees.
#[async_trait]
pub trait Workbench: Send + Sync + 'static {
    /// Applies changes in order. After a failure the snapshot is good for nothing but removal.
    async fn edit(&self, snapshot: &ContainerId, edits: Vec<Edit>) -> Result<(), Error>;
    /// Makes a layer of what was changed in a snapshot, and removes the snapshot. No program may run in it any more.
    async fn commit(&self, snapshot: &ContainerId) -> Result<LayerInfo, Error>;
    /// Lists those of `paths` (absolute) that a tree lacks, with the missing directories above them, deepest first.
    async fn missing(&self, tree: &FileTree, paths: Vec<String>) -> Result<Vec<String>, Error>;
    /// Takes the digest of what a selection picks.
    async fn contents(&self, tree: &FileTree, selection: Selection) -> Result<Contents, Error>;
    /// Describes a path, without following a final link; `None` when it is missing.
    async fn stat(&self, tree: &FileTree, path: &str) -> Result<Option<TreeStat>, Error>;
    /// Lists a directory, sorted by name.
    async fn list(&self, tree: &FileTree, path: &str) -> Result<Vec<TreeStat>, Error>;
    /// Reads a file; `None` when it is missing; fails beyond `limit` bytes.
    async fn read(&self, tree: &FileTree, path: &str, limit: u64)
    -> Result<Option<Vec<u8>>, Error>;
    /// Unpacks an archive (plain or compressed) into a directory of the host, whose path is trusted; nothing of the archive
    /// leads out of it.
    async fn unpack(&self, directory: PathBuf, archive: LayerBlob) -> Result<(), Error>;
    /// Opens a tar of the tree, times no later than `latest` (seconds since the epoch) where it is given.
    async fn archive(&self, tree: &FileTree, latest: Option<i64>) -> Result<Archive, Error>;
    /// Makes a layer that differs from another in this: no time in it is later than `latest` (seconds since the epoch). One
    /// without later times is its own result.
    async fn no_later_than(&self, layer: &DiffId, latest: i64) -> Result<LayerInfo, Error>;
    /// Says how to mount what a tree has at a path for reading: the file system, or the one file. `None` when it is
    /// missing.
    async fn mountable(&self, tree: &FileTree, path: &str) -> Result<Option<Mountable>, Error>;
}

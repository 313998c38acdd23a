//! Layered file systems: layers by DiffID, one writable snapshot per container, archives in and out of them.
//!
//! Mounts nothing for containers: it returns mount plans, and the runtime performs them.

mod base;
mod bench;
mod commit;
mod compare;
mod contract;
mod decompress;
mod edit;
mod entry_path;
mod error;
#[cfg(any(test, feature = "fake"))]
pub mod fake;
mod feed;
mod host_dir;
mod layer;
mod listing;
mod mount;
mod overlay;
mod pack;
mod remapped;
mod select;
mod skeleton;
#[cfg(any(test, feature = "fake"))]
pub mod suite;
mod sync;
pub mod tar;
mod tree;
mod unpack;
mod whiteout;
mod workbench;

pub use contract::{
    Archive, ArchiveStat, Change, ChangeKind, Extract, LayerBlob, LayerInfo, LayerSource,
    SnapshotRequest, Snapshotter, Tree, Usage,
};
pub use decompress::{Compression, decompress, detect};
pub use error::Error;
pub use host_dir::HostDir;
pub use layer::Options;
pub use overlay::Overlay;
pub use select::{Listing, Node, Pick, contents, pick, resolve};
pub use workbench::{
    Contents, CopyEdit, Edit, FileTree, Mountable, Owner, PathFilter, Selection, TreeStat,
    Workbench,
};

#[cfg(test)]
mod tests;

//! Layered file systems: layers by DiffID, one writable snapshot per container, archives in and out of them.
//!
//! Mounts nothing for containers: it returns mount plans, and the runtime performs them.

mod base;
mod commit;
mod compare;
mod contract;
mod decompress;
mod entry_path;
mod error;
#[cfg(any(test, feature = "fake"))]
pub mod fake;
mod feed;
mod layer;
mod mount;
mod overlay;
mod pack;
mod skeleton;
#[cfg(any(test, feature = "fake"))]
pub mod suite;
mod sync;
pub mod tar;
mod tree;
mod unpack;
mod whiteout;

pub use contract::{
    Archive, ArchiveStat, Change, ChangeKind, Extract, LayerBlob, LayerInfo, LayerSource,
    SnapshotRequest, Snapshotter, Tree, Usage,
};
pub use decompress::{Compression, decompress, detect};
pub use error::Error;
pub use layer::Options;
pub use overlay::Overlay;

#[cfg(test)]
mod tests;

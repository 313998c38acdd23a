//! The protocol that moves directories between client and daemon.
//!
//! The sender walks its tree depth first, sorted by name component, and announces every entry; the receiver asks by number
//! for the files whose content it needs; their bytes come in pieces, several files at a time; an empty piece ends a file. An
//! announcement without an entry ends the walk; the receiver says that it is done, and the sender confirms.

mod batch;
mod local;
mod mode;
mod order;
mod receive;
mod send;
mod write;

pub(crate) use batch::{Batch, hand_on, queue, stream};
pub(crate) use local::{LocalTree, Selection};
pub(crate) use receive::{Received, Receiver};
pub(crate) use send::serve_tree;
pub use send::{SourceFile, SourceTree};
pub(crate) use write::DirectorySink;

use rorqual_build::TreeEntry;

use crate::wire::Stat;

fn entry_of(stat: Stat) -> TreeEntry {
    TreeEntry {
        path: stat.path,
        mode: mode::to_unix(stat.mode),
        uid: stat.uid,
        gid: stat.gid,
        size: u64::try_from(stat.size).unwrap_or_default(),
        mtime: stat.mod_time,
        link: stat.linkname,
        device: (device_part(stat.devmajor), device_part(stat.devminor)),
        xattrs: stat.xattrs.into_iter().collect(),
    }
}

/// The wire form of an entry, as file-system calls of the frontend interface return it, too.
pub(crate) fn stat_of(entry: TreeEntry) -> Stat {
    Stat {
        path: entry.path,
        mode: mode::to_wire(entry.mode),
        uid: entry.uid,
        gid: entry.gid,
        size: i64::try_from(entry.size).unwrap_or(i64::MAX),
        mod_time: entry.mtime,
        linkname: entry.link,
        devmajor: i64::from(entry.device.0),
        devminor: i64::from(entry.device.1),
        xattrs: entry.xattrs.into_iter().collect(),
    }
}

fn device_part(number: i64) -> u32 {
    u32::try_from(number).unwrap_or_default()
}

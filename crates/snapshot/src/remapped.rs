//! Files of a running container whose users are not the host's: outside they are seen with the host's ids.
//!
//! What lies on the disk has the container's own ids and needs none of this.

use std::io;

use rorqual_core::idmap::{IdMap, IdMaps};
use rorqual_sys::userns;

use crate::tar::Entry;

/// The id that stands for users who have no other.
const NOBODY: u32 = 65534;

const CAPABILITY: &[u8] = b"security.capability";
const ACL_PREFIX: &[u8] = b"system.posix_acl_";
/// Second revision of the kernel's format: for the root of the file system's user namespace.
const CAPABILITY_2: (u32, usize) = (0x0200_0000, 20);
/// Third: with the root's id behind.
const CAPABILITY_3: (u32, usize) = (0x0300_0000, 24);
const REVISION_MASK: u32 = 0xff00_0000;

/// Reads who a process' users are on the host; `None` where they are the same.
pub(crate) fn users_of(pid: i32) -> io::Result<Option<IdMaps>> {
    let map = |name: &str| {
        let text = std::fs::read_to_string(format!("/proc/{pid}/{name}"))?;
        IdMap::parse(&text).map_err(io::Error::other)
    };
    let maps = IdMaps { users: map("uid_map")?, groups: map("gid_map")? };
    Ok((!maps.is_identity()).then_some(maps))
}

/// Gives an entry the ids that it has inside.
pub(crate) fn inside(maps: &IdMaps, entry: &mut Entry) {
    entry.uid = maps.users.inside(entry.uid).unwrap_or(NOBODY);
    entry.gid = maps.groups.inside(entry.gid).unwrap_or(NOBODY);
    for (name, value) in &mut entry.xattrs {
        if name == CAPABILITY {
            for_any_root(value, maps);
        } else if name.starts_with(ACL_PREFIX) {
            acl(value, maps, |map, id| Some(map.inside(id).unwrap_or(NOBODY)));
        }
    }
}

/// Gives an entry the ids that it has outside.
///
/// # Errors
///
/// When somebody has no place in the maps.
pub(crate) fn outside(maps: &IdMaps, entry: &mut Entry) -> io::Result<()> {
    let missing = |what: &str, id: u32| {
        let text = format!("{what} {id} has no place in the container's user namespace");
        io::Error::new(io::ErrorKind::InvalidData, text)
    };
    let (uid, gid) = (entry.uid, entry.gid);
    entry.uid = maps.users.outside(uid).ok_or_else(|| missing("user", uid))?;
    entry.gid = maps.groups.outside(gid).ok_or_else(|| missing("group", gid))?;
    for (name, value) in &mut entry.xattrs {
        if name == CAPABILITY {
            for_one_root(value, maps);
        } else if name.starts_with(ACL_PREFIX) {
            acl(value, maps, IdMap::outside);
        }
    }
    Ok(())
}

fn word(value: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(value.get(at..at + 4)?.try_into().ok()?))
}

/// Turns capabilities that count for the container's root into such that count for any.
fn for_any_root(value: &mut Vec<u8>, maps: &IdMaps) {
    let (revision, length) = CAPABILITY_3;
    let Some(magic) = word(value, 0).filter(|magic| magic & REVISION_MASK == revision) else {
        return;
    };
    let is_ours = word(value, length - 4).and_then(|root| maps.users.inside(root)) == Some(0);
    if value.len() == length && is_ours {
        value.truncate(CAPABILITY_2.1);
        value[..4].copy_from_slice(&(magic & !REVISION_MASK | CAPABILITY_2.0).to_le_bytes());
    }
}

/// The reverse of [`for_any_root`].
fn for_one_root(value: &mut Vec<u8>, maps: &IdMaps) {
    let (revision, length) = CAPABILITY_2;
    let Some(magic) = word(value, 0).filter(|magic| magic & REVISION_MASK == revision) else {
        return;
    };
    if let Some(root) = maps.users.outside(0).filter(|_| value.len() == length) {
        value[..4].copy_from_slice(&(magic & !REVISION_MASK | CAPABILITY_3.0).to_le_bytes());
        value.extend(root.to_le_bytes());
    }
}

/// Exchanges the ids of an access control list.
fn acl(value: &mut [u8], maps: &IdMaps, exchange: impl Fn(&IdMap, u32) -> Option<u32>) {
    const USER: u8 = 0x02;
    const GROUP: u8 = 0x08;
    const HEADER: usize = 4;
    const ENTRY: usize = 8;
    for entry in value.get_mut(HEADER..).unwrap_or_default().chunks_exact_mut(ENTRY) {
        let map = match entry[0] {
            USER => &maps.users,
            GROUP => &maps.groups,
            _ => continue,
        };
        if let Some(id) = word(entry, 4).and_then(|id| exchange(map, id)) {
            entry[4..].copy_from_slice(&id.to_le_bytes());
        }
    }
}

/// Runs `work` as the container's root, as far as files are concerned: nobody else can make any there.
pub(crate) fn as_root<T: Send>(maps: &IdMaps, work: impl FnOnce() -> T + Send) -> io::Result<T> {
    let (uid, gid) = maps.root().ok_or_else(|| io::Error::other("the container has no root"))?;
    std::thread::scope(|scope| {
        // On a thread of its own, which nobody uses afterwards.
        let thread = scope.spawn(move || userns::access_files_as(uid, gid).map(|()| work()));
        thread.join().unwrap_or_else(|_| Err(io::Error::other("the writing thread panicked")))
    })
}

#[cfg(test)]
mod tests;

//! Entries as they are inside and outside.

use rorqual_core::idmap::{IdMap, IdMaps};

use super::{inside, outside};
use crate::tar::{Entry, Kind};

fn maps() -> IdMaps {
    let map = |text: &str| IdMap::parse(text).unwrap();
    IdMaps { users: map("0 100000 1000"), groups: map("0 200000 1000") }
}

fn entry(uid: u32, gid: u32) -> Entry {
    let mut entry = Entry::new(*b"f", Kind::File, 0o644);
    (entry.uid, entry.gid) = (uid, gid);
    entry
}

#[test]
fn owners() {
    let mut there = entry(100_005, 200_006);
    inside(&maps(), &mut there);
    assert_eq!((there.uid, there.gid), (5, 6));
    outside(&maps(), &mut there).unwrap();
    assert_eq!((there.uid, there.gid), (100_005, 200_006));

    let mut strange = entry(0, 999);
    inside(&maps(), &mut strange);
    assert_eq!((strange.uid, strange.gid), (65534, 65534));
    let error = outside(&maps(), &mut entry(0, 1000)).unwrap_err().to_string();
    assert!(error.contains("group 1000 has no place"), "{error}");
}

#[test]
fn capabilities_of_files() {
    let second = [&0x0200_0001_u32.to_le_bytes()[..], &[7; 16]].concat();
    let third = [&0x0300_0001_u32.to_le_bytes()[..], &[7; 16], &100_000_u32.to_le_bytes()].concat();
    let other = [&0x0300_0001_u32.to_le_bytes()[..], &[7; 16], &100_001_u32.to_le_bytes()].concat();
    let mut file = entry(0, 0);
    file.xattrs = vec![(b"security.capability".to_vec(), second.clone())];
    outside(&maps(), &mut file).unwrap();
    assert_eq!(file.xattrs[0].1, third);
    inside(&maps(), &mut file);
    assert_eq!(file.xattrs[0].1, second);
    for odd in [other, Vec::new(), vec![1, 2, 3], vec![0; 24]] {
        file.xattrs[0].1.clone_from(&odd);
        inside(&maps(), &mut file);
        assert_eq!(file.xattrs[0].1, odd);
    }
}

#[test]
fn access_control_lists() {
    let list = |user: u32, group: u32| {
        let entry = |tag: u16, id: u32| {
            [&tag.to_le_bytes()[..], &6_u16.to_le_bytes(), &id.to_le_bytes()].concat()
        };
        let all = [entry(1, u32::MAX), entry(2, user), entry(8, group), entry(0x20, u32::MAX)];
        [&2_u32.to_le_bytes()[..], &all.concat()].concat()
    };
    let mut file = entry(0, 0);
    file.xattrs = vec![(b"system.posix_acl_access".to_vec(), list(3, 4))];
    outside(&maps(), &mut file).unwrap();
    assert_eq!(file.xattrs[0].1, list(100_003, 200_004));
    inside(&maps(), &mut file);
    assert_eq!(file.xattrs[0].1, list(3, 4));
}

//! Damaged archives, made by chance from a fixed seed: whatever comes, nothing panics, nothing gets out, nothing half
//! made stays, and what is taken can be written again byte for byte.

use std::io::{Read, Write};

use rorqual_core::DiffId;
use rorqual_snapshot::tar::{Entry, Extent, Kind, Writer};
use rorqual_snapshot::{Error, Snapshotter};

use crate::layers::{Buffer, leftovers};
use crate::world::{World, tar};

/// LIMIT: archives per run; some seconds in all. `RORQUAL_MUTATIONS` asks for more.
const ROUNDS: u64 = 400;

/// Numbers that look random and are the same every time (xorshift).
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }
}

/// An archive with an entry of every kind and names that later entries touch again.
fn seed() -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    let plain = tar(&[
        ("a", "first"),
        ("d/", ""),
        ("d/x", "inside"),
        ("d/y", "=> a"),
        ("up", "-> ../../../.."),
        ("l", "-> d"),
        ("l/z", "through a link"),
        ("a", "second"),
        (".wh.b", ""),
        ("d/.wh..wh..opq", ""),
        (&"n".repeat(180), "long"),
        ("e", ""),
    ]);
    writer.sink().write_all(&plain[..plain.len() - 1024]).unwrap();
    for kind in [Kind::CharDevice, Kind::BlockDevice, Kind::Fifo] {
        let mut entry = Entry::new(format!("dev/{kind:?}"), kind, 0o6777);
        entry.device = (1, 3);
        entry.mtime = (-5, 999_999_999);
        writer.header(&entry).unwrap();
    }
    let mut entry = Entry::new(&b"n\xff\xfe"[..], Kind::File, 0o4755);
    entry.xattrs = vec![
        (b"user.one".to_vec(), b"1".to_vec()),
        (b"trusted.overlay.redirect".to_vec(), b"/".to_vec()),
        (
            b"security.capability".to_vec(),
            b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0".to_vec(),
        ),
    ];
    entry.mtime = (1 << 40, 1);
    writer.file(entry, b"attributes").unwrap();
    writer.finish().unwrap()
}

/// Makes the sums of all headers right again, so that damage gets past them.
fn mend(bytes: &mut [u8]) {
    for block in bytes.chunks_exact_mut(512) {
        if &block[257..262] != b"ustar" {
            continue;
        }
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    }
}

fn damage(bytes: &mut Vec<u8>, chance: &mut Chance) {
    for _ in 0..=chance.below(3) {
        let blocks = bytes.len() / 512;
        let at = chance.below(blocks) * 512;
        match chance.below(7) {
            0 => bytes.truncate(chance.below(bytes.len())),
            1 => drop(bytes.splice(at..at, bytes[at..at + 512].to_vec())),
            2 => drop(bytes.drain(at..at + 512)),
            3 => {
                let from = chance.below(blocks) * 512;
                bytes.copy_within(from..from + 512, at);
            }
            // The kind of an entry.
            4 => bytes[at + 156] = b"0123456gxLKS7D"[chance.below(14)],
            // A name or a link takes another's place.
            5 => {
                let from = chance.below(blocks) * 512 + [0, 157][chance.below(2)];
                bytes.copy_within(from..from + 100, at + [0, 157][chance.below(2)]);
            }
            _ => {
                let spot = chance.below(bytes.len());
                bytes[spot] = chance.next() as u8;
            }
        }
        if bytes.len() < 1024 {
            return;
        }
    }
}

#[tokio::test]
async fn chance_finds_nothing() {
    let world = World::new();
    std::fs::write(world.temp.path().join("victim"), "untouched").unwrap();
    let rounds = std::env::var("RORQUAL_MUTATIONS").ok().and_then(|text| text.parse().ok());
    let (seed, mut chance) = (seed(), Chance(0x5eed));
    let (mut taken, mut refused) = (0, 0);
    for round in 0..rounds.unwrap_or(ROUNDS) {
        let mut bytes = seed.clone();
        damage(&mut bytes, &mut chance);
        if chance.below(4) > 0 {
            mend(&mut bytes);
        }
        match world.apply(bytes.clone()).await {
            Ok(info) => {
                taken += 1;
                let buffer = Buffer::default();
                world.overlay.layer_tar(&info.diff_id, Box::new(buffer.clone())).await.unwrap();
                assert!(buffer.bytes() == bytes, "round {round} is not written as it was");
                world.overlay.retain(&[], &[]).await.unwrap();
            }
            Err(Error::InvalidArchive(_)) => refused += 1,
            Err(error) => panic!("round {round}: {error:?}"),
        }
        assert_eq!(leftovers(&world), [""; 0], "round {round}");
    }
    assert!(taken > 50 && refused > 50, "{taken} taken, {refused} refused");
    assert_eq!(std::fs::read_to_string(world.temp.path().join("victim")).unwrap(), "untouched");
}

#[tokio::test]
async fn names_that_are_used_again_in_all_ways() {
    let world = World::new();
    let cases: &[&[(&str, &str)]] = &[
        // Two names of one file, both replaced.
        &[("a", "1"), ("b", "=> a"), ("a", "2"), ("b", "3")],
        &[("a", "1"), ("b", "=> a"), ("b", "-> a"), ("a", "-> b")],
        &[("d/a", "1"), ("d/b", "=> d/a"), ("d", "2")],
        &[("a", "1"), ("b", "=> a"), ("b", "=> a"), ("a", "=> b")],
        // Through a link that later leads elsewhere.
        &[("d/", ""), ("l", "-> d"), ("l/x", "1"), ("e/", ""), ("e/x", "2"), ("l", "-> e")],
        &[("d/e/", ""), ("l", "-> d"), ("l/m", "-> e"), ("d/m/x", "1"), ("d/m", "now a file")],
        // Whiteouts of what the layer has itself, in odd places.
        &[("d/x", "1"), (".wh.d", ""), ("d/y", "2")],
        &[(".wh.d", ""), ("d/x", "1"), (".wh.d", "")],
        &[(".wh..wh..opq", ""), (".wh..wh.plnk", ""), ("x", "1")],
        &[("a", "1"), (".wh.a", "not empty"), ("a", "2")],
    ];
    for files in cases {
        let bytes = tar(files);
        let info = world.apply(bytes.clone()).await.unwrap_or_else(|e| panic!("{files:?}: {e:?}"));
        let buffer = Buffer::default();
        let again = world.overlay.layer_tar(&info.diff_id, Box::new(buffer.clone())).await;
        again.unwrap_or_else(|error| panic!("{files:?}: {error:?}"));
        assert!(buffer.bytes() == bytes, "{files:?}");
    }
}

async fn refused(world: &World, tar: Vec<u8>) -> String {
    let error = world.apply(tar).await.unwrap_err();
    assert!(matches!(error, Error::InvalidArchive(_)), "{error:?}");
    assert_eq!(leftovers(world), [""; 0]);
    error.to_string()
}

#[tokio::test]
async fn bombs_are_refused_and_leave_nothing() {
    let world = World::new();
    // A sparse file of an exabyte that holds nothing.
    let mut bytes = tar(&[("bomb", "")]);
    bytes[156] = b'S';
    bytes[257..265].copy_from_slice(b"ustar  \0");
    bytes[483..495].copy_from_slice(&[0x80, 0, 0, 0, 0x10, 0, 0, 0, 0, 0, 0, 0]);
    mend(&mut bytes);
    assert!(refused(&world, bytes).await.contains("unpacks to more than"));
    // Directories to no end: one name is as long as the kernel takes, the whole is longer.
    let deep = "d/".repeat(3000);
    refused(&world, tar(&[(&deep, "")])).await;
    // An extension header larger than any that means well.
    let mut bytes = tar(&[("x", "y")]);
    bytes[156] = b'x';
    bytes[124..136].copy_from_slice(b"00100000000\0");
    mend(&mut bytes);
    assert!(refused(&world, bytes).await.contains("too large"));
    // A gibibyte of zeros behind the end mark, packed a thousand times.
    let zeros = || std::io::repeat(0).take(1 << 30);
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
    std::io::copy(&mut zeros(), &mut encoder).unwrap();
    let packed = encoder.finish().unwrap();
    assert!(packed.len() < 1 << 20);
    assert!(refused(&world, packed).await.contains("behind the end mark"));
}

#[tokio::test]
async fn sparse_maps_must_fit() {
    // Extents that overlap, or lie behind the end, are the archive's fault.
    let world = World::new();
    for extents in [
        vec![Extent { offset: 10, len: 5 }, Extent { offset: 12, len: 5 }],
        vec![Extent { offset: 1 << 50, len: 10 }],
    ] {
        let mut bytes = tar(&[("sparse", &"x".repeat(10))]);
        bytes[156] = b'S';
        bytes[257..265].copy_from_slice(b"ustar  \0");
        for (at, extent) in extents.iter().enumerate() {
            let field = 386 + at * 24;
            let offset = format!("{:011o}\0", extent.offset.min(0o77_777_777_777));
            bytes[field..field + 12].copy_from_slice(offset.as_bytes());
            bytes[field + 12..field + 24]
                .copy_from_slice(format!("{:011o}\0", extent.len).as_bytes());
        }
        bytes[483..495].copy_from_slice(b"00000000100\0");
        mend(&mut bytes);
        assert!(refused(&world, bytes).await.contains("sparse map"));
    }
}

#[tokio::test]
async fn what_is_set_on_files_is_bounded_by_what_they_are() {
    use std::os::unix::fs::MetadataExt;
    let world = World::new();
    let id: DiffId = world.apply(seed()).await.unwrap().diff_id;
    let tree = world.tree(&id);
    let name = std::ffi::OsStr::new("n\u{fffd}\u{fffd}");
    let found = std::fs::read_dir(&tree).unwrap().map(|entry| entry.unwrap().file_name());
    let odd = found.filter(|found| found.to_string_lossy() == name.to_string_lossy());
    let path = tree.join(odd.last().unwrap());
    let meta = std::fs::metadata(&path).unwrap();
    assert_eq!(meta.mode() & 0o7777, 0o4755);
    let file = std::fs::File::open(&path).unwrap();
    let mut names = vec![0; 1024];
    let len = rustix::fs::flistxattr(&file, names.as_mut_slice()).unwrap();
    let names = String::from_utf8_lossy(&names[..len]).into_owned();
    assert!(names.contains("user.one") && names.contains("security.capability"), "{names}");
    assert!(!names.contains("overlay"), "{names}");
}

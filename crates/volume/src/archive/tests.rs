use std::path::Path;

use rorqual_sys::path::Dir;

use super::export::{digests, export};
use super::import::{Base, import};
use super::*;
use crate::progress::Progress;
use crate::tree::entry::{Attribute, Entry, Kind};
use crate::tree::tests::{blank, listing, rich_tree};

fn exported(tree: &Path, have: &ChunkSet) -> Vec<u8> {
    let mut archive = Vec::new();
    let header = Header { volume: "v".to_owned(), ..Header::default() };
    export(&Dir::open(tree).unwrap(), &header, have, &mut archive, &Progress::default()).unwrap();
    archive
}

fn imported(archive: &[u8], base: Option<&Path>) -> Result<tempfile::TempDir, Error> {
    let target = tempfile::tempdir().unwrap();
    let learn = |path| Base::learn(&Dir::open(path).unwrap(), &Progress::default()).unwrap();
    let base = base.map(learn);
    let dir = Dir::open(target.path()).unwrap();
    import(&dir, archive, base.as_ref(), &Progress::default())?;
    Ok(target)
}

fn refusal(archive: &[u8]) -> String {
    imported(archive, None).map(drop).unwrap_err().to_string()
}

#[test]
fn what_comes_out_is_what_went_in() {
    let tree = tempfile::tempdir().unwrap();
    rich_tree(tree.path());
    let archive = exported(tree.path(), &ChunkSet::default());
    assert!(archive.len() < 5_000_000, "holes are not written: {}", archive.len());
    let copy = imported(&archive, None).unwrap();
    assert_eq!(listing(tree.path()), listing(copy.path()));
}

#[test]
fn an_incremental_archive_has_only_what_is_new() {
    let tree = tempfile::tempdir().unwrap();
    rich_tree(tree.path());
    let first = imported(&exported(tree.path(), &ChunkSet::default()), None).unwrap();
    let have = digests(&Dir::open(first.path()).unwrap(), &Progress::default()).unwrap();
    // A page of the large file, and a new name for an old content.
    let file = std::fs::File::options().write(true).open(tree.path().join("big")).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"changed", 1_500_000).unwrap();
    std::fs::rename(tree.path().join("sparse"), tree.path().join("moved")).unwrap();
    std::fs::remove_file(tree.path().join("empty")).unwrap();
    let archive = exported(tree.path(), &have);
    assert!(archive.len() < 1_200_000, "one chunk and the entries: {}", archive.len());
    let second = imported(&archive, Some(first.path())).unwrap();
    assert_eq!(listing(tree.path()), listing(second.path()));

    assert!(refusal(&archive).contains("name the volume that holds the earlier state"));
    let empty = tempfile::tempdir().unwrap();
    let error = imported(&archive, Some(empty.path())).map(drop).unwrap_err().to_string();
    assert!(error.contains("which the base volume does not have"), "{error}");
    assert_eq!(ChunkSet::parse(&have.text()).unwrap(), have);
    assert!(ChunkSet::parse("12\n").is_err());
}

#[test]
fn every_change_of_a_byte_and_every_cut_is_noticed() {
    let tree = tempfile::tempdir().unwrap();
    std::fs::write(tree.path().join("file"), "some content").unwrap();
    std::os::unix::fs::symlink("file", tree.path().join("link")).unwrap();
    let archive = exported(tree.path(), &ChunkSet::default());
    for at in 0..archive.len() {
        assert!(imported(&archive[..at], None).is_err(), "cut at {at}");
        let mut changed = archive.clone();
        changed[at] ^= 0x41;
        assert!(imported(&changed, None).is_err(), "changed at {at}");
    }
    assert!(refusal(&[&archive[..], b"x"].concat()).contains("something follows"));
    assert!(imported(&archive, None).is_ok());
}

/// Seals whatever entries, chunks and trailer.
fn forged(frames: &[(u8, Vec<u8>)]) -> Vec<u8> {
    let mut archive = Vec::new();
    let mut writer = FrameWriter::new(&mut archive).unwrap();
    writer.json(b'H', &Header::default()).unwrap();
    for (kind, payload) in frames {
        writer.frame(*kind, &[payload]).unwrap();
    }
    writer.seal().unwrap();
    archive
}

fn frame(entry: &Entry) -> (u8, Vec<u8>) {
    (b'E', serde_json::to_vec(entry).unwrap())
}

#[test]
fn hostile_archives_are_refused() {
    let root = || frame(&Entry { path: Vec::new(), ..blank("") });
    let file = |path: &str, size| Entry { kind: Kind::File(size), ..blank(path) };
    let chunk = |offset: u64, bytes: &[u8]| {
        let payload = [&offset.to_be_bytes()[..], &digest(bytes), bytes].concat();
        (b'D', payload)
    };
    let link = |to: &str| Entry { kind: Kind::Link(to.into()), ..blank("l") };
    let attribute = Attribute(b"security.selinux".into(), b"x".into());
    let long = "x".repeat(300);
    for (frames, expected) in [
        (vec![frame(&file("a", 0))], "no root directory"),
        (vec![root(), root()], "first entry is not the root"),
        (vec![root(), frame(&file("../a", 0))], "is no path inside a volume"),
        (vec![root(), frame(&file("/etc/passwd", 0))], "is no path inside a volume"),
        (vec![root(), frame(&file("a//b", 0))], "is no path inside a volume"),
        (vec![root(), frame(&file("a/./b", 0))], "is no path inside a volume"),
        (vec![root(), frame(&file(&long, 0))], "is no path inside a volume"),
        (vec![root(), frame(&file("a", 0)), frame(&file("a", 0))], "is in it twice"),
        (vec![root(), frame(&file("a", u64::MAX))], "is too large"),
        (vec![root(), frame(&link("../../etc/passwd"))], "leads out of the volume"),
        (vec![root(), frame(&link("/etc/passwd"))], "leads out of the volume"),
        (vec![root(), chunk(0, b"x")], "a chunk is out of place"),
        (vec![root(), frame(&file("a", 1)), chunk(0, b"xy")], "a chunk is out of place"),
        (vec![root(), frame(&file("a", 9)), chunk(1, b"x")], "a chunk is out of place"),
        (vec![root(), frame(&file("a", 9)), (b'D', vec![0; 50])], "a chunk's digest is wrong"),
        (vec![root(), frame(&file("a", 9)), (b'D', vec![0; 5])], "a frame is too short"),
        (vec![root(), frame(&file("a", 9)), (b'R', vec![0; 44])], "without saying so"),
        (vec![root(), (b'E', b"{}".to_vec())], "missing field"),
        (vec![root(), frame(&Entry { mode: 0o170_000, ..blank("a") })], "impossible mode"),
        (vec![root(), frame(&Entry { xattrs: vec![attribute], ..blank("a") })], "no business"),
        (vec![root(), (b'T', br#"{"entries":7,"bytes":0}"#.to_vec())], "counts something else"),
        (vec![root(), (b'X', Vec::new())], "frame of kind"),
        (vec![(b'T', Vec::new())], "EOF"),
    ] {
        let refusal = refusal(&forged(&frames));
        assert!(refusal.contains(expected), "{expected}: {refusal}");
    }
    let huge = [MAGIC, b"H", &u32::MAX.to_be_bytes()].concat();
    assert!(refusal(&huge).contains("a frame of 4294967295 bytes"));
    assert!(refusal(b"PK\x03\x04 and so on, longer than the magic").contains("begin like one"));
}

#[test]
fn links_of_an_archive_lead_nowhere_else() {
    let outside = tempfile::tempdir().unwrap();
    let target = outside.path().as_os_str().as_encoded_bytes().to_vec();
    let link = Entry { kind: Kind::Symlink(target), ..blank("out") };
    let file = Entry { kind: Kind::File(0), ..blank("out/file") };
    let root = Entry { path: Vec::new(), ..blank("") };
    let archive = forged(&[frame(&root), frame(&link), frame(&file)]);
    assert!(imported(&archive, None).is_err());
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
}

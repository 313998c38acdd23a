use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use super::copy::copy;
use super::entry::{Attribute, Kind, text};
use super::*;
use crate::progress::Progress;

/// Everything that is to survive a copy, one line per entry.
#[derive(Default)]
pub(crate) struct Listing(pub(crate) Vec<String>, Vec<(u64, u64)>);

impl Visitor for Listing {
    fn entry(&mut self, at: Option<(&Dir, &OsStr)>, entry: Entry) -> Result<(), Error> {
        let content = match (&entry.kind, at) {
            (Kind::File(_), Some((dir, name))) => {
                let mut bytes = Vec::new();
                io::Read::read_to_end(&mut dir.open_file(name).unwrap(), &mut bytes).unwrap();
                format!("{:?}", crate::archive::hex(&crate::archive::digest(&bytes)))
            }
            _ => String::new(),
        };
        let inode = entry.inode.map(|inode| {
            self.1.iter().position(|known| *known == inode).unwrap_or_else(|| {
                self.1.push(inode);
                self.1.len() - 1
            })
        });
        let entry = Entry { inode: None, ..entry };
        self.0.push(format!("{entry:?} {inode:?} {content}"));
        Ok(())
    }

    fn leave(&mut self, _entry: Entry) -> Result<(), Error> {
        Ok(())
    }
}

pub(crate) fn listing(path: &Path) -> Vec<String> {
    let mut listing = Listing::default();
    walk(&Dir::open(path).unwrap(), &mut listing).unwrap();
    listing.0
}

/// A tree with something of every kind.
pub(crate) fn rich_tree(root: &Path) {
    let at = |name: &str| root.join(name);
    std::fs::create_dir_all(at("a/b")).unwrap();
    std::fs::write(at("a/file"), "content").unwrap();
    std::fs::hard_link(at("a/file"), at("a/b/again")).unwrap();
    symlink("../../outside", at("a/link")).unwrap();
    std::fs::write(at("empty"), "").unwrap();
    let big: Vec<u8> = (0..3_000_000_u32).map(|n| (n.wrapping_mul(n) >> 7) as u8).collect();
    std::fs::write(at("big"), &big).unwrap();
    let sparse = std::fs::File::create(at("sparse")).unwrap();
    sparse.set_len(64 << 20).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&sparse, b"in the middle", 30 << 20).unwrap();
    std::fs::set_permissions(at("empty"), std::fs::Permissions::from_mode(0o4750)).unwrap();
    std::fs::set_permissions(at("a"), std::fs::Permissions::from_mode(0o1777)).unwrap();
    std::os::unix::fs::chown(at("empty"), Some(1234), Some(4321)).unwrap();
    std::fs::set_permissions(at("empty"), std::fs::Permissions::from_mode(0o4750)).unwrap();
    let dir = Dir::open(root).unwrap();
    let name = OsStr::from_bytes(b"bad\xffname%");
    drop(dir.create(name).unwrap());
    rorqual_sys::xattr::set(dir.handle(name).unwrap(), OsStr::new("user.note"), b"\x00\xff")
        .unwrap();
    Entry { kind: Kind::Fifo, ..blank("pipe") }.make_node(&dir, OsStr::new("pipe")).unwrap();
    Entry { kind: Kind::Socket, ..blank("sock") }.make_node(&dir, OsStr::new("sock")).unwrap();
    let past = rustix::fs::Timespec { tv_sec: 1_000_000_000, tv_nsec: 123_456_789 };
    for name in ["big", "pipe", "a"] {
        dir.set_mtime(OsStr::new(name), past).unwrap();
    }
}

pub(crate) fn blank(path: &str) -> Entry {
    Entry {
        path: path.into(),
        kind: Kind::Directory,
        mode: 0o755,
        uid: 0,
        gid: 0,
        mtime: (0, 0),
        xattrs: Vec::new(),
        inode: None,
    }
}

#[test]
fn a_copy_has_everything_and_its_holes() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    rich_tree(from.path());
    let progress = Progress::default();
    let (source, target) = (Dir::open(from.path()).unwrap(), Dir::open(to.path()).unwrap());
    copy(&source, &target, &progress).unwrap();
    assert_eq!(listing(from.path()), listing(to.path()));
    let sparse = to.path().join("sparse").metadata().unwrap();
    assert!(sparse.blocks() * 512 < 1 << 20, "{} blocks", sparse.blocks());
    assert_eq!(progress.entries(), listing(from.path()).len() as u64);
    assert!(progress.bytes() >= 3_000_000, "{}", progress.bytes());
}

#[test]
fn a_copy_can_be_called_off_and_does_not_fill_what_is_not_empty() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    rich_tree(from.path());
    let progress = Progress::default();
    drop(progress.guard());
    let (source, target) = (Dir::open(from.path()).unwrap(), Dir::open(to.path()).unwrap());
    assert!(matches!(copy(&source, &target, &progress), Err(Error::Cancelled)));
    std::fs::write(to.path().join("big"), "mine").unwrap();
    assert!(matches!(copy(&source, &target, &Progress::default()), Err(Error::Io { .. })));
    assert_eq!(std::fs::read(to.path().join("big")).unwrap(), b"mine");
}

#[test]
fn too_deep_is_said() {
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(root.path().join("d/".repeat(500))).unwrap();
    let walked = walk(&Dir::open(root.path()).unwrap(), &mut Listing::default());
    assert!(walked.unwrap_err().to_string().contains("nested more than 400 deep"));
}

#[test]
fn any_bytes_travel_as_text() {
    for bytes in [&b""[..], b"plain", b"100%", b"\xff\x00%25", "gr\u{fc}n".as_bytes()] {
        assert_eq!(text::decode(&text::encode(bytes)).unwrap(), bytes);
    }
    assert_eq!(text::encode("gr\u{fc}n%".as_bytes()), "gr\u{fc}n%25");
    for bad in ["%", "%2", "%zz", "%+1"] {
        assert_eq!(text::decode(bad), None, "{bad}");
    }
    let entry = Entry { xattrs: vec![Attribute(b"user.x".into(), vec![0, 255])], ..blank("a") };
    let json = serde_json::to_string(&entry).unwrap();
    assert_eq!(serde_json::from_str::<Entry>(&json).unwrap(), entry);
}

use std::io::Cursor;
use std::process::Command;

use proptest::prelude::*;

use super::*;

fn read(bytes: &[u8]) -> std::io::Result<Vec<(Entry, Vec<u8>)>> {
    let mut reader = Reader::new(Cursor::new(bytes));
    let mut all = Vec::new();
    while let Some(entry) = reader.next_entry()? {
        all.push((entry, reader.read_all(1 << 20)?));
    }
    Ok(all)
}

fn entry() -> impl Strategy<Value = Entry> {
    let name = "[a-zé0-9._-]{1,120}(/[a-z0-9]{1,100}){0,3}";
    (
        name,
        "[a-z/é.]{0,300}",
        0_u32..0o10000,
        any::<(u32, u32)>(),
        (-10_i64..1 << 40, 0_u32..1_000_000_000),
        proptest::collection::vec(("user\\.[a-z]{1,9}", any::<Vec<u8>>()), 0..3),
        0_usize..7,
    )
        .prop_map(|(path, link, mode, (uid, gid), mtime, xattrs, kind)| {
            let kinds = [
                Kind::File,
                Kind::HardLink,
                Kind::Symlink,
                Kind::CharDevice,
                Kind::BlockDevice,
                Kind::Directory,
                Kind::Fifo,
            ];
            let mut entry = Entry::new(path, kinds[kind], mode);
            (entry.uid, entry.gid) = (uid.min(u32::MAX - 1), gid.min(u32::MAX - 1));
            entry.mtime = mtime;
            if matches!(entry.kind, Kind::HardLink | Kind::Symlink) {
                entry.link = link.into();
            }
            if matches!(entry.kind, Kind::CharDevice | Kind::BlockDevice) {
                entry.device = (mode, uid % 0o7_777_777);
            }
            entry.xattrs =
                xattrs.into_iter().map(|(name, value)| (name.into_bytes(), value)).collect();
            entry
        })
}

proptest! {
    #[test]
    fn what_is_written_is_read(entries in proptest::collection::vec(entry(), 0..5), data: Vec<u8>) {
        let mut writer = Writer::new(Vec::new());
        let mut expected = Vec::new();
        for mut entry in entries {
            if entry.kind == Kind::File {
                writer.file(entry.clone(), &data).unwrap();
                entry.size = data.len() as u64;
                entry.stored = entry.size;
                expected.push((entry, data.clone()));
            } else {
                writer.header(&entry).unwrap();
                expected.push((entry, Vec::new()));
            }
        }
        let bytes = writer.finish().unwrap();
        prop_assert_eq!(read(&bytes).unwrap(), expected);
    }

    #[test]
    fn damaged_archives_never_panic(at in 0_usize..4000, byte: u8, cut in 0_usize..5000) {
        let mut writer = Writer::new(Vec::new());
        let mut entry = Entry::new("a".repeat(200), Kind::File, 0o644);
        entry.xattrs.push((b"user.x".to_vec(), vec![1; 10]));
        writer.file(entry, &[7; 700]).unwrap();
        let mut bytes = writer.finish().unwrap();
        let len = bytes.len();
        bytes[at % len] = byte;
        bytes.truncate(cut);
        read(&bytes).ok();
    }
}

/// Packs a directory with GNU tar.
fn gnu(dir: &std::path::Path, options: &[&str]) -> Vec<u8> {
    let out = Command::new("tar").arg("-C").arg(dir).args(options).args(["-cf", "-", "."]).output();
    let out = out.expect("GNU tar is there");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    out.stdout
}

#[test]
fn gnu_tar_of_all_formats_is_understood() {
    use std::os::unix::fs::FileExt;
    let temp = tempfile::tempdir().unwrap();
    let long = "n".repeat(180);
    std::fs::write(temp.path().join(&long), "long").unwrap();
    std::fs::hard_link(temp.path().join(&long), temp.path().join("zz-link")).unwrap();
    std::os::unix::fs::symlink("t".repeat(150), temp.path().join("symlink")).unwrap();
    let sparse = std::fs::File::create(temp.path().join("sparse")).unwrap();
    for at in 0..40_u64 {
        sparse.write_all_at(&[at as u8 + 1; 4096], at * 1_000_000 / 4096 * 4096).unwrap();
    }
    sparse.set_len(50_000_000).unwrap();
    let formats: [&[&str]; 6] = [
        &["--format=gnu"],
        &["--format=pax"],
        &["--format=gnu", "--sparse"],
        &["--format=pax", "--sparse", "--sparse-version=0.0"],
        &["--format=pax", "--sparse", "--sparse-version=0.1"],
        &["--format=pax", "--sparse", "--sparse-version=1.0"],
    ];
    for format in formats {
        let bytes = gnu(temp.path(), format);
        let mut reader = Reader::new(Cursor::new(&bytes));
        let mut seen = Vec::new();
        while let Some(entry) = reader.next_entry().unwrap() {
            let path = String::from_utf8(entry.path.clone()).unwrap();
            if path == "./sparse" {
                assert_eq!(entry.size, 50_000_000, "{format:?}");
                if format.contains(&"--sparse") {
                    let extents = entry.sparse.clone().expect("a map");
                    let stored = extents.iter().map(|extent| extent.len).sum::<u64>();
                    assert!(stored == entry.stored && stored < 1_000_000, "{format:?}");
                }
            }
            reader.skip().unwrap();
            seen.push((path, entry));
        }
        let find = |name: &str| &seen.iter().find(|(path, _)| path == name).expect(name).1;
        let names = [find(&format!("./{long}")), find("./zz-link")];
        let link = names.iter().find(|entry| entry.kind == Kind::HardLink).expect("one is a link");
        assert!(!link.link.is_empty());
        assert_eq!(find("./symlink").link, "t".repeat(150).as_bytes());
    }
}

#[test]
fn our_archives_are_understood_by_gnu_tar() {
    let temp = tempfile::tempdir().unwrap();
    let mut writer = Writer::new(Vec::new());
    let mut file = Entry::new(format!("{}/é", "d".repeat(150)), Kind::File, 0o4755);
    file.mtime = (1_000_000_000, 123_456_700);
    file.uid = 3_000_000_000;
    writer.file(file, b"content").unwrap();
    let archive = temp.path().join("a.tar");
    std::fs::write(&archive, writer.finish().unwrap()).unwrap();
    let mut out = Command::new("tar");
    out.args(["--numeric-owner", "--full-time", "-tvf"]).arg(&archive);
    let out = out.env("TZ", "UTC").output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(text.contains("-rwsr-xr-x 3000000000/0"), "{text}");
    assert!(text.contains("2001-09-09 01:46:40.1234567"), "{text}");
}

#[test]
fn broken_archives_are_refused() {
    let mut writer = Writer::new(Vec::new());
    writer.file(Entry::new("a", Kind::File, 0o644), &[1; 1000]).unwrap();
    let good = writer.finish().unwrap();
    assert_eq!(read(&good).unwrap().len(), 1);
    // Without the end mark it is still whole; cut anywhere else it is not.
    assert_eq!(read(&good[..good.len() - 1024]).unwrap().len(), 1);
    for cut in [100, 511, 513, 1000, 1535] {
        assert!(read(&good[..cut]).is_err(), "cut at {cut}");
    }
    let mut damaged = good.clone();
    damaged[0] ^= 1;
    assert!(read(&damaged).is_err(), "checksum");
    let mut behind = vec![0; 512];
    behind.extend_from_slice(&good);
    assert!(read(&behind).is_err(), "data behind a single empty block");
}

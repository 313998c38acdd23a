//! Archives, good and hostile, into real directories.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use super::*;

enum Is<'a> {
    Folder(u32),
    File(&'a str, u32),
    Link(&'a str),
    Hard(&'a str),
}

fn archive(entries: &[(&str, Is<'_>)]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, is) in entries {
        let (kind, text, mode, link) = match is {
            Is::Folder(mode) => (tar::EntryType::Directory, "", *mode, ""),
            Is::File(text, mode) => (tar::EntryType::Regular, *text, *mode, ""),
            Is::Link(link) => (tar::EntryType::Symlink, "", 0o777, *link),
            Is::Hard(link) => (tar::EntryType::Link, "", 0o644, *link),
        };
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(text.len() as u64);
        header.set_mtime(1_600_000_000);
        // Names as they are: the builder would refuse the hostile ones.
        let gnu = header.as_gnu_mut().unwrap();
        gnu.name[..name.len()].copy_from_slice(name.as_bytes());
        gnu.linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_cksum();
        tar.append(&header, text.as_bytes()).unwrap();
    }
    tar.into_inner().unwrap()
}

fn into(folder: &Path, top: Option<&str>, bytes: &[u8]) -> io::Result<u64> {
    let place = Place { directory: folder.to_owned(), top: top.map(str::to_owned) };
    unpack(bytes, &place, false)
}

#[test]
fn trees_get_the_name_of_their_place() {
    let tree = archive(&[
        ("etc/", Is::Folder(0o555)),
        ("etc/a", Is::File("text", 0o640)),
        ("etc/b", Is::Hard("etc/a")),
        ("etc/c", Is::Link("/nowhere")),
        ("etc/sub/deep", Is::File("deep", 0o600)),
    ]);
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(into(folder.path(), Some("new"), &tree).unwrap(), tree.len() as u64);
    let at = |name: &str| folder.path().join("new").join(name);
    assert_eq!(fs::read_to_string(at("a")).unwrap(), "text");
    let meta = fs::metadata(at("a")).unwrap();
    assert_eq!((meta.permissions().mode() & 0o7777, meta.mtime()), (0o640, 1_600_000_000));
    assert_eq!(fs::metadata(at("b")).unwrap().ino(), meta.ino());
    assert_eq!(fs::read_link(at("c")).unwrap(), Path::new("/nowhere"));
    assert_eq!(fs::read_to_string(at("sub/deep")).unwrap(), "deep");
    let top = fs::metadata(at("")).unwrap();
    assert_eq!((top.permissions().mode() & 0o7777, top.mtime()), (0o555, 1_600_000_000));
    // Without a name the contents go into the directory, over what is there.
    let again = tempfile::tempdir().unwrap();
    fs::write(again.path().join("a"), "old").unwrap();
    into(again.path(), None, &tree).unwrap();
    assert_eq!(fs::read_to_string(again.path().join("a")).unwrap(), "text");
}

#[test]
fn nothing_leads_out() {
    for entries in [
        vec![("x/../../out", Is::File("evil", 0o644))],
        vec![
            ("x/", Is::Folder(0o755)),
            ("x/l", Is::Link("..")),
            ("x/l/out", Is::File("evil", 0o644)),
        ],
        vec![
            ("x/", Is::Folder(0o755)),
            ("x/l", Is::Link("/")),
            ("x/l/tmp/out", Is::File("evil", 0o644)),
        ],
        vec![("x/", Is::Folder(0o755)), ("x/h", Is::Hard("x/../../secret"))],
        vec![
            ("x/", Is::Folder(0o755)),
            ("x/l", Is::Link("../..")),
            ("x/h", Is::Hard("x/l/secret")),
        ],
    ] {
        let outer = tempfile::tempdir().unwrap();
        fs::write(outer.path().join("secret"), "secret").unwrap();
        let inner = outer.path().join("inner");
        fs::create_dir(&inner).unwrap();
        into(&inner, None, &archive(&entries)).unwrap_err();
        let mut names: Vec<_> =
            fs::read_dir(outer.path()).unwrap().map(|one| one.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["inner", "secret"]);
        assert_eq!(fs::metadata(outer.path().join("secret")).unwrap().nlink(), 1);
    }
}

#[test]
fn links_that_are_there_are_replaced_and_not_followed() {
    let outer = tempfile::tempdir().unwrap();
    let (inner, victim) = (outer.path().join("inner"), outer.path().join("victim"));
    fs::create_dir(&inner).unwrap();
    fs::write(&victim, "mine").unwrap();
    symlink(&victim, inner.join("a")).unwrap();
    into(&inner, None, &archive(&[("x/", Is::Folder(0o755)), ("x/a", Is::File("new", 0o644))]))
        .unwrap();
    assert_eq!(fs::read_to_string(&victim).unwrap(), "mine");
    assert_eq!(fs::read_to_string(inner.join("a")).unwrap(), "new");
}

#[test]
fn directories_and_files_do_not_replace_each_other() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("d")).unwrap();
    fs::write(folder.path().join("f"), "").unwrap();
    for (entry, words) in [
        (("d", Is::File("", 0o644)), "cannot overwrite directory"),
        (("f", Is::Folder(0o755)), "cannot overwrite non-directory"),
    ] {
        let top = entry.0;
        let error = into(folder.path(), Some(top), &archive(&[entry])).unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
    }
}

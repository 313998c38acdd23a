//! Files that were written anew with the time of the old ones.

use std::os::unix::fs::symlink;

use super::*;

fn old_times(path: &Path) {
    let time = rustix::fs::Timespec { tv_sec: 981_173_106, tv_nsec: 0 };
    let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
    let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
    rustix::fs::utimensat(rustix::fs::CWD, path, &times, flags).unwrap();
}

fn tree(file: &str, link: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    std::fs::write(path("file"), file).unwrap();
    std::fs::write(path("same"), "same").unwrap();
    symlink(link, path("link")).unwrap();
    std::fs::create_dir(path("directory")).unwrap();
    for name in ["file", "same", "link", "directory"] {
        old_times(&path(name));
    }
    folder
}

fn found(closeness: Closeness) -> Vec<String> {
    let (lower, upper) = (tree("first", "first"), tree("other", "other"));
    let (upper, lower) = (Root::open(upper.path()).unwrap(), Root::open(lower.path()).unwrap());
    let found = differences(&upper, &[lower], closeness).unwrap();
    found.iter().map(|found| String::from_utf8_lossy(&found.path).into_owned()).collect()
}

#[test]
fn a_layer_takes_what_kept_its_size_and_time_but_not_its_content() {
    assert_eq!(found(Closeness::Content), ["file", "link"]);
    assert!(found(Closeness::Metadata).is_empty());
}

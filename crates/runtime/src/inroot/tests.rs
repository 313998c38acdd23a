use std::os::unix::fs::symlink;

use super::*;

fn root() -> (tempfile::TempDir, InRoot) {
    let dir = tempfile::tempdir().unwrap();
    let fd = rustix::fs::open(dir.path(), OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
    (dir, InRoot::new(fd))
}

#[test]
fn makes_directories_through_dangling_links_inside_the_root() {
    let (dir, root) = root();
    symlink("/../../elsewhere/deep", dir.path().join("link")).unwrap();
    root.directory(Path::new("/link/below"), 0o755).unwrap();
    assert!(dir.path().join("elsewhere/deep/below").is_dir());
}

#[test]
fn makes_files_behind_links_inside_the_root() {
    let (dir, root) = root();
    symlink("/etc/target", dir.path().join("file")).unwrap();
    std::fs::create_dir(dir.path().join("etc")).unwrap();
    root.file(Path::new("/file")).unwrap();
    assert!(dir.path().join("etc/target").is_file());
    symlink("../../../out/../further", dir.path().join("etc/up")).unwrap();
    std::fs::create_dir(dir.path().join("out")).unwrap();
    root.file(Path::new("/etc/up")).unwrap();
    assert!(dir.path().join("further").is_file());
}

#[test]
fn gives_up_on_circular_links() {
    let (dir, root) = root();
    symlink("b", dir.path().join("a")).unwrap();
    symlink("a", dir.path().join("b")).unwrap();
    assert!(root.directory(Path::new("/a/x"), 0o755).is_err());
}

//! Roots, locks and pid files.

use std::os::unix::fs::PermissionsExt;

use super::{HostError, PidFile, daemon_id, lock, make_root};

#[test]
fn roots_have_their_mode_and_one_owner() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("a/b");
    make_root(&root, 0o710).unwrap();
    assert_eq!(std::fs::metadata(&root).unwrap().permissions().mode() & 0o7777, 0o710);
    let held = lock(&root).unwrap();
    assert!(matches!(lock(&root), Err(HostError::InUse(_))));
    drop(held);
    lock(&root).unwrap();
}

#[test]
fn ids_stay() {
    let folder = tempfile::tempdir().unwrap();
    let id = daemon_id(folder.path()).unwrap();
    assert_eq!(id.len(), 36);
    assert_eq!(daemon_id(folder.path()).unwrap(), id);
}

#[test]
fn pid_files_of_the_living_are_respected() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pid");
    std::fs::write(&path, "1").unwrap();
    assert!(matches!(PidFile::write(&path), Err(HostError::Running { pid: 1, .. })));
    std::fs::write(&path, "999999999").unwrap();
    let file = PidFile::write(&path).unwrap();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), std::process::id().to_string());
    drop(file);
    assert!(!path.exists());
}

#[test]
fn a_pid_file_of_an_unreaped_process_is_no_obstacle() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pid");
    let mut child = std::process::Command::new("true").spawn().unwrap();
    std::fs::write(&path, child.id().to_string()).unwrap();
    let stat = format!("/proc/{}/stat", child.id());
    while !std::fs::read_to_string(&stat).unwrap().contains(") Z ") {
        std::thread::yield_now();
    }
    let file = PidFile::write(&path);
    child.wait().unwrap();
    assert!(file.is_ok());
}

use std::ffi::OsStr;

use rorqual_sys::path::Dir;

use super::*;

/// Both ways must show the same; this kernel may know only one of them by itself.
#[test]
fn views_are_attached_nowhere_and_outlive_their_namespace() {
    // Not /tmp: overlay takes no directories of some file systems that are common there.
    let temp = tempfile::tempdir_in("/var/tmp").unwrap();
    let lower = (0..30).map(|at| temp.path().join(format!("{at:-<60}"))).collect::<Vec<_>>();
    for (at, dir) in lower.iter().enumerate() {
        std::fs::create_dir(dir).unwrap();
        std::fs::write(dir.join(format!("file-{at}")), "x").unwrap();
    }
    let [upper, work] = ["upper", "work"].map(|name| temp.path().join(name));
    std::fs::create_dir(&upper).unwrap();
    std::fs::create_dir(&work).unwrap();
    let plan = UpperPlan { upper: upper.clone(), work };
    for make in [view, in_namespace] {
        let read_only = Dir::from_fd(make(&lower, None).unwrap());
        assert_eq!(read_only.entries().unwrap().len(), 30);
        assert!(read_only.mkdir(OsStr::new("new"), 0o755).is_err());
        let writable = Dir::from_fd(make(&lower, Some(&plan)).unwrap());
        writable.mkdir(OsStr::new("new"), 0o755).unwrap();
        assert!(upper.join("new").is_dir());
        writable.rmdir(OsStr::new("new")).unwrap();
    }
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(temp.path().to_str().unwrap()));
}

#[test]
fn what_cannot_hold_writable_layers_is_refused_at_once() {
    let temp = tempfile::tempdir_in("/var/tmp").unwrap();
    let [lower, upper, work] = ["lower", "upper", "work"].map(|name| temp.path().join(name));
    for dir in [&lower, &upper, &work] {
        std::fs::create_dir(dir).unwrap();
    }
    check_writable(&lower, &upper).unwrap();
    let view = view(std::slice::from_ref(&lower), Some(&UpperPlan { upper: upper.clone(), work }))
        .unwrap();
    let root = PathBuf::from(format!("/proc/self/fd/{}", view.as_raw_fd()));
    let trash = root.join("trash");
    std::fs::create_dir(&trash).unwrap();
    let refused = check_writable(&lower, &trash).unwrap_err().to_string();
    let expected = format!("containers cannot be kept in {}: ", root.display());
    assert!(refused.starts_with(&expected), "{refused}");
    assert!(upper.join("trash").read_dir().unwrap().next().is_none(), "the probe is left");
}

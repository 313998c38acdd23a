use std::os::unix::fs::symlink;

use super::*;

#[test]
fn a_part_is_inside_and_there() {
    let volume = tempfile::tempdir().unwrap();
    let base = volume.path();
    std::fs::create_dir_all(base.join("sub/deep")).unwrap();
    std::fs::write(base.join("sub/file"), "").unwrap();
    symlink("sub/deep", base.join("inside")).unwrap();
    symlink("/etc", base.join("out")).unwrap();
    symlink("../..", base.join("up")).unwrap();
    let shown = base.display();
    let missing = |part: &str| {
        format!(
            "cannot access path {shown}/{part}: lstat {shown}/{part}: no such file or directory"
        )
    };
    let escapes = |part: &str| {
        format!("path concatenation escapes the base directory, base: {shown}, subpath: {part}")
    };
    for (part, expected) in [
        ("sub", None),
        ("sub/file", None),
        ("inside", None),
        ("sub/../sub", None),
        ("nosuch", Some(missing("nosuch"))),
        ("sub/nosuch/x", Some(missing("sub/nosuch/x"))),
        ("out", Some(escapes("out"))),
        ("out/passwd", Some(escapes("out/passwd"))),
        ("up", Some(escapes("up"))),
    ] {
        assert_eq!(check_part(base, part).err().map(|error| error.to_string()), expected, "{part}");
    }
}

//! Permissions as chmod(1) reads them, and paths as build files write them.

use super::mode::Change;
use super::relative;

#[test]
fn permissions_change_as_chmod_changes_them() {
    let table = [
        ("755", 0o644, false, 0o755),
        ("0600", 0o777, false, 0o600),
        ("4755", 0o644, false, 0o4755),
        ("u+x", 0o644, false, 0o744),
        ("+x", 0o644, false, 0o755),
        ("go-w", 0o666, false, 0o644),
        ("a=r", 0o4755, false, 0o4444),
        ("u=rwX,go=rX", 0o600, false, 0o644),
        ("u=rwX,go=rX", 0o600, true, 0o755),
        ("u=rwX,go=rX", 0o700, false, 0o755),
        ("g=u", 0o640, false, 0o660),
        ("u+s", 0o755, false, 0o4755),
        ("g+s", 0o755, false, 0o2755),
        ("+t", 0o777, true, 0o1777),
        ("u+x-w", 0o644, false, 0o544),
    ];
    for (text, before, directory, wanted) in table {
        let found = Change::parse(text).unwrap().apply(before, directory);
        assert_eq!(found, wanted, "{text} on {before:o} gives {found:o}, not {wanted:o}");
    }
    for text in ["", "8", "77777", "u", "u+q", "x+r", "u+rw,"] {
        assert!(Change::parse(text).is_err(), "{text}");
    }
}

#[test]
fn paths_stay_below_the_root() {
    for (path, wanted) in
        [("/a/../../b", "b"), ("../../x", "x"), ("/", ""), ("/a//./b/", "a/b"), ("..", "")]
    {
        assert_eq!(relative(path), wanted, "{path}");
    }
}

use super::*;

fn entry(path: &str, mode: u32, link: &str) -> TreeEntry {
    TreeEntry {
        path: path.to_owned(),
        mode,
        uid: 0,
        gid: 0,
        size: 0,
        mtime: 0,
        link: link.to_owned(),
        device: (0, 0),
        xattrs: Vec::new(),
    }
}

fn walk(paths: &[(&str, char, &str)]) -> Result<(), String> {
    let mut order = Order::default();
    for (path, kind, link) in paths {
        let mode = match kind {
            'd' => 0o040_755,
            'l' => 0o120_777,
            _ => 0o100_644,
        };
        order.check(&entry(path, mode, link)).map_err(|error| error.to_string())?;
    }
    Ok(())
}

#[test]
fn a_walk_is_taken() {
    let walked = walk(&[
        ("a", 'd', ""),
        ("a/b", 'd', ""),
        ("a/b/c", 'f', ""),
        ("a/z", 'l', "/etc/passwd"),
        ("a-b", 'f', ""),
        ("b", 'f', "a/b/c"),
    ]);
    assert_eq!(walked, Ok(()));
}

#[test]
fn hostile_walks_are_refused() {
    let cases: [&[(&str, char, &str)]; 12] = [
        &[("..", 'd', "")],
        &[("../x", 'f', "")],
        &[("/etc", 'd', "")],
        &[("a/../b", 'f', "")],
        &[("a", 'd', ""), ("a/./b", 'f', "")],
        &[("", 'f', "")],
        &[("b", 'f', ""), ("a", 'f', "")],
        &[("a", 'f', ""), ("a", 'd', "")],
        &[("a", 'l', "/etc"), ("a/passwd", 'f', "")],
        &[("a", 'f', ""), ("a/b", 'f', "")],
        &[("a", 'f', "/etc/shadow")],
        &[("x\0y", 'f', "")],
    ];
    for case in cases {
        assert!(walk(case).is_err(), "{case:?}");
    }
    let long = "x".repeat(300);
    assert!(walk(&[(&long, 'f', "")]).is_err());
}

#[test]
fn a_directory_that_was_left_is_not_entered_again() {
    let walked = walk(&[("a", 'd', ""), ("b", 'f', ""), ("a/x", 'f', "")]);
    assert!(walked.is_err());
}

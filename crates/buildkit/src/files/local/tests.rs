use std::os::unix::fs::symlink;

use super::*;

fn walked(selection: Selection) -> Vec<String> {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    for path in ["a/b/c.txt", "a/b/d.rs", "a-b", "node_modules/x/y", "z/keep", "z/drop"] {
        std::fs::create_dir_all(root.join(path).parent().unwrap()).unwrap();
        std::fs::write(root.join(path), path).unwrap();
    }
    symlink("a/b", root.join("link")).unwrap();
    let tree = LocalTree::open(root, selection).unwrap();
    let mut seen = Vec::new();
    tree.walk(&mut |entry| {
        seen.push(entry.path);
        Ok(())
    })
    .unwrap();
    seen
}

fn list(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

#[test]
fn all_of_it_in_order() {
    let all = [
        "a",
        "a/b",
        "a/b/c.txt",
        "a/b/d.rs",
        "a-b",
        "link",
        "node_modules",
        "node_modules/x",
        "node_modules/x/y",
        "z",
        "z/drop",
        "z/keep",
    ];
    assert_eq!(walked(Selection::default()), all);
}

#[test]
fn exclusions_and_their_exceptions() {
    let exclude = list(&["node_modules", "z", "!z/keep", "**/*.rs"]);
    let seen = walked(Selection { exclude, ..Selection::default() });
    assert_eq!(seen, ["a", "a/b", "a/b/c.txt", "a-b", "link", "z", "z/keep"]);
}

#[test]
fn what_is_needed_brings_the_targets_of_links() {
    let seen = walked(Selection { follow: list(&["link/c.txt"]), ..Selection::default() });
    assert_eq!(seen, ["a", "a/b", "a/b/c.txt", "link"]);
    let seen = walked(Selection { include: list(&["a-b"]), ..Selection::default() });
    assert_eq!(seen, ["a-b"]);
}

//! Repository checks: the shape of the house as ARCHITECTURE.md draws it.

use std::collections::BTreeSet;
use std::fs;

use rorqual_xtask::{ALLOWED, internal_dependencies, ranks, root, source_files};

#[test]
fn crates_use_only_what_they_may() {
    for (from, to) in internal_dependencies() {
        let allowed = ALLOWED.iter().find(|(name, _)| *name == from);
        let allowed = allowed.unwrap_or_else(|| panic!("{from} is missing from the table")).1;
        assert!(
            to.is_empty() || allowed.split(' ').any(|name| name == to),
            "{from} must not depend on {to}"
        );
    }
}

#[test]
fn the_table_points_downwards() {
    let ranks = ranks();
    for (from, allowed) in ALLOWED {
        for to in allowed.split_terminator(' ') {
            assert!(ranks[to] < ranks[from], "{from} must not reach up to {to}");
        }
    }
}

#[test]
fn architecture_describes_every_crate() {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md");
    for (name, _) in ALLOWED {
        assert!(text.contains(&format!("`{name}`")), "ARCHITECTURE.md says nothing of `{name}`");
    }
    assert!(text.lines().count() <= 400, "ARCHITECTURE.md is longer than 400 lines");
}

#[test]
fn every_file_says_what_it_is_for() {
    // A `tests.rs` is about the module beside it.
    for file in source_files().into_iter().filter(|file| !file.ends_with("tests.rs")) {
        let text = fs::read_to_string(&file).expect("readable");
        assert!(text.starts_with("//!"), "{} has no module comment", file.display());
    }
}

#[test]
fn unsafe_code_lives_in_sys_only() {
    for file in source_files() {
        if file.components().any(|part| part.as_os_str() == "sys") {
            continue;
        }
        let text = fs::read_to_string(&file).expect("readable");
        let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
        let found = code.filter(|line| line.contains(concat!("unsafe", " {"))).count();
        assert_eq!(found, 0, "{} has unsafe code", file.display());
    }
}

#[test]
fn the_readme_commands_exist() {
    let readme = fs::read_to_string(root().join("README.md")).expect("README.md");
    let makefile = fs::read_to_string(root().join("Makefile")).expect("Makefile");
    let targets: BTreeSet<&str> = readme
        .split_whitespace()
        .zip(readme.split_whitespace().skip(1))
        .filter(|(word, _)| word.trim_matches('`') == "make")
        .map(|(_, target)| target.trim_matches(|c: char| !c.is_ascii_alphanumeric()))
        .collect();
    assert!(targets.contains("test") && targets.contains("demo"), "{targets:?}");
    for target in targets {
        assert!(makefile.contains(&format!("\n{target}:")), "Makefile has no target {target}");
    }
}

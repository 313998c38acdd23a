//! Facts about the workspace that the repository checks compare with what is written down.
//!
//! Builds and runs nothing itself but `cargo metadata`.
#![expect(clippy::expect_used, clippy::missing_panics_doc, reason = "a failed check is a panic")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Every crate and what it may use, from the bottom up. A new edge is a decision: it is made here, in
/// review, and never by accident in a `Cargo.toml`.
pub const ALLOWED: &[(&str, &str)] = &[
    ("core", ""),
    ("bake", ""),
    ("sys", "core"),
    ("api", "core"),
    ("http", "core"),
    ("store", "core sys"),
    ("client", "core api"),
    ("plugin", "core client"),
    ("content", "core store"),
    ("snapshot", "core sys store"),
    ("network", "core sys store plugin"),
    ("volume", "core sys store plugin"),
    ("runtime", "core sys"),
    ("shim", "core sys runtime"),
    ("transfer", "core content snapshot"),
    ("registry", "core http store content"),
    ("engine", "core store content snapshot network volume transfer shim"),
    ("build", "core store content snapshot transfer"),
    ("buildkit", "core sys build"),
    ("cli", "core bake sys api client content transfer build buildkit"),
    (
        "daemon",
        "core api http sys store content snapshot network volume plugin shim transfer engine build buildkit",
    ),
    ("testkit", "core api client sys"),
    ("bench", "testkit"),
    ("rorqual", "core cli client daemon network registry runtime shim sys"),
    ("xtask", ""),
];

/// The root of the repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Asks cargo for the edges between our own crates, as `(from, to)`; development dependencies do not count.
pub fn internal_dependencies() -> Vec<(String, String)> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--format-version", "1", "--offline"])
        .current_dir(root())
        .output()
        .expect("cargo runs this test, so cargo can be run");
    let metadata: serde_json::Value =
        serde_json::from_slice(&output.stdout).expect("cargo metadata prints JSON");
    let packages = metadata["packages"].as_array().expect("a list of packages");
    let mut edges = Vec::new();
    for package in packages {
        let from = short_name(package["name"].as_str().expect("a name"));
        let dependencies = package["dependencies"].as_array().expect("a list of dependencies");
        let used = dependencies.iter().filter(|d| d["kind"].as_str() != Some("dev"));
        edges.extend(used.filter_map(|dependency| {
            let name = dependency["name"].as_str()?;
            name.starts_with("rorqual").then(|| (from.clone(), short_name(name)))
        }));
        edges.push((from.clone(), String::new()));
    }
    edges
}

fn short_name(package: &str) -> String {
    package.strip_prefix("rorqual-").unwrap_or(package).to_owned()
}

/// The rank of each crate in [`ALLOWED`].
pub fn ranks() -> BTreeMap<&'static str, usize> {
    ALLOWED.iter().enumerate().map(|(rank, (name, _))| (*name, rank)).collect()
}

/// Source files of the product below `crates/`, tests left out.
pub fn source_files() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root().join("crates")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a readable folder").flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

//! The leak check: nothing that a scenario's daemon made may outlive it.
//!
//! Looks only for things that carry the scenario's own marks, so scenarios can run side by side.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const CGROUPS: &str = "/sys/fs/cgroup";
/// Where daemon and clients of a scenario put temporary files, below its folder.
pub(crate) const TEMPORARY: &str = "tmp";

/// Lists what is left: processes that mention `folder` or sit in `cgroup`, temporary files, mounts below `folder`, cgroups.
pub(crate) fn leftovers(folder: &Path, cgroup: &str) -> Vec<String> {
    let temporary = fs::read_dir(folder.join(TEMPORARY)).into_iter().flatten().flatten();
    let temporary = temporary.map(|entry| format!("temporary {}", entry.path().display()));
    let folder = folder.to_string_lossy();
    let mut found = processes(&folder, cgroup);
    found.extend(temporary);
    found.extend(mounts(&folder));
    cgroups(Path::new(CGROUPS), cgroup, 4, &mut found);
    found
}

/// Lists what belongs to containers although none is left: links of the host's network namespace (`links` as `ip -br`
/// prints them), records of shims and endpoints, directories.
pub(crate) fn left_by_containers(folder: &Path, links: &str) -> Vec<String> {
    let ours = links.lines().filter(|line| line.starts_with("rq"));
    let mut found: Vec<String> = ours.map(|line| format!("link {line}")).collect();
    for place in ["run/shims", "run/endpoints", "data/containers", "data/content/ingest"] {
        for entry in fs::read_dir(folder.join(place)).into_iter().flatten().flatten() {
            found.push(format!("file {}", entry.path().display()));
        }
    }
    found
}

/// Ends the processes and removes the cgroups of harnesses that were killed before they could clean up.
pub(crate) fn sweep_dead_harnesses() {
    let mut found = Vec::new();
    cgroup_paths(Path::new(CGROUPS), "rorqual-test-", 4, &mut found);
    for path in found.iter().filter(|path| harness_of(path).is_some_and(is_gone)) {
        empty_and_remove(path);
    }
}

/// Reads the harness' process id out of `rorqual-test-PID-NUMBER`.
fn harness_of(cgroup: &Path) -> Option<u32> {
    let name = cgroup.file_name()?.to_str()?;
    name.strip_prefix("rorqual-test-")?.split('-').next()?.parse().ok()
}

fn is_gone(pid: u32) -> bool {
    !Path::new(&format!("/proc/{pid}")).exists()
}

/// Kills what is in a tree of cgroups and removes it, leaves first. Killed processes need a moment.
fn empty_and_remove(path: &Path) {
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            empty_and_remove(&entry.path());
        }
    }
    let removed = crate::eventually("the cgroup is empty", || {
        let inside = fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default();
        for pid in inside.lines() {
            // One that has ended meanwhile is what we want.
            let _ = Command::new("kill").args(["-KILL", pid]).output();
        }
        let gone = fs::remove_dir(path);
        (gone.is_ok() || !path.exists()).then_some(())
    });
    // A frozen or unkillable one stays; the harness of its own names it.
    drop(removed);
}

/// Lists the processes of a scenario by id: those that mention `folder` or sit in `cgroup`.
pub(crate) fn process_ids(folder: &Path, cgroup: &str) -> Vec<String> {
    let described = processes(&folder.to_string_lossy(), cgroup);
    let dead = |line: &&String| line.contains(") Z ");
    let id = |line: &String| line.split([' ', ':']).nth(1).map(str::to_owned);
    described.iter().filter(|line| !dead(line)).filter_map(id).collect()
}

/// Removes the groups of a scenario, as a machine that starts again has none.
pub(crate) fn remove_cgroups(cgroup: &str) {
    let mut found = Vec::new();
    cgroups(Path::new("/sys/fs/cgroup"), cgroup, 4, &mut found);
    for path in found.iter().filter_map(|line| line.strip_prefix("cgroup ")) {
        remove_cgroup(Path::new(path));
    }
}

fn remove_cgroup(path: &Path) {
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_cgroup(&entry.path());
        }
    }
    // The leak check finds what could not be removed.
    let _ = fs::remove_dir(path);
}

fn processes(folder: &str, cgroup: &str) -> Vec<String> {
    let own = std::process::id().to_string();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let pid = entry.file_name().to_string_lossy().into_owned();
        if !pid.bytes().all(|byte| byte.is_ascii_digit()) || pid == own {
            continue;
        }
        let read = |name: &str| fs::read(entry.path().join(name)).unwrap_or_default();
        let command = String::from_utf8_lossy(&read("cmdline")).replace('\0', " ");
        let groups = String::from_utf8_lossy(&read("cgroup")).into_owned();
        if command.contains(folder) || groups.contains(cgroup) {
            let state = String::from_utf8_lossy(&read("stat")).into_owned();
            found.push(format!(
                "process {pid}: {command} ({})",
                state.chars().take(60).collect::<String>()
            ));
        }
    }
    found
}

fn mounts(folder: &str) -> Vec<String> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    table.lines().filter(|line| line.contains(folder)).map(|line| format!("mount {line}")).collect()
}

fn cgroups(below: &Path, name: &str, depth: u32, found: &mut Vec<String>) {
    let mut paths = Vec::new();
    cgroup_paths(below, name, depth, &mut paths);
    found.extend(paths.iter().map(|path| format!("cgroup {}", path.display())));
}

/// Finds the uppermost cgroups with `name` in their names.
fn cgroup_paths(below: &Path, name: &str, depth: u32, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(below).into_iter().flatten().flatten() {
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        if entry.file_name().to_string_lossy().contains(name) {
            found.push(entry.path());
        } else if depth > 0 {
            cgroup_paths(&entry.path(), name, depth - 1, found);
        }
    }
}

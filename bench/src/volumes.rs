//! Volumes: what a clone costs, against `cp` on the same file system.
//!
//! With `TMPDIR` on a file system that shares blocks (xfs, btrfs), both do so.

use std::cell::Cell;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use rorqual_testkit::TestResult;

use crate::measure::{Job, Times, interleaved, once};

const ROUNDS: usize = 10;
/// What the volume holds: one large file, and many small ones.
const LARGE: usize = 256 * 1024 * 1024;
const SMALL: usize = 2000;

/// Times clones of a volume by us and copies by `cp`, both on disk when they end.
pub(crate) fn clones(ours: &dyn Fn(&[&str]) -> Command) -> TestResult<Vec<Times>> {
    once(ours(&["volume", "create", "bench"]))?;
    let shown = ours(&["volume", "inspect", "-f", "{{.Mountpoint}}", "bench"]).output()?;
    let data = PathBuf::from(String::from_utf8_lossy(&shown.stdout).trim());
    fill(&data)?;
    let beside = data.parent().ok_or("the volume is nowhere")?.join("copies");
    std::fs::create_dir(&beside)?;
    let (cloned, copied) = (Cell::new(0), Cell::new(0));
    let next = |count: &Cell<usize>| {
        count.set(count.get() + 1);
        count.get()
    };
    let jobs: Vec<Job<'_>> = vec![
        Box::new(|| ours(&["volume", "clone", "bench", &format!("bench-{}", next(&cloned))])),
        Box::new(|| {
            let mut copy = Command::new("sh");
            let script = "cp -a --reflink=auto \"$1\" \"$2\" && sync -f \"$2\"";
            copy.args(["-c", script, "cp"]).arg(&data).arg(beside.join(next(&copied).to_string()));
            copy
        }),
    ];
    let times = interleaved(&jobs, ROUNDS);
    drop(jobs);
    std::fs::remove_dir_all(&beside)?;
    for count in 1..=cloned.get() {
        once(ours(&["volume", "rm", &format!("bench-{count}")]))?;
    }
    once(ours(&["volume", "rm", "bench"]))?;
    times
}

fn fill(data: &Path) -> TestResult {
    // Not zeros, which some file systems keep without blocks.
    let block = (0..1024 * 1024_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8);
    let block = block.collect::<Vec<_>>();
    let mut large = std::fs::File::create(data.join("large"))?;
    for _ in 0..LARGE / block.len() {
        large.write_all(&block)?;
    }
    let small = data.join("small");
    std::fs::create_dir(&small)?;
    for count in 0..SMALL {
        std::fs::write(small.join(count.to_string()), &block[..4096])?;
    }
    large.sync_all()?;
    Ok(())
}

//! `run` of an OCI bundle by our runtime and by the others, in a mount namespace without the empty version 2 hierarchy
//! of hybrid control groups: crun refuses hosts that have it.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rorqual_testkit::TestResult;

use crate::measure::{Job, Times, interleaved, once};
use crate::peers::{bundle, installed};

/// The argument that makes this program measure runtimes where it stands, and print the times.
pub(crate) const HERE: &str = "--oci";

/// Hides the hierarchy from what follows, where there is one.
const HIDE: &str = r#"
mount --make-rprivate /
if mountpoint --quiet /sys/fs/cgroup/unified; then umount /sys/fs/cgroup/unified; fi
exec "$@"
"#;

/// Times all runtimes that can run here, each by its name.
pub(crate) fn measure(binary: &Path, rounds: usize) -> TestResult<Vec<(String, Times)>> {
    let output = Command::new("unshare")
        .args(["--mount", "sh", "-ec", HIDE, "sh"])
        .arg(std::env::current_exe()?)
        .arg(HERE)
        .arg(binary)
        .arg(rounds.to_string())
        .output()?;
    if !output.status.success() {
        return Err(format!("OCI runtimes: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    let report: Vec<(String, Vec<u64>)> = serde_json::from_slice(&output.stdout)?;
    let times = |times: Vec<u64>| Times::of(times.into_iter().map(Duration::from_nanos).collect());
    Ok(report.into_iter().map(|(name, nanos)| (name, times(nanos))).collect())
}

/// Measures in this mount namespace; returns what [`measure`] reads.
pub(crate) fn here(binary: &Path, rounds: usize) -> TestResult<String> {
    let folder = tempfile::tempdir()?;
    bundle(folder.path())?;
    let spec =
        Command::new(binary).args(["runtime", "spec"]).current_dir(folder.path()).output()?;
    if !spec.status.success() {
        return Err(format!("runtime spec: {}", String::from_utf8_lossy(&spec.stderr)).into());
    }
    let path = folder.path().join("config.json");
    let mut config: serde_json::Value = serde_json::from_slice(&std::fs::read(&path)?)?;
    config["process"]["args"] = serde_json::json!(["/bin/true"]);
    config["process"]["terminal"] = serde_json::json!(false);
    // Older ones refuse a newer version by its number.
    config["ociVersion"] = serde_json::json!("1.0.2");
    // Peers refuse rlimits that the machine does not let them set.
    config["process"]["rlimits"] = serde_json::json!([]);
    std::fs::write(&path, serde_json::to_vec(&config)?)?;
    let run = |program: &Path, args: &[&str]| {
        let mut command = Command::new(program);
        command.args(args).args(["--root"]).arg(folder.path().join("state"));
        command.arg("run").arg("--bundle").arg(folder.path()).arg("bench-oci");
        command
    };
    let mut names = vec!["rorqual runtime".to_owned()];
    let mut jobs: Vec<Job<'_>> = vec![Box::new(|| run(binary, &["runtime"]))];
    for peer in ["crun", "runc"] {
        // A peer that cannot run here is left out.
        if installed(peer) && once(run(Path::new(peer), &[])).is_ok() {
            names.push(version(peer)?);
            jobs.push(Box::new(move || run(Path::new(peer), &[])));
        }
    }
    let times = interleaved(&jobs, rounds)?;
    let nanos = times.iter().map(|times| times.nanos().collect::<Vec<_>>());
    Ok(serde_json::to_string(&names.into_iter().zip(nanos).collect::<Vec<_>>())?)
}

/// The first line of what a runtime says of its version, such as `crun version 1.28`, without the word.
fn version(runtime: &str) -> TestResult<String> {
    let output = Command::new(runtime).arg("--version").output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(text.lines().next().unwrap_or(runtime).replace(" version", ""))
}

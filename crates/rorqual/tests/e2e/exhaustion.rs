//! What happens when something runs out: descriptors, processes, disk space for logs, patience of readers.

use std::fs;
use std::io::Read;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use rorqual_testkit::{Host, HostOptions, TestResult, eventually};

use crate::faults::{fill_the_disk, small_data_root};
use crate::{RORQUAL, inspect, scenario, scenario_with};

/// Starts a container that counts in `/dev/shm/n`, and prints what it counts, with `padding` behind it.
fn counter(host: &Host, name: &str, padding: usize) -> TestResult {
    let script = "i=0; while :; do
            i=$((i+1)); echo \"line $i$1\"; echo $i >/dev/shm/new; mv /dev/shm/new /dev/shm/n
        done";
    let padding = " ".repeat(padding);
    let run =
        ["run", "-d", "--name", name, "--init", "busybox", "sh", "-c", script, "sh", &padding];
    host.cli(run)?.ok()?;
    Ok(())
}

fn count(host: &Host, name: &str) -> Option<u64> {
    host.cli(["exec", name, "cat", "/dev/shm/n"]).ok()?.stdout.trim().parse().ok()
}

/// Waits until a counter has gone on by `steps`.
fn goes_on(host: &Host, name: &str, steps: u64) -> TestResult {
    let start = eventually("it counts", || count(host, name))?;
    eventually("it counts on", || count(host, name).filter(|now| *now > start + steps))?;
    Ok(())
}

#[test]
fn a_daemon_without_descriptors_refuses_and_recovers() -> TestResult {
    let options = HostOptions { before: Some("ulimit -n 96".to_owned()), ..HostOptions::default() };
    scenario_with(options, |host| {
        host.cli(["run", "-d", "--name", "cc", "busybox", "sleep", "1000"])?.ok()?;
        let pid = inspect(host, "cc", "{{.State.Pid}}")?;
        let connect = || UnixStream::connect(host.socket());
        let idle: Vec<_> = (0..200).map_while(|_| connect().ok()).collect();
        assert!(idle.len() > 96, "{}", idle.len());
        assert!(fs::exists(format!("/proc/{pid}"))?);
        drop(idle);
        eventually("it answers again", || {
            host.cli(["exec", "cc", "echo", "hello"]).ok().filter(|run| run.stdout == "hello\n")
        })?;
        // Containers take descriptors too: one too many is refused, and the others do not notice.
        let mut refused = None;
        for number in 0..100 {
            let name = format!("more{number}");
            let run = host.cli(["run", "-d", "--name", &name, "busybox", "sleep", "1000"])?;
            if run.code != 0 {
                refused = Some(run);
                break;
            }
        }
        let refused = refused.ok_or("a hundred containers with 96 descriptors")?;
        assert!(!refused.stderr.is_empty(), "{refused:?}");
        assert!(fs::exists(format!("/proc/{pid}"))?);
        Ok(())
    })?;
    Ok(())
}

/// Where the daemon's own processes are counted and limited.
fn pids_cgroup(host: &Host) -> PathBuf {
    let first = Path::new("/sys/fs/cgroup/pids");
    let root = if first.exists() { first } else { Path::new("/sys/fs/cgroup") };
    root.join(format!("{}-daemon", host.cgroup()))
}

#[test]
fn a_daemon_without_processes_refuses_and_recovers() -> TestResult {
    scenario(|host| {
        let cgroup = pids_cgroup(host);
        fs::create_dir(&cgroup)?;
        let procs = cgroup.join("cgroup.procs");
        let daemon = host.daemon_pid().ok_or("no daemon")?;
        let children = fs::read_to_string(format!("/proc/{daemon}/task/{daemon}/children"))?;
        for pid in children.split_whitespace() {
            fs::write(&procs, pid)?;
        }
        fs::write(&procs, daemon.to_string())?;
        host.cli(["run", "-d", "--name", "cc", "busybox", "sleep", "1000"])?.ok()?;
        let pid = inspect(host, "cc", "{{.State.Pid}}")?;
        let current = fs::read_to_string(cgroup.join("pids.current"))?;
        fs::write(cgroup.join("pids.max"), current.trim())?;
        let refused = host.cli(["run", "--name", "late", "busybox", "true"])?;
        assert!(refused.code != 0 && !refused.stderr.is_empty(), "{refused:?}");
        assert_eq!(
            inspect(host, "cc", "{{.State.Status}} {{.State.Pid}}")?,
            format!("running {pid}")
        );
        let seen = inspect(host, "late", "{{.State.Status}} {{.State.Pid}}")?;
        assert_eq!(seen, "created 0", "{refused:?}");
        fs::write(cgroup.join("pids.max"), "max")?;
        eventually("it starts again", || {
            host.cli(["run", "--rm", "busybox", "echo", "hello"])
                .ok()
                .filter(|run| run.stdout == "hello\n")
        })?;
        host.cli(["rm", "-f", "cc", "late"])?.ok()?;
        let root = cgroup.parent().ok_or("no parent")?.join("cgroup.procs");
        eventually("the cgroup is empty", || {
            for pid in fs::read_to_string(&procs).ok()?.lines() {
                // One may end before it is moved.
                let _ = fs::write(&root, pid);
            }
            fs::remove_dir(&cgroup).ok()
        })?;
        Ok(())
    })
}

#[test]
fn a_log_without_space_loses_lines_tells_so_and_goes_on() -> TestResult {
    scenario(|host| {
        small_data_root(host)?;
        host.cli(["run", "-d", "--name", "writer", "busybox", "sleep", "1000"])?.ok()?;
        counter(host, "counts", 0)?;
        eventually("a first line", || {
            host.cli(["logs", "counts"]).ok().filter(|logs| logs.stdout.contains("line 1\n"))
        })?;
        fill_the_disk(host, "writer")?;
        eventually("the loss is told", || {
            host.daemon_log().contains("output could not be logged").then_some(())
        })?;
        goes_on(host, "counts", 100)?;
        let when_full = count(host, "counts").ok_or("it does not count")?;
        host.cli(["exec", "writer", "rm", "/big"])?.ok()?;
        let later = |line: &&str| {
            let number = line.strip_prefix("line ").and_then(|number| number.parse::<u64>().ok());
            number.is_some_and(|number| number > when_full)
        };
        eventually("new lines are kept", || {
            let logs = host.cli(["logs", "counts"]).ok()?.stdout;
            logs.lines().any(|line| later(&line)).then_some(())
        })?;
        host.cli(["stop", "-t", "0", "counts"])?.ok()?;
        let logs = host.cli(["logs", "counts"])?.ok()?;
        let mut last = 0;
        for line in logs.lines() {
            let number = line.strip_prefix("line ").ok_or_else(|| format!("{line:?}"))?;
            let number: u64 = number.parse()?;
            assert!(number > last, "{number} after {last}");
            last = number;
        }
        Ok(())
    })
}

/// Resident memory of a process in KiB.
fn resident(pid: u32) -> TestResult<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

#[test]
fn a_reader_that_stalls_holds_up_nobody_and_takes_no_memory() -> TestResult {
    scenario(|host| {
        counter(host, "counts", 8000)?;
        goes_on(host, "counts", 10)?;
        let daemon = host.daemon_pid().ok_or("no daemon")?;
        let before = resident(daemon)?;
        let follow = ["logs", "-f", "counts"];
        let mut stalled = Vec::new();
        for _ in 0..4 {
            stalled.push(host.command(RORQUAL).args(follow).stdout(Stdio::piped()).spawn()?);
        }
        // More than all buffers on the way hold.
        goes_on(host, "counts", 400)?;
        let after = resident(daemon)?;
        assert!(after < before + 16 * 1024, "{before} KiB, then {after} KiB");
        // An attached client is part of the program's pipe: it may stall the program, and nobody else.
        stalled.push(
            host.command(RORQUAL)
                .args(["attach", "--no-stdin", "--sig-proxy=false", "counts"])
                .stdout(Stdio::piped())
                .spawn()?,
        );
        host.cli(["exec", "counts", "echo", "there"])?.prints("there")?;
        host.cli(["stop", "-t", "0", "counts"])?.ok()?;
        let after = resident(daemon)?;
        assert!(after < before + 16 * 1024, "{before} KiB, then {after} KiB");
        for mut client in stalled {
            let mut out = client.stdout.take().ok_or("no output")?;
            let mut head = [0; 4];
            out.read_exact(&mut head)?;
            drop(out);
            client.wait()?;
        }
        Ok(())
    })
}

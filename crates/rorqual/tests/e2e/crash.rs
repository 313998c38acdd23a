//! `kill -9` of daemon, launcher and shim: nothing is lost, and what is told is true.

use std::fs;
use std::process::Command;

use rorqual_testkit::{Host, TestResult, eventually};

use crate::{inspect, scenario};

#[test]
fn a_killed_daemon_loses_no_container_no_line_and_no_exit_code() -> TestResult {
    scenario(|host| {
        let script =
            "i=0; while [ $i -lt 300 ]; do echo line $i; i=$((i+1)); sleep 0.01; done; exit 5";
        host.cli(["run", "-d", "--name", "busy", "busybox", "sh", "-c", script])?.ok()?;
        host.cli(["run", "-d", "--name", "calm", "busybox", "sleep", "1000"])?.ok()?;
        let pid = inspect(host, "calm", "{{.State.Pid}}")?;
        for _ in 0..3 {
            host.kill_daemon()?;
            host.start_daemon()?;
            assert_eq!(
                inspect(host, "calm", "{{.State.Status}} {{.State.Pid}}")?,
                format!("running {pid}")
            );
        }
        host.cli(["wait", "busy"])?.prints("5")?;
        let lines = host.cli(["logs", "busy"])?.ok()?;
        let wanted: Vec<String> = (0..300).map(|n| format!("line {n}")).collect();
        assert_eq!(lines.lines().collect::<Vec<_>>(), wanted);
        host.cli(["exec", "calm", "echo", "still here"])?.prints("still here")?;
        host.cli(["stop", "-t", "0", "calm"])?.ok()?;
        Ok(())
    })
}

#[test]
fn an_exit_while_no_daemon_runs_is_known_to_the_next() -> TestResult {
    scenario(|host| {
        let gate = host.folder().join("gate");
        fs::create_dir(&gate)?;
        let bind = format!("{}:/gate", gate.display());
        let script = "while [ ! -e /gate/open ]; do sleep 0.05; done; echo last words; exit 42";
        host.cli(["run", "-d", "--name", "cc", "-v", &bind, "busybox", "sh", "-c", script])?
            .ok()?;
        let pid = inspect(host, "cc", "{{.State.Pid}}")?;
        host.kill_daemon()?;
        fs::write(gate.join("open"), "")?;
        eventually("the container ended", || {
            (!fs::exists(format!("/proc/{pid}")).ok()?).then_some(())
        })?;
        host.start_daemon()?;
        assert_eq!(inspect(host, "cc", "{{.State.Status}} {{.State.ExitCode}}")?, "exited 42");
        host.cli(["logs", "cc"])?.prints("last words")?;
        Ok(())
    })
}

/// Finds the parent of a container's init: its shim.
fn shim_of(host: &Host, container: &str) -> TestResult<u32> {
    let pid = inspect(host, container, "{{.State.Pid}}")?;
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("PPid:")).ok_or("no parent")?;
    Ok(line.trim().parse()?)
}

#[test]
fn a_killed_shim_ends_its_container_truthfully() -> TestResult {
    scenario(|host| {
        host.cli(["run", "-d", "--name", "cc", "busybox", "sleep", "1000"])?.ok()?;
        let shim = shim_of(host, "cc")?;
        assert!(Command::new("kill").args(["-9", &shim.to_string()]).status()?.success());
        eventually("it is seen", || {
            (inspect(host, "cc", "{{.State.Status}} {{.State.ExitCode}}").ok()? == "exited 137")
                .then_some(())
        })?;
        host.cli(["start", "cc"])?.ok()?;
        host.cli(["exec", "cc", "true"])?.exits_with(0)?;
        Ok(())
    })
}

#[test]
fn a_killed_launcher_is_replaced() -> TestResult {
    scenario(|host| {
        host.cli(["run", "-d", "--name", "cc", "busybox", "sleep", "1000"])?.ok()?;
        let daemon = host.daemon_pid().ok_or("no daemon")?;
        let children = fs::read_to_string(format!("/proc/{daemon}/task/{daemon}/children"))?;
        for child in children.split_whitespace() {
            assert!(Command::new("kill").args(["-9", child]).status()?.success());
        }
        host.cli(["exec", "cc", "echo", "untouched"])?.prints("untouched")?;
        eventually("containers start again", || {
            host.cli(["run", "--rm", "busybox", "echo", "new"])
                .ok()
                .filter(|run| run.stdout == "new\n")
        })?;
        Ok(())
    })
}

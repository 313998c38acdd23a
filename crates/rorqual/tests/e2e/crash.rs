//! `kill -9` of daemon, launcher and shim: nothing is lost, and what is told is true.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::Instant;

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

/// Asks the daemon and returns the whole answer.
fn get(host: &Host, path: &str) -> TestResult<String> {
    let mut socket = UnixStream::connect(host.socket())?;
    write!(socket, "GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer)?;
    Ok(answer)
}

#[test]
fn an_exec_outlives_the_daemon_and_keeps_its_exit_code() -> TestResult {
    scenario(|host| {
        host.cli(["run", "-d", "--name", "cc", "busybox", "sleep", "1000"])?.ok()?;
        let script = "while [ ! -e /tmp/go ]; do sleep 0.05; done; exit 7";
        host.cli(["exec", "-d", "cc", "sh", "-c", script])?.ok()?;
        let ids = inspect(host, "cc", "{{json .ExecIDs}}")?;
        let exec = format!("/exec/{}/json", ids.trim_matches(['[', ']', '"']));
        host.kill_daemon()?;
        host.start_daemon()?;
        let seen = get(host, &exec)?;
        assert!(seen.contains("\"Running\":true") && seen.contains("tmp/go"), "{seen}");
        host.kill_daemon()?;
        host.start_daemon()?;
        host.cli(["exec", "cc", "touch", "/tmp/go"])?.ok()?;
        eventually("its exit code is known", || {
            get(host, &exec).ok().filter(|seen| seen.contains("\"ExitCode\":7"))
        })?;
        host.kill_daemon()?;
        host.start_daemon()?;
        let seen = get(host, &exec)?;
        assert!(seen.contains("\"ExitCode\":7"), "{seen}");
        Ok(())
    })
}

/// Starts `count` containers, eight at a time.
fn start_many(host: &Host, count: u32) -> TestResult {
    std::thread::scope(|scope| {
        let starters: Vec<_> = (0..8)
            .map(|starter| {
                scope.spawn(move || -> TestResult {
                    for number in (starter..count).step_by(8) {
                        let name = format!("many{number}");
                        host.cli(["run", "-d", "--name", &name, "busybox", "sleep", "1000"])?
                            .ok()?;
                    }
                    Ok(())
                })
            })
            .collect();
        starters
            .into_iter()
            .try_for_each(|starter| starter.join().map_err(|_| "a starter panicked")?)
    })
}

#[test]
#[ignore = "takes a minute; `make test-service` runs it"]
fn hundreds_of_containers_are_adopted_at_once() -> TestResult {
    const COUNT: u32 = 300;
    scenario(|host| {
        start_many(host, COUNT)?;
        let listed = ["ps", "-q", "--no-trunc"];
        let ids = host.cli(listed)?.ok()?;
        let pids = |host: &Host| {
            let format = ["inspect", "--format", "{{.State.Status}} {{.State.Pid}}"];
            host.cli(format.into_iter().chain(ids.lines()))?.ok()
        };
        let before = pids(host)?;
        assert_eq!(before.lines().count() as u32, COUNT);
        let mut slowest = std::time::Duration::ZERO;
        for _ in 0..3 {
            host.kill_daemon()?;
            let begun = Instant::now();
            host.start_daemon()?;
            slowest = slowest.max(begun.elapsed());
            assert_eq!(pids(host)?, before);
        }
        let mut figures = std::io::stderr();
        writeln!(
            figures,
            "{COUNT} containers adopted, the daemon ready after {slowest:?} at most"
        )?;
        // LIMIT: a tenth of it on a machine of its own with a release build.
        assert!(slowest.as_secs() < 10, "{slowest:?}");
        Ok(())
    })
}

/// Sends a signal to the parent of a container's first process: its shim.
fn signal_shim(host: &Host, container: &str, signal: &str) -> TestResult {
    let init = inspect(host, container, "{{.State.Pid}}")?;
    let status = fs::read_to_string(format!("/proc/{init}/status"))?;
    let shim = status.lines().find_map(|line| line.strip_prefix("PPid:")).ok_or("no parent")?;
    let sent = Command::new("kill").args([signal, shim.trim()]).status()?;
    if sent.success() { Ok(()) } else { Err("cannot send the shim a signal".into()) }
}

#[test]
fn a_shim_that_hangs_does_not_keep_its_container() -> TestResult {
    scenario(|host| {
        for name in ["one", "two"] {
            host.cli(["run", "-d", "--name", name, "busybox", "sleep", "1000"])?.ok()?;
            signal_shim(host, name, "-STOP")?;
        }
        let pid = inspect(host, "one", "{{.State.Pid}}")?;
        host.cli(["rm", "-f", "one"])?.ok()?;
        assert!(!fs::exists(format!("/proc/{pid}"))?, "its process is gone");
        // A daemon that never heard of the shim puts it down, too.
        host.kill_daemon()?;
        host.start_daemon()?;
        host.cli(["stop", "two"])?.exits_with(1)?.complains("does not answer")?;
        host.cli(["rm", "-f", "two"])?.ok()?;
        host.cli(["ps", "-aq"])?.prints("")?;
        Ok(())
    })
}

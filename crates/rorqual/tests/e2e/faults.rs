//! Crashes at any moment, full disks, impatience: nothing lost, nothing left, clear words.

use std::fs;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rorqual_testkit::{Host, HostOptions, TestResult, eventually};

use crate::{RORQUAL, inspect, scenario, scenario_with};

/// A small generator of numbers, the same in every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

/// One client among several: whatever it asks may fail, because the daemon is killed all the time.
fn customer(socket: &str, number: u64, stop: &AtomicBool) {
    let mut numbers = Numbers(number);
    while !stop.load(Ordering::Relaxed) {
        let name = format!("c{number}-{}", numbers.below(4));
        let name = name.as_str();
        let args: &[&str] = match numbers.below(9) {
            0 => &["create", "--name", name, "busybox", "sleep", "1000"],
            1 | 2 => &["run", "-d", "--name", name, "busybox", "sleep", "1000"],
            3 => &["run", "--rm", "busybox", "true"],
            4 => &["start", name],
            5 => &["exec", name, "true"],
            6 => &["stop", "-t", "0", name],
            7 => &["restart", "-t", "0", name],
            _ => &["rm", "-f", name],
        };
        Command::new(RORQUAL).args(["-H", socket]).args(args).output().ok();
    }
}

#[test]
fn a_daemon_killed_again_and_again_under_load_tells_the_truth() -> TestResult {
    scenario(|host| {
        let script = "i=0; while :; do echo line $i; i=$((i+1)); sleep 0.01; done";
        host.cli(["run", "-d", "--name", "steady", "busybox", "sh", "-c", script])?.ok()?;
        let pid = inspect(host, "steady", "{{.State.Pid}}")?;
        let socket = format!("unix://{}", host.socket().display());
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| -> TestResult {
            for number in 1..=3 {
                let (socket, stop) = (&socket, &stop);
                scope.spawn(move || customer(socket, number, stop));
            }
            let killed = kill_often(host, 12);
            stop.store(true, Ordering::Relaxed);
            killed
        })?;
        assert_eq!(
            inspect(host, "steady", "{{.State.Status}} {{.State.Pid}}")?,
            format!("running {pid}")
        );
        tells_the_truth(host)?;
        host.cli(["stop", "-t", "0", "steady"])?.ok()?;
        let lines = host.cli(["logs", "steady"])?.ok()?;
        for (number, line) in lines.lines().enumerate() {
            assert_eq!(line, format!("line {number}"));
        }
        Ok(())
    })
}

/// Compares what is told of every container with the processes there are.
fn tells_the_truth(host: &Host) -> TestResult {
    for id in host.cli(["ps", "-aq"])?.ok()?.lines() {
        let state = inspect(host, id, "{{.State.Status}} {{.State.Pid}}")?;
        let (status, pid) = state.split_once(' ').ok_or("no state")?;
        assert!(["created", "running", "exited"].contains(&status), "{state}");
        let runs = pid != "0" && fs::exists(format!("/proc/{pid}"))?;
        assert_eq!(status == "running", runs, "{state}");
    }
    Ok(())
}

/// The launcher and the shims of a host; they share its command line.
fn helpers_of(host: &Host) -> Vec<String> {
    let mark = format!("launcher\0{}", host.folder().display());
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    processes
        .filter(|process| {
            let line = fs::read(process.path().join("cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).contains(&mark)
        })
        .map(|process| process.file_name().to_string_lossy().into_owned())
        .collect()
}

#[test]
fn launchers_and_shims_killed_at_any_moment_leave_the_truth() -> TestResult {
    scenario(|host| {
        let socket = format!("unix://{}", host.socket().display());
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for number in 1..=3 {
                let (socket, stop) = (&socket, &stop);
                scope.spawn(move || customer(socket, number, stop));
            }
            let mut numbers = Numbers(11);
            for _ in 0..40 {
                // The moment of the crash is what varies here, not something that is waited for.
                let moment = Instant::now() + Duration::from_millis(numbers.below(150));
                while Instant::now() < moment {
                    std::thread::yield_now();
                }
                let helpers = helpers_of(host);
                let chosen = numbers.below(helpers.len().max(1) as u64) as usize;
                if let Some(pid) = helpers.get(chosen) {
                    // It may have ended by itself.
                    Command::new("kill").args(["-9", pid]).output().ok();
                }
            }
            stop.store(true, Ordering::Relaxed);
        });
        eventually("new containers start", || {
            let run = host.cli(["run", "--rm", "busybox", "echo", "new"]).ok()?;
            (run.stdout == "new\n").then_some(())
        })?;
        // The death of a shim takes a moment to be heard of.
        eventually("the truth is told", || {
            let dead = |id: &&str| {
                let pid = inspect(host, id, "{{.State.Pid}}").unwrap_or_default();
                pid != "0" && !fs::exists(format!("/proc/{pid}")).unwrap_or(true)
            };
            let ids = host.cli(["ps", "-q"]).ok()?.stdout;
            (!ids.lines().any(|id| dead(&id))).then_some(())
        })?;
        tells_the_truth(host)
    })
}

fn kill_often(host: &mut Host, times: usize) -> TestResult {
    let mut numbers = Numbers(7);
    for _ in 0..times {
        // The moment of the crash is what varies here, not something that is waited for.
        let moment = Instant::now() + Duration::from_millis(numbers.below(300));
        while Instant::now() < moment {
            std::thread::yield_now();
        }
        host.kill_daemon()?;
        host.start_daemon()?;
    }
    Ok(())
}

#[test]
fn a_container_does_not_outlive_its_shim_even_without_a_daemon() -> TestResult {
    scenario(|host| {
        host.cli(["run", "-d", "--name", "cc", "-u", "app", "busybox", "sleep", "1000"])?.ok()?;
        let pid = inspect(host, "cc", "{{.State.Pid}}")?;
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let shim = status.lines().find_map(|line| line.strip_prefix("PPid:")).ok_or("no parent")?;
        host.kill_daemon()?;
        assert!(Command::new("kill").args(["-9", shim.trim()]).status()?.success());
        eventually("the container ends", || {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            (stat.is_empty() || stat.contains(") Z ")).then_some(())
        })?;
        host.start_daemon()?;
        assert_eq!(inspect(host, "cc", "{{.State.Status}} {{.State.ExitCode}}")?, "exited 137");
        host.cli(["start", "cc"])?.ok()?;
        Ok(())
    })
}

#[test]
fn force_cuts_a_patient_stop_short() -> TestResult {
    scenario(|host| {
        let script = "trap 'echo asked' TERM; echo ready; while :; do sleep 0.1; done";
        for name in ["aa", "bb"] {
            host.cli(["run", "-d", "--name", name, "busybox", "sh", "-c", script])?.ok()?;
            eventually("it is ready", || {
                host.cli(["logs", name]).ok().filter(|logs| logs.stdout.contains("ready"))
            })?;
            let mut patient = host.command(RORQUAL).args(["stop", "-t", "1000", name]).spawn()?;
            eventually("the stop has begun", || {
                host.cli(["logs", name]).ok().filter(|logs| logs.stdout.contains("asked"))
            })?;
            if name == "aa" {
                host.cli(["rm", "-f", name])?.ok()?;
            } else {
                host.cli(["stop", "-t", "0", name])?.ok()?;
                assert_eq!(inspect(host, name, "{{.State.ExitCode}}")?, "137");
            }
            patient.wait()?;
        }
        Ok(())
    })
}

/// Puts a file system of 16 MiB under the data root.
pub(crate) fn small_data_root(host: &mut Host) -> TestResult {
    host.stop_daemon()?;
    let data = host.folder().join("data");
    let mount = ["-t", "tmpfs", "-o", "size=16m", "small"];
    assert!(host.command("mount").args(mount).arg(&data).status()?.success());
    host.start_daemon()?;
    host.import_busybox()
}

/// Writes from inside a container until not a byte is left.
pub(crate) fn fill_the_disk(host: &Host, container: &str) -> TestResult {
    let script = "cat /dev/zero >>/big || echo full";
    host.cli(["exec", container, "sh", "-c", script])?.prints("full")?;
    Ok(())
}

#[test]
fn a_full_disk_is_told_and_survived() -> TestResult {
    let options =
        HostOptions { flags: vec!["--live-restore".to_owned()], ..HostOptions::default() };
    scenario_with(options, |host| {
        small_data_root(host)?;
        for name in ["writer", "killed", "ends"] {
            host.cli(["run", "-d", "--name", name, "busybox", "sleep", "1000"])?.ok()?;
        }
        for number in 0..10 {
            host.cli(["create", "--name", &format!("idle{number}"), "busybox", "true"])?.ok()?;
        }
        fill_the_disk(host, "writer")?;
        let refused = host.cli(["run", "--rm", "busybox", "echo", "hello"])?;
        assert!(refused.code == 0 || refused.stderr.contains("o space left"), "{refused:?}");
        let load = host.cli_with_input(["import", "-", "second"], &vec![0; 1 << 20])?;
        assert!(load.code != 0 || load.stdout.contains("sha256:"), "{load:?}");
        fill_the_disk(host, "writer")?;
        host.cli(["kill", "killed"])?.ok()?;
        assert_eq!(inspect(host, "killed", "{{.State.Status}} {{.State.ExitCode}}")?, "exited 137");
        host.cli(["exec", "ends", "kill", "-9", "-1"])?;
        host.cli(["stop", "-t", "0", "ends"])?.ok()?;
        // A crash and a proper end: both must come up again without a byte of free space.
        host.kill_daemon()?;
        host.start_daemon()?;
        host.stop_daemon()?;
        host.start_daemon()?;
        assert_eq!(inspect(host, "writer", "{{.State.Status}}")?, "running");
        assert_eq!(inspect(host, "killed", "{{.State.Status}} {{.State.ExitCode}}")?, "exited 137");
        fill_the_disk(host, "writer")?;
        for number in 0..10 {
            host.cli(["rm", &format!("idle{number}")])?.ok()?;
        }
        host.cli(["rm", "killed", "ends"])?.ok()?;
        host.cli(["rm", "-f", "writer"])?.ok()?;
        eventually("there is space again", || {
            host.cli(["run", "--rm", "busybox", "echo", "hello"])
                .ok()
                .filter(|run| run.stdout == "hello\n")
        })?;
        Ok(())
    })
}

#[test]
fn nothing_of_the_host_reaches_a_container() -> TestResult {
    scenario(|host| {
        // The fourth is the directory that is being read.
        host.cli(["run", "--rm", "busybox", "ls", "/proc/self/fd"])?.prints("0\n1\n2\n3")?;
        let seen = host.cli(["run", "--rm", "busybox", "env"])?.ok()?;
        let names: Vec<_> = seen.lines().filter_map(|line| line.split('=').next()).collect();
        assert!(names.iter().all(|name| ["PATH", "HOSTNAME", "HOME"].contains(name)), "{seen}");
        Ok(())
    })
}

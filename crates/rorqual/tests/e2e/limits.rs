//! Limits really limit.

use rorqual_testkit::TestResult;

use crate::{inspect, scenario};

#[test]
fn memory_beyond_the_limit_kills_and_says_so() -> TestResult {
    scenario(|host| {
        let hog = "x=a; while :; do x=$x$x$x$x; done";
        host.cli([
            "run",
            "--name",
            "mm",
            "--memory",
            "32m",
            "--memory-swap",
            "32m",
            "busybox",
            "sh",
            "-c",
            hog,
        ])?
        .exits_with(137)?;
        assert_eq!(
            inspect(host, "mm", "{{.State.OOMKilled}} {{.HostConfig.Memory}}")?,
            "true 33554432"
        );
        host.cli(["run", "--memory", "1m", "busybox", "true"])?
            .exits_with(125)?
            .complains("Minimum memory limit allowed is 6MB")?;
        Ok(())
    })
}

#[test]
fn the_number_of_processes_is_bounded() -> TestResult {
    scenario(|host| {
        let forks =
            "for i in 1 2 3 4 5 6 7 8 9 10 11 12; do sleep 1000 & done 2>/dev/null; jobs | wc -l";
        let run = host.cli(["run", "--rm", "--pids-limit", "8", "busybox", "sh", "-c", forks])?;
        assert!(run.code != 0 || run.stdout.trim().parse::<u32>()? < 9, "{run:?}");
        assert!(run.stderr.contains("fork") || run.stdout.trim() != "12", "{run:?}");
        Ok(())
    })
}

#[test]
fn a_cpu_quota_shows_in_the_cpu_time() -> TestResult {
    scenario(|host| {
        let script = "timeout 2 sh -c 'while :; do :; done'; exit 0";
        host.cli([
            "run",
            "-d",
            "--name",
            "qq",
            "--cpus",
            "0.2",
            "busybox",
            "sh",
            "-c",
            "while :; do :; done",
        ])?
        .ok()?;
        host.cli(["run", "--rm", "busybox", "sh", "-c", script])?.ok()?;
        let stats = host.cli(["stats", "--no-stream", "--format", "{{.CPUPerc}}", "qq"])?.ok()?;
        let percent: f64 = stats.trim_end_matches('%').parse()?;
        assert!((5.0..45.0).contains(&percent), "{stats}");
        host.cli(["update", "--cpus", "0.5", "qq"])?.prints("qq")?;
        assert_eq!(inspect(host, "qq", "{{.HostConfig.NanoCpus}}")?, "500000000");
        Ok(())
    })
}

#[test]
fn limits_of_disks_that_are_not_there_are_refused() -> TestResult {
    scenario(|host| {
        let run = ["run", "--rm", "--device-read-bps", "/dev/nothing:1mb", "busybox", "true"];
        let refused = host.cli(run)?;
        refused.exits_with(127)?.complains("stat /dev/nothing: no such file or directory")?;
        Ok(())
    })
}

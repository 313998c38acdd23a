//! States, stop and kill, restart policies, health, events.

use rorqual_testkit::{TestResult, eventually};

use crate::{inspect, scenario};

#[test]
fn a_container_goes_through_its_states() -> TestResult {
    scenario(|host| {
        let status = |name: &str| inspect(host, name, "{{.State.Status}}");
        host.cli(["create", "--name", "cc", "busybox", "sleep", "1000"])?.ok()?;
        assert_eq!(status("cc")?, "created");
        host.cli(["start", "cc"])?.ok()?;
        assert_eq!(status("cc")?, "running");
        host.cli(["pause", "cc"])?.ok()?;
        assert_eq!(status("cc")?, "paused");
        host.cli(["exec", "cc", "true"])?.exits_with(1)?.complains("is paused")?;
        host.cli(["unpause", "cc"])?.ok()?;
        assert_eq!(status("cc")?, "running");
        host.cli(["stop", "-t", "0", "cc"])?.ok()?;
        assert_eq!(inspect(host, "cc", "{{.State.Status}} {{.State.ExitCode}}")?, "exited 137");
        host.cli(["restart", "-t", "0", "cc"])?.ok()?;
        assert_eq!(status("cc")?, "running");
        host.cli(["rename", "cc", "dd"])?.ok()?;
        host.cli(["kill", "dd"])?.ok()?;
        host.cli(["wait", "dd"])?.prints("137")?;
        host.cli(["rm", "dd"])?.ok()?;
        host.cli(["inspect", "dd"])?.exits_with(1)?;
        Ok(())
    })
}

#[test]
fn stop_sends_the_signal_that_was_asked_for() -> TestResult {
    scenario(|host| {
        let script = "trap 'echo got it; exit 3' USR1; echo ready; while :; do sleep 0.1; done";
        host.cli([
            "run",
            "-d",
            "--name",
            "cc",
            "--stop-signal",
            "USR1",
            "busybox",
            "sh",
            "-c",
            script,
        ])?
        .ok()?;
        eventually("it is ready", || {
            host.cli(["logs", "cc"]).ok().filter(|logs| logs.stdout.contains("ready"))
        })?;
        host.cli(["stop", "cc"])?.ok()?;
        assert_eq!(inspect(host, "cc", "{{.State.ExitCode}}")?, "3");
        host.cli(["logs", "cc"])?.prints("ready\ngot it")?;
        Ok(())
    })
}

#[test]
fn restart_policies_decide_who_comes_back() -> TestResult {
    scenario(|host| {
        host.cli(["run", "-d", "--name", "ff", "--restart", "on-failure:2", "busybox", "false"])?
            .ok()?;
        eventually("two restarts", || {
            let state = inspect(host, "ff", "{{.RestartCount}} {{.State.Status}}").ok()?;
            (state == "2 exited").then_some(())
        })?;
        host.cli(["run", "-d", "--name", "aa", "--restart", "always", "busybox", "sleep", "1000"])?
            .ok()?;
        let pid = inspect(host, "aa", "{{.State.Pid}}")?;
        host.cli(["exec", "aa", "sh", "-c", "kill -9 -1"])?;
        host.cli(["kill", "ff"])?.exits_with(1)?;
        let killed = std::process::Command::new("kill").args(["-9", &pid]).status()?;
        assert!(killed.success());
        eventually("it is back", || {
            let now = inspect(host, "aa", "{{.State.Running}} {{.State.Pid}}").ok()?;
            (now.starts_with("true ") && now != format!("true {pid}") && now != "true 0")
                .then_some(())
        })?;
        host.cli(["stop", "-t", "0", "aa"])?.ok()?;
        assert_eq!(inspect(host, "aa", "{{.State.Running}}")?, "false");
        Ok(())
    })
}

#[test]
fn a_health_check_tells_healthy_from_unhealthy() -> TestResult {
    scenario(|host| {
        let flags = [
            "--health-cmd",
            "test -e /tmp/ok",
            "--health-interval",
            "100ms",
            "--health-retries",
            "2",
        ];
        let args = ["run", "-d", "--name", "hh"]
            .into_iter()
            .chain(flags)
            .chain(["busybox", "sleep", "1000"]);
        host.cli(args)?.ok()?;
        let health = |wanted: &str| {
            eventually(wanted, || {
                (inspect(host, "hh", "{{.State.Health.Status}}").ok()? == wanted).then_some(())
            })
        };
        health("unhealthy")?;
        host.cli(["exec", "hh", "touch", "/tmp/ok"])?.ok()?;
        health("healthy")?;
        Ok(())
    })
}

#[test]
fn events_tell_the_story_in_order() -> TestResult {
    scenario(|host| {
        host.cli(["run", "--rm", "--name", "ee", "busybox", "true"])?.ok()?;
        let story = || -> TestResult<String> {
            let args = ["events", "--since", "0", "--until", "0s", "--filter", "type=container"];
            host.cli(args.into_iter().chain(["--format", "{{.Action}}"]))?.ok()
        };
        let wanted = ["create", "attach", "start", "die", "destroy"];
        eventually("the whole story", || {
            (story().ok()?.lines().collect::<Vec<_>>() == wanted).then_some(())
        })
        .map_err(|error| format!("{error}: {:?}", story()))?;
        Ok(())
    })
}

#[test]
fn prune_removes_what_has_ended_only() -> TestResult {
    scenario(|host| {
        host.cli(["run", "--name", "old", "busybox", "true"])?.ok()?;
        host.cli(["run", "-d", "--name", "new", "busybox", "sleep", "1000"])?.ok()?;
        host.cli(["container", "prune", "-f"])?.ok()?;
        host.cli(["ps", "-a", "--format", "{{.Names}}"])?.prints("new")?;
        Ok(())
    })
}

#[test]
fn a_container_that_removes_itself_survives_restarts() -> TestResult {
    scenario(|host| {
        host.cli(["run", "-d", "--rm", "--name", "cc", "busybox", "sleep", "1000"])?.ok()?;
        let id = inspect(host, "cc", "{{.Id}}")?;
        for _ in 0..5 {
            host.cli(["restart", "-t", "0", "cc"])?.ok()?;
            assert_eq!(inspect(host, "cc", "{{.Id}} {{.State.Status}}")?, format!("{id} running"));
        }
        host.cli(["stop", "-t", "0", "cc"])?.ok()?;
        eventually("it is removed", || {
            host.cli(["inspect", "cc"]).ok().filter(|found| found.code != 0)
        })?;
        Ok(())
    })
}

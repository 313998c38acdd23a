//! The daemon killed while networks change, and while a published port is in use.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rorqual_testkit::{Host, TestResult, eventually};

use crate::{RORQUAL, inspect, scenario};

/// LIMIT: moments at which the daemon is killed during one command, spread over how long that command takes.
const MOMENTS: u32 = 8;

/// Runs a client command and kills the daemon `after` it was begun; starts the daemon again.
fn killed(host: &mut Host, args: &[&str], after: Duration) -> TestResult {
    let socket = format!("unix://{}", host.socket().display());
    let mut client = Command::new(RORQUAL);
    client.args(["-H", &socket]).args(args).stdout(Stdio::null()).stderr(Stdio::null());
    let begun = Instant::now();
    let mut client = client.spawn()?;
    while begun.elapsed() < after {
        std::hint::spin_loop();
    }
    host.kill_daemon()?;
    // What it answers depends on the moment.
    client.wait()?;
    host.start_daemon()
}

/// Lists links of containers on the host's side.
fn links(host: &Host) -> TestResult<Vec<String>> {
    let listed = host.run({
        let mut command = host.command("ip");
        command.args(["-br", "link", "show", "type", "veth"]);
        command
    })?;
    let names = listed.ok()?;
    Ok(names.lines().filter_map(|line| line.split('@').next()).map(str::to_owned).collect())
}

/// Counts elements of the maps of published ports.
fn published(host: &Host) -> TestResult<usize> {
    let mut command = host.command("nft");
    command.args(["list", "ruleset"]);
    let rules = host.run(command)?.ok()?;
    Ok(rules.lines().filter(|line| line.contains("tcp . ")).count())
}

/// Fails unless the container's interfaces are those that `inspect` shows.
fn interfaces_are_true(host: &Host, container: &str, moment: Duration) -> TestResult {
    let shown = inspect(host, container, "{{len .NetworkSettings.Networks}}")?;
    let inside = host.cli(["exec", container, "ip", "-o", "link"])?.ok()?;
    let inside = inside.lines().filter(|line| line.contains(": eth")).count().to_string();
    assert_eq!(shown, inside, "killed after {moment:?}");
    Ok(())
}

#[test]
fn a_kill_while_networks_change_leaves_the_truth_and_nothing_else() -> TestResult {
    scenario(|host| {
        host.cli(["network", "create", "side"])?.ok()?;
        host.cli(["run", "-d", "--name", "one", "busybox", "sleep", "1000"])?.ok()?;
        let timed = |host: &Host, args: &[&str]| -> TestResult<Duration> {
            let begun = Instant::now();
            host.cli(args)?.ok()?;
            Ok(begun.elapsed())
        };
        let (connect, disconnect) =
            (["network", "connect", "side", "one"], ["network", "disconnect", "side", "one"]);
        for (change, back) in [(connect, disconnect), (disconnect, connect)] {
            let takes = timed(host, &change)?;
            host.cli(back)?.ok()?;
            for moment in (1..=MOMENTS).map(|part| takes * part / MOMENTS) {
                killed(host, &change, moment)?;
                interfaces_are_true(host, "one", moment)?;
                // Whether it was done or not, it can be done and undone.
                host.cli(change)?;
                interfaces_are_true(host, "one", moment)?;
                host.cli(back)?.ok()?;
                interfaces_are_true(host, "one", moment)?;
            }
            host.cli(change)?.ok()?;
        }
        host.cli(["rm", "-f", "one"])?.ok()?;
        host.cli(["network", "rm", "side"])?.ok()?;
        eventually("no link of a container is left", || {
            links(host).ok().filter(|links| links.iter().all(|link| link.starts_with("rq")))
        })?;
        Ok(())
    })
}

#[test]
fn a_kill_while_a_port_is_published_leaves_no_port() -> TestResult {
    scenario(|host| {
        let run = ["run", "-d", "--name", "web", "-p", "18080:80", "busybox", "sleep", "1000"];
        let begun = Instant::now();
        host.cli(run)?.ok()?;
        let takes = begun.elapsed();
        assert_eq!(published(host)?, 1);
        host.cli(["rm", "-f", "web"])?.ok()?;
        for moment in (1..=MOMENTS).map(|part| takes * part / MOMENTS) {
            killed(host, &run, moment)?;
            let state = host.cli(["inspect", "-f", "{{.State.Status}}", "web"])?.ok();
            let running = state.is_ok_and(|state| state == "running");
            assert_eq!(published(host)?, usize::from(running), "killed after {moment:?}");
            host.cli(["rm", "-f", "web"])?;
            assert_eq!(published(host)?, 0, "killed after {moment:?}");
            // The port is free for everybody again.
            host.cli(["run", "--rm", "-p", "18080:80", "busybox", "true"])?.ok()?;
        }
        Ok(())
    })
}

#[test]
fn a_published_port_is_served_while_the_daemon_is_killed_and_restarted() -> TestResult {
    scenario(|host| {
        let script = "mkdir /www; echo here > /www/index.html; exec httpd -f -p 80 -h /www";
        let flags = ["run", "-d", "--name", "web", "-p", "18080:80", "busybox", "sh", "-c", script];
        host.cli(flags)?.ok()?;
        let ask = |host: &Host| {
            let mut curl = host.command("curl");
            curl.args(["-sfm", "5", "http://127.0.0.1:18080/"]);
            host.run(curl).ok()?.ok().ok()
        };
        eventually("the server answers", || ask(host))?;
        let mut load = host.command("wrk");
        load.args(["-t", "1", "-c", "4", "-d", "6s", "http://127.0.0.1:18080/"]);
        let load = load.stdout(Stdio::piped()).spawn();
        let Ok(load) = load else { return Ok(()) };
        for _ in 0..3 {
            host.kill_daemon()?;
            host.start_daemon()?;
            let mut flush = host.command("nft");
            flush.args(["flush", "ruleset"]);
            host.run(flush)?.ok()?;
        }
        let report = String::from_utf8(load.wait_with_output()?.stdout)?;
        assert!(!report.contains("Socket errors") && !report.contains("Non-2xx"), "{report}");
        assert!(report.contains("requests in"), "{report}");
        Ok(())
    })
}

//! The daemon as a service: configuration, reload, listeners, conflicts, shutdown, restart policies.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::time::{Duration, Instant};

use rorqual_testkit::{Host, HostOptions, TestResult, eventually};

use crate::{inspect, scenario, scenario_with};

pub(super) fn with_flags(flags: &[&str]) -> HostOptions {
    HostOptions {
        flags: flags.iter().map(|flag| (*flag).to_owned()).collect(),
        ..HostOptions::default()
    }
}

fn with_config(text: &str) -> HostOptions {
    HostOptions { config: Some(text.to_owned()), ..HostOptions::default() }
}

/// Reads one value from `info` of the real client.
fn info(host: &Host, format: &str) -> TestResult<String> {
    host.docker(["info", "--format", format])?.ok()
}

/// Flags that keep a second daemon away from the places of the first.
fn other_places(host: &Host) -> [String; 6] {
    let place = |name: &str| host.folder().join(name).display().to_string();
    let word = str::to_owned;
    [
        word("--data-root"),
        place("data2"),
        word("--exec-root"),
        place("run2"),
        word("-p"),
        place("pid2"),
    ]
}

#[test]
fn sighup_reads_again_what_may_change() -> TestResult {
    scenario_with(with_config(r#"{"labels": ["a=b"]}"#), |host| {
        let shown = "{{.Debug}} {{.LiveRestoreEnabled}} {{json .Labels}}";
        assert_eq!(info(host, shown)?, r#"false false ["a=b"]"#);
        let file = host.folder().join("daemon.json");
        fs::write(
            &file,
            r#"{"debug": true, "labels": ["c=d"], "live-restore": true, "shutdown-timeout": 3,
                "registry-mirrors": ["http://127.0.0.1:1"], "mtu": 1400}"#,
        )?;
        host.signal_daemon("HUP")?;
        eventually("the settings are new", || {
            (info(host, shown).ok()? == r#"true true ["c=d"]"#).then_some(())
        })?;
        host.cli(["inspect", "nobody"])?.exits_with(1)?;
        eventually("debug messages come", || host.daemon_log().contains("DEBUG").then_some(()))?;
        let until = host.docker(["info", "--format", "{{.SystemTime}}"])?.ok()?;
        let format = "{{.Type}} {{.Action}} {{json .Actor.Attributes}}";
        let events = ["events", "--since", "1h", "--until", &until, "--format", format];
        let events = host.docker(events.into_iter().chain(["--filter", "type=daemon"]))?.ok()?;
        for part in [
            "daemon reload",
            r#""debug":"true""#,
            r#""labels":"[\"c=d\"]""#,
            r#""live-restore":"true""#,
            r#""shutdown-timeout":"3""#,
            r#""registry-mirrors":"[\"http://127.0.0.1:1\"]""#,
        ] {
            assert!(events.contains(part), "{part} in {events}");
        }

        fs::write(&file, r#"{"labels": ["e=f"], "nonsense": 1}"#)?;
        host.signal_daemon("HUP")?;
        eventually("the mistake is told", || {
            host.daemon_log().contains("match any configuration option: nonsense").then_some(())
        })?;
        assert_eq!(info(host, shown)?, r#"true true ["c=d"]"#);

        // What was read again counts at the end, too.
        host.cli(["run", "-d", "--name", "cc", "busybox", "sleep", "1000"])?.ok()?;
        let pid = inspect(host, "cc", "{{.State.Pid}}")?;
        host.stop_daemon()?;
        assert!(fs::exists(format!("/proc/{pid}"))?);
        fs::write(&file, "{}")?;
        host.start_daemon()?;
        assert_eq!(
            inspect(host, "cc", "{{.State.Status}} {{.State.Pid}}")?,
            format!("running {pid}")
        );
        host.cli(["rm", "-f", "cc"])?.ok()?;
        Ok(())
    })
}

#[test]
fn mistakes_in_the_configuration_are_told_in_docker_s_words() -> TestResult {
    scenario(|host| {
        let file = host.folder().join("other.json");
        let validate = |flags: &[&str], text: &str| {
            fs::write(&file, text)?;
            let path = file.display().to_string();
            let own = ["--validate", "--config-file", path.as_str()];
            host.refused_daemon(own.iter().chain(flags))
        };
        validate(&[], "{}")?.exits_with(0)?.complains("configuration OK")?;
        validate(&["-H", "tcp://127.0.0.1:1"], "")?.exits_with(0)?;
        let with_file =
            format!("unable to configure the Docker daemon with file {}: ", file.display());
        for (flags, text, words) in [
            (
                &[][..],
                r#"{"foo": 1}"#,
                "the following directives don't match any configuration option: foo",
            ),
            (
                &["-D"],
                r#"{"debug": true}"#,
                "the following directives are specified both as a flag and in the \
             configuration file: debug: (from flag: true, from file: true)",
            ),
            (&[], r#"{"debug": true"#, "invalid JSON: "),
            (&[], r#"{"debug": true, "debug": true}"#, "the key \"debug\" is given twice"),
            (&[], r#"{"debug": "yes"}"#, "debug: need true or false"),
        ] {
            validate(flags, text)?.exits_with(1)?.complains(&format!("{with_file}{words}"))?;
        }
        for (flags, words) in [
            (&["--log-level", "loud"][..], "invalid logging level: loud"),
            (&["--log-format", "xml"], "invalid log format: xml"),
            (&["--label", "x"], "bad attribute format: x"),
            (&["--add-runtime", "kata=/x"], "runtimes: "),
            (&["--storage-driver", "btrfs"], "storage-driver: "),
            (&["--no-such-flag"], "unknown flag: --no-such-flag"),
            (&["word"], "accepts no arguments: word"),
            (&["--mtu"], "flag needs an argument: --mtu"),
        ] {
            validate(flags, "{}")?.exits_with(1)?.complains(words)?;
        }
        // What needs nothing here is taken without a word.
        validate(&["--userland-proxy=false", "--containerd", "/x"], "{}")?.exits_with(0)?;
        Ok(())
    })
}

#[test]
fn the_log_has_the_chosen_form_and_level() -> TestResult {
    scenario_with(with_flags(&["--log-format", "json", "-l", "debug"]), |host| {
        host.cli(["inspect", "nobody"])?.exits_with(1)?;
        let log = host.daemon_log();
        assert!(log.lines().all(|line| line.starts_with('{') && line.ends_with('}')), "{log}");
        assert!(log.contains(r#""level":"DEBUG""#), "{log}");
        Ok(())
    })?;
    scenario_with(with_flags(&["--log-level", "error"]), |host| {
        assert_eq!(host.daemon_log(), "");
        Ok(())
    })
}

#[test]
fn a_second_daemon_is_refused() -> TestResult {
    scenario(|host| {
        let folder = host.folder();
        let at = |name: &str| folder.join(name).display().to_string();
        let socket = |name: &str| format!("unix://{}", at(name));
        for (flags, words) in [
            ([at("data"), at("run2"), at("pid2"), socket("sock2")], "another daemon uses it"),
            ([at("data2"), at("run"), at("pid2"), socket("sock2")], "another daemon uses it"),
            ([at("data2"), at("run2"), at("pid"), socket("sock2")], "is still running"),
            (
                [at("data2"), at("run2"), at("pid2"), socket("sock")],
                "another process listens there",
            ),
        ] {
            let [data, run, pid, socket] = flags;
            let flags = ["--data-root", &data, "--exec-root", &run, "-p", &pid, "-H", &socket];
            host.refused_daemon(flags)?.exits_with(1)?.complains(words)?;
        }
        // Neither took anything from the first one.
        let pid = host.daemon_pid().map(|pid| pid.to_string());
        assert_eq!(Some(fs::read_to_string(folder.join("pid"))?), pid);
        host.cli(["run", "--rm", "busybox", "true"])?.exits_with(0)?;
        assert!(!folder.join("pid2").exists() && !folder.join("sock2").exists());
        Ok(())
    })
}

#[test]
fn a_pid_file_of_the_dead_is_taken_over() -> TestResult {
    scenario(|host| {
        host.kill_daemon()?;
        assert!(host.folder().join("pid").exists());
        host.start_daemon()?;
        host.stop_daemon()?;
        assert!(!host.folder().join("pid").exists() && !host.socket().exists());
        Ok(())
    })
}

#[test]
fn the_socket_belongs_to_the_chosen_group() -> TestResult {
    scenario_with(with_flags(&["-G", "audio"]), |host| {
        let meta = fs::metadata(host.socket())?;
        let groups = fs::read_to_string("/etc/group")?;
        let audio =
            groups.lines().find_map(|line| line.strip_prefix("audio:x:")).ok_or("no group")?;
        let number: u32 = audio.split(':').next().unwrap_or_default().parse()?;
        assert_eq!((meta.permissions().mode() & 0o777, meta.gid()), (0o660, number));
        let places = other_places(host);
        let flags = ["-G", "no-such-group"].into_iter().chain(places.iter().map(String::as_str));
        host.refused_daemon(flags)?.exits_with(1)?.complains("group no-such-group not found")?;
        Ok(())
    })
}

#[test]
fn a_socket_that_is_handed_over_is_served() -> TestResult {
    let options = HostOptions { activated: true, ..HostOptions::default() };
    scenario_with(options, |host| {
        host.docker(["run", "--rm", "busybox", "echo", "hello"])?.prints("hello")?;
        host.stop_daemon()?;
        // It is not ours to remove.
        assert!(host.socket().exists());
        host.start_daemon()?;
        let places = other_places(host);
        let flags = ["-H", "fd://"].into_iter().chain(places.iter().map(String::as_str));
        host.refused_daemon(flags)?
            .exits_with(1)?
            .complains("no sockets found via socket activation")?;
        Ok(())
    })
}

#[test]
fn plain_tcp_stays_on_this_host_unless_forced() -> TestResult {
    scenario_with(with_flags(&["-H", "tcp://127.0.0.1:2375"]), |host| {
        host.docker(["-H", "tcp://127.0.0.1:2375", "run", "--rm", "busybox", "echo", "hi"])?
            .prints("hi")?;
        host.cli(["-H", "tcp://127.0.0.1:2375", "run", "--rm", "busybox", "echo", "hi"])?
            .prints("hi")?;
        assert!(host.daemon_log().contains("reachable over TCP without authentication"));
        assert!(info(host, "{{json .Warnings}}")?.contains("API is accessible over TCP"));
        let places = other_places(host);
        for address in ["tcp://0.0.0.0:2377", "tcp://:2377"] {
            let flags = ["-H", address].into_iter().chain(places.iter().map(String::as_str));
            host.refused_daemon(flags)?
                .exits_with(1)?
                .complains("without TLS anybody who reaches it is root")?;
        }
        Ok(())
    })?;
    scenario_with(with_flags(&["-H", "tcp://0.0.0.0:2377", "--allow-insecure-tcp"]), |host| {
        assert!(host.daemon_log().contains("reachable over TCP without authentication"));
        host.docker(["-H", "tcp://127.0.0.1:2377", "version"])?.exits_with(0)?;
        Ok(())
    })
}

/// Starts a container that answers SIGTERM with `code`, and waits until it is ready to.
fn answers_term(host: &Host, name: &str, code: &str, flags: &[&str]) -> TestResult {
    let script = format!("trap 'exit {code}' TERM; echo ready; while :; do sleep 0.1; done");
    let words = ["run", "-d", "--name", name].into_iter().chain(flags.iter().copied());
    host.cli(words.chain(["busybox", "sh", "-c", script.as_str()]))?.ok()?;
    eventually("the trap is set", || {
        host.cli(["logs", name]).ok().filter(|logs| logs.stdout.contains("ready")).map(|_| ())
    })
}

#[test]
fn a_shutdown_stops_containers_with_their_codes() -> TestResult {
    scenario(|host| {
        answers_term(host, "polite", "7", &[])?;
        answers_term(host, "comes-back", "8", &["--restart", "unless-stopped"])?;
        let ignores = "trap '' TERM; echo ready; while :; do sleep 0.1; done";
        let stubborn =
            ["run", "-d", "--name", "stubborn", "--stop-timeout", "1", "busybox", "sh", "-c"];
        host.cli(stubborn.into_iter().chain([ignores]))?.ok()?;
        eventually("the trap is set", || {
            host.cli(["logs", "stubborn"])
                .ok()
                .filter(|logs| logs.stdout.contains("ready"))
                .map(|_| ())
        })?;
        let begun = Instant::now();
        host.stop_daemon()?;
        // The stubborn one's second, not the default of ten.
        assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
        host.start_daemon()?;
        let state = "{{.State.Status}} {{.State.ExitCode}}";
        assert_eq!(inspect(host, "polite", state)?, "exited 7");
        assert_eq!(inspect(host, "stubborn", state)?, "exited 137");
        eventually("the policy brings it back", || {
            (inspect(host, "comes-back", "{{.State.Status}}").ok()? == "running").then_some(())
        })
    })
}

/// Containers by policy, of each a running one and one that was stopped by hand, and which run after a restart.
const POLICIES: [(&str, &str, bool, bool); 4] = [
    ("no", "no", false, false),
    ("always", "always", true, true),
    ("unless", "unless-stopped", true, false),
    ("failure", "on-failure:3", true, false),
];

fn with_all_policies(host: &Host) -> TestResult {
    for (name, policy, ..) in POLICIES {
        for kind in ["runs", "stopped"] {
            let name = format!("{name}-{kind}");
            let words = [
                "run",
                "-d",
                "--name",
                &name,
                "--restart",
                policy,
                "--stop-timeout",
                "1",
                "busybox",
                "sleep",
                "1000",
            ];
            host.cli(words)?.ok()?;
            if kind == "stopped" {
                host.cli(["stop", "-t", "0", &name])?.ok()?;
            }
        }
    }
    Ok(())
}

fn policies_hold(host: &Host) -> TestResult {
    for (name, _, runs, stopped) in POLICIES {
        for (kind, wanted) in [("runs", runs), ("stopped", stopped)] {
            let name = format!("{name}-{kind}");
            let wanted = if wanted { "running" } else { "exited" };
            eventually(&format!("{name} is {wanted}"), || {
                (inspect(host, &name, "{{.State.Status}}").ok()? == wanted).then_some(())
            })?;
        }
    }
    host.cli(["exec", "always-runs", "echo", "alive"])?.prints("alive")?;
    Ok(())
}

#[test]
fn restart_policies_hold_over_a_restart_of_the_daemon() -> TestResult {
    scenario(|host| {
        with_all_policies(host)?;
        host.stop_daemon()?;
        host.start_daemon()?;
        policies_hold(host)
    })
}

#[test]
fn restart_policies_hold_over_a_loss_of_power() -> TestResult {
    scenario(|host| {
        with_all_policies(host)?;
        host.reboot()?;
        policies_hold(host)
    })
}

#[test]
fn failures_are_restarted_so_often_and_no_more() -> TestResult {
    scenario(|host| {
        let words = ["run", "-d", "--name", "cc", "--restart", "on-failure:2", "busybox", "false"];
        host.cli(words)?.ok()?;
        eventually("it gave up", || {
            let state = "{{.State.Status}} {{.RestartCount}} {{.State.ExitCode}}";
            (inspect(host, "cc", state).ok()? == "exited 2 1").then_some(())
        })
    })
}

//! Logs: complete, in order, bounded, followed.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use rorqual_testkit::TestResult;

use crate::scenario;

#[test]
fn logs_keep_both_streams_and_can_be_cut() -> TestResult {
    scenario(|host| {
        let script = "for i in 1 2 3 4 5; do echo out$i; done; echo err >&2";
        host.cli(["run", "--name", "ll", "busybox", "sh", "-c", script])?.ok()?;
        let all = host.cli(["logs", "ll"])?.exits_with(0)?;
        assert_eq!(
            (all.stdout.as_str(), all.stderr.as_str()),
            ("out1\nout2\nout3\nout4\nout5\n", "err\n")
        );
        let tail = host.cli(["logs", "--tail", "2", "ll"])?.exits_with(0)?;
        assert_eq!(tail.stdout.clone() + &tail.stderr, "out5\nerr\n");
        let stamped = host.cli(["logs", "-t", "--tail", "1", "ll"])?.ok()?;
        assert!(stamped.is_empty() || stamped.contains('T'), "{stamped}");
        host.cli(["logs", "nobody"])?.exits_with(1)?.complains("No such container: nobody")?;
        Ok(())
    })
}

#[test]
fn following_ends_with_the_container_and_misses_nothing() -> TestResult {
    scenario(|host| {
        let script = "i=0; while [ $i -lt 2000 ]; do echo line $i; i=$((i+1)); done";
        host.cli(["run", "-d", "--name", "ff", "busybox", "sh", "-c", script])?.ok()?;
        let followed = host.cli(["logs", "-f", "ff"])?.ok()?;
        assert_eq!(followed.lines().count(), 2000);
        assert!(followed.ends_with("line 1999"));
        Ok(())
    })
}

#[test]
fn rotation_bounds_the_log() -> TestResult {
    scenario(|host| {
        let script = "i=0; while [ $i -lt 3000 ]; do echo 0123456789012345678901234567890123456789 $i; i=$((i+1)); done";
        let flags = ["--log-opt", "max-size=20k", "--log-opt", "max-file=3"];
        let args =
            ["run", "--name", "rr"].into_iter().chain(flags).chain(["busybox", "sh", "-c", script]);
        host.cli(args)?.ok()?;
        let logs = host.cli(["logs", "rr"])?.ok()?;
        assert!(logs.ends_with(" 2999"), "the newest lines are kept");
        assert!(logs.lines().count() < 1500, "the oldest lines are gone");
        Ok(())
    })
}

#[test]
fn other_drivers_keep_their_promises() -> TestResult {
    scenario(|host| {
        host.cli(["run", "--name", "nn", "--log-driver", "none", "busybox", "echo", "x"])?.ok()?;
        host.cli(["logs", "nn"])?
            .exits_with(1)?
            .complains("configured logging driver does not support reading")?;
        host.cli(["run", "--name", "oo", "--log-driver", "local", "busybox", "echo", "kept"])?
            .ok()?;
        host.cli(["logs", "oo"])?.prints("kept")?;
        host.cli(["run", "--log-driver", "nonsense", "busybox", "true"])?.exits_with(125)?;
        host.cli(["run", "--log-opt", "nonsense=1", "busybox", "true"])?.exits_with(125)?;
        Ok(())
    })
}

#[test]
fn attach_sees_what_comes_after_it() -> TestResult {
    scenario(|host| {
        let script = "while [ ! -e /tmp/go ]; do echo tick; sleep 0.05; done; echo last; exit 4";
        host.cli(["run", "-d", "--name", "aa", "busybox", "sh", "-c", script])?.ok()?;
        let mut attach = host.command(crate::RORQUAL);
        let mut attached =
            attach.args(["attach", "--no-stdin", "aa"]).stdout(Stdio::piped()).spawn()?;
        let mut lines = BufReader::new(attached.stdout.take().ok_or("no output")?).lines();
        // The first line shows that the client is attached; only then may the program go on.
        assert_eq!(lines.next().transpose()?.as_deref(), Some("tick"));
        host.cli(["exec", "aa", "touch", "/tmp/go"])?.ok()?;
        assert_eq!(lines.last().transpose()?.as_deref(), Some("last"));
        assert_eq!(attached.wait()?.code(), Some(4));
        Ok(())
    })
}

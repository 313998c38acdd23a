//! `exec`: extra processes in running containers.

use rorqual_testkit::TestResult;

use crate::scenario;

#[test]
fn exec_runs_beside_the_main_program() -> TestResult {
    scenario(|host| {
        host.cli([
            "run",
            "-d",
            "--name",
            "cc",
            "--hostname",
            "box",
            "-e",
            "A=1",
            "busybox",
            "sleep",
            "1000",
        ])?
        .ok()?;
        host.cli(["exec", "cc", "hostname"])?.exits_with(0)?.prints("box")?;
        host.cli(["exec", "cc", "sh", "-c", "exit 9"])?.exits_with(9)?;
        host.cli(["exec", "-e", "B=2", "-w", "/tmp", "cc", "sh", "-c", "echo $A $B $PWD"])?
            .prints("1 2 /tmp")?;
        host.cli(["exec", "-u", "app", "cc", "id", "-u"])?.prints("1000")?;
        host.cli(["exec", "cc", "no-such-program"])?.exits_with(127)?;
        host.cli(["exec", "cc", "/etc/passwd"])?.exits_with(126)?;
        host.cli_with_input(["exec", "-i", "cc", "wc", "-c"], b"12345")?.prints("5")?;
        host.cli(["exec", "-d", "cc", "sh", "-c", "echo done > /tmp/done; sleep 1000"])?
            .prints("")?;
        let top = host.cli(["top", "cc"])?.ok()?;
        assert!(top.starts_with("UID") && top.contains("sleep 1000"), "{top}");
        host.cli(["stop", "-t", "0", "cc"])?.ok()?;
        host.cli(["exec", "cc", "true"])?.exits_with(1)?.complains("is not running")?;
        Ok(())
    })
}

#[test]
fn a_terminal_has_a_size_and_raw_bytes() -> TestResult {
    scenario(|host| {
        host.cli(["run", "-d", "-t", "--name", "tt", "busybox", "sh", "-c", "tty; sleep 1000"])?
            .ok()?;
        rorqual_testkit::eventually("the terminal is there", || {
            host.cli(["logs", "tt"]).ok().filter(|logs| logs.stdout.contains("/dev/pts/0"))
        })?;
        host.cli([
            "run",
            "--rm",
            "-t",
            "busybox",
            "sh",
            "-c",
            "test -t 0 && test -t 1 && echo terminal",
        ])?
        .exits_with(0)?
        .prints("terminal\r")?;
        Ok(())
    })
}

//! `build --on-fail=shell`: a shell in the step that failed, and what is left of it.

use rorqual_testkit::{Host, Terminal, TestResult, eventually};

use crate::build_client::{build, context};
use crate::scenario;

const DOCKERFILE: &str = "\
FROM busybox
ENV KEPT=yes
RUN mkdir -m 1777 /w
WORKDIR /work
USER 77
RUN --mount=type=secret,id=s,mode=0444 --mount=type=tmpfs,target=/scratch echo left > /w/left; exit 7
RUN echo never
";

const OPENED: &str = "A shell in the failed step";

fn failing() -> TestResult<tempfile::TempDir> {
    context(&[("Dockerfile", DOCKERFILE), ("secret", "12345678")])
}

fn open(host: &Host, dir: &tempfile::TempDir) -> TestResult<Terminal> {
    let secret = format!("id=s,src={}", dir.path().join("secret").display());
    let dir = dir.path().display().to_string();
    let flags = ["build", "--on-fail=shell", "--progress=plain", "--secret", &secret, &dir];
    let terminal = host.on_terminal(&flags)?;
    terminal.shows(OPENED)?;
    Ok(terminal)
}

/// Counts the steps whose files are there.
fn kept(host: &Host) -> TestResult<usize> {
    let names = std::fs::read_dir(host.folder().join("data/containers"))?;
    Ok(names.flatten().filter(|entry| entry.file_name().len() == 64).count())
}

fn nothing_is_kept(host: &Host) -> TestResult {
    eventually("the files of the step are gone", || (kept(host).ok()? == 0).then_some(()))
}

#[test]
fn a_shell_is_where_the_failed_step_was() -> TestResult {
    scenario(|host| {
        let dir = failing()?;
        let mut terminal = open(host, &dir)?;
        terminal.shows("exit 7")?;
        terminal.types("echo =$KEPT-$(id -u)-$(pwd)-$(cat /w/left)-$(cat /run/secrets/s)\n")?;
        terminal.shows("=yes-77-/work-left-12345678")?;
        terminal.types("grep -c ' /scratch tmpfs' /proc/mounts | sed 's/^/scratch:/'\n")?;
        terminal.shows("scratch:1")?;
        terminal.types("stty size\n")?;
        terminal.shows("33 77")?;
        assert_eq!(kept(host)?, 1);
        terminal.types("exit 3\n")?;
        terminal.shows("exit code: 7")?;
        assert_eq!(terminal.ends()?, 1, "the build has failed, however the shell ended");
        nothing_is_kept(host)?;
        // What was done in the shell is no result of the step.
        build(host, dir.path(), &[])?.exits_with(1)?;
        Ok(())
    })
}

#[test]
fn the_shell_goes_with_its_client() -> TestResult {
    scenario(|host| {
        let dir = failing()?;
        let mut terminal = open(host, &dir)?;
        terminal.types("sleep 1000 & echo started-$((1 + 1))\n")?;
        terminal.shows("started-2")?;
        terminal.kill()?;
        nothing_is_kept(host)
    })
}

#[test]
fn the_shell_goes_with_its_daemon() -> TestResult {
    scenario(|host| {
        let dir = failing()?;
        let mut terminal = open(host, &dir)?;
        terminal.types("sleep 1000 & echo started-$((1 + 1))\n")?;
        terminal.shows("started-2")?;
        host.kill_daemon()?;
        assert_eq!(terminal.ends()?, 1);
        host.start_daemon()?;
        nothing_is_kept(host)
    })
}

#[test]
fn a_shell_needs_a_terminal_and_a_program_that_failed() -> TestResult {
    scenario(|host| {
        let dir = failing()?;
        let refused = build(host, dir.path(), &["--on-fail=shell"])?;
        refused.exits_with(1)?.complains("--on-fail=shell needs a terminal")?;
        let refused = build(host, dir.path(), &["--on-fail=stop"])?;
        refused.exits_with(1)?.complains("invalid value \"stop\" for --on-fail")?;

        let dir = context(&[("Dockerfile", "FROM busybox\nCOPY missing /\n")])?;
        let dir = dir.path().display().to_string();
        let terminal = host.on_terminal(&["build", "--on-fail=shell", &dir])?;
        terminal.shows("no shell: no program of this build failed")?;
        assert_eq!(terminal.ends()?, 1);
        Ok(())
    })
}

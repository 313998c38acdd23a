//! `run`: the main job.

use rorqual_testkit::TestResult;

use crate::{inspect, scenario};

#[test]
fn a_program_prints_and_its_exit_code_comes_back() -> TestResult {
    scenario(|host| {
        host.cli(["run", "--rm", "busybox", "echo", "hello"])?.exits_with(0)?.prints("hello")?;
        let both =
            host.cli(["run", "--rm", "busybox", "sh", "-c", "echo out; echo err >&2; exit 7"])?;
        let both = both.exits_with(7)?.prints("out")?;
        assert_eq!(both.stderr, "err\n");
        let killed = "sleep 1000 & kill -9 $!; wait $!";
        host.cli(["run", "--rm", "busybox", "sh", "-c", killed])?.exits_with(137)?;
        host.cli(["ps", "-aq"])?.prints("")?;
        Ok(())
    })
}

#[test]
fn a_program_that_cannot_start_gives_dockers_exit_codes() -> TestResult {
    scenario(|host| {
        let missing = host.cli(["run", "--rm", "busybox", "no-such-program"])?.exits_with(127)?;
        missing.complains("executable file not found in $PATH")?;
        host.cli(["run", "--rm", "busybox", "/etc/passwd"])?
            .exits_with(126)?
            .complains("permission denied")?;
        host.cli(["run", "--rm", "busybox", "/etc"])?.exits_with(126)?;
        host.cli(["run", "--rm", "no-such-image-here", "true"])?.exits_with(125)?;
        host.cli(["run", "--no-such-flag", "busybox"])?
            .exits_with(125)?
            .complains("unknown flag: --no-such-flag")?;
        host.cli(["run", "--rm", "--user", "nobody-here", "busybox", "true"])?
            .exits_with(125)?
            .complains("unable to find user nobody-here: no matching entries in passwd file")?;
        host.cli(["ps", "-aq"])?.prints("")?;
        Ok(())
    })
}

#[test]
fn standard_input_reaches_the_program_and_ends() -> TestResult {
    scenario(|host| {
        let big = "0123456789abcdef".repeat(64 * 1024);
        let args = ["run", "-i", "--rm", "busybox", "cat"];
        let echoed = host.cli_with_input(args, big.as_bytes())?.exits_with(0)?;
        assert_eq!(echoed.stdout.len(), big.len());
        assert!(echoed.stdout == big, "the bytes differ");
        host.cli_with_input(["run", "--rm", "busybox", "cat"], b"ignored")?
            .exits_with(0)?
            .prints("")?;
        Ok(())
    })
}

#[test]
fn settings_reach_the_program() -> TestResult {
    scenario(|host| {
        let run = |flags: &[&str], command: &[&str]| {
            let args = ["run", "--rm"].iter().chain(flags).chain(&["busybox"]).chain(command);
            host.cli(args)?.ok()
        };
        assert_eq!(run(&["-e", "A=1"], &["sh", "-c", "echo $A"])?, "1");
        assert_eq!(run(&["-w", "/made/here"], &["pwd"])?, "/made/here");
        assert_eq!(run(&["--hostname", "box"], &["hostname"])?, "box");
        assert_eq!(
            run(&["--user", "app"], &["id"])?,
            "uid=1000(app) gid=1000(app) groups=29(audio),1000(app)"
        );
        assert_eq!(run(&["--user", "12:34"], &["id", "-G"])?, "34");
        assert_eq!(run(&["--group-add", "audio"], &["id", "-G"])?, "0 10 29");
        assert_eq!(run(&["--user", "app"], &["sh", "-c", "echo $HOME"])?, "/home/app");
        assert_eq!(run(&["--entrypoint", "/bin/echo"], &["x"])?, "x");
        assert_eq!(
            run(&["--read-only"], &["sh", "-c", "touch /x 2>/dev/null || echo refused"])?,
            "refused"
        );
        assert_eq!(
            run(
                &["--tmpfs", "/t:size=1m"],
                &["sh", "-c", "df -k /t | tail -1 | awk '{print $2}'"]
            )?,
            "1024"
        );
        assert_eq!(
            run(
                &["--shm-size", "8m"],
                &["sh", "-c", "df -k /dev/shm | tail -1 | awk '{print $2}'"]
            )?,
            "8192"
        );
        assert_eq!(
            run(&["--init"], &["sh", "-c", "cat /proc/1/comm; echo $$"])?.lines().count(),
            2
        );
        // The program has no signal blocked, though its init has all.
        let masks = run(&["--init"], &["grep", "SigBlk", "/proc/self/status"])?;
        assert_eq!(masks, "SigBlk:\t0000000000000000");
        assert_eq!(
            run(&["--ulimit", "nofile=64:128"], &["sh", "-c", "ulimit -n; ulimit -Hn"])?,
            "64\n128"
        );
        assert_eq!(
            run(&["--sysctl", "net.ipv4.ip_forward=1"], &["cat", "/proc/sys/net/ipv4/ip_forward"])?,
            "1"
        );
        assert_eq!(run(&["--oom-score-adj", "300"], &["cat", "/proc/self/oom_score_adj"])?, "300");
        Ok(())
    })
}

#[test]
fn a_detached_container_prints_its_id_and_goes_on() -> TestResult {
    scenario(|host| {
        let id = host.cli(["run", "-d", "--name", "worker", "busybox", "sleep", "1000"])?.ok()?;
        assert_eq!(id.len(), 64);
        assert_eq!(
            inspect(host, "worker", "{{.State.Status}} {{.State.Running}} {{.Id}}")?,
            format!("running true {id}")
        );
        let again =
            host.cli(["run", "-d", "--name", "worker", "busybox", "true"])?.exits_with(125)?;
        again.complains("is already in use by container")?;
        host.cli(["ps", "--format", "{{.Names}} {{.Image}} {{.Command}}"])?
            .prints("worker busybox \"sleep 1000\"")?;
        host.cli(["rm", "worker"])?.exits_with(1)?;
        host.cli(["rm", "-f", "worker"])?.exits_with(0)?.prints("worker")?;
        Ok(())
    })
}

#[test]
fn many_runs_at_once_all_answer() -> TestResult {
    scenario(|host| {
        let host = &*host;
        std::thread::scope(|scope| {
            let runs: Vec<_> = (0..30)
                .map(|n| {
                    scope.spawn(move || -> TestResult<String> {
                        host.cli(["run", "--rm", "busybox", "echo", &n.to_string()])?.ok()
                    })
                })
                .collect();
            for (n, run) in runs.into_iter().enumerate() {
                assert_eq!(run.join().expect("no panic")?, n.to_string());
            }
            Ok(())
        })
    })
}

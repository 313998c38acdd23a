//! The daemon inside a container of its own kind ("Docker in Docker").

use rorqual_testkit::{Host, TestResult};

use crate::{RORQUAL, scenario};

/// Starts a daemon in the container and waits until it answers, then runs `script` with a client for it.
fn nested(host: &Host, flags: &[&str], script: &str) -> TestResult<String> {
    let script = format!(
        "export DOCKER_HOST=unix:///run/inner.sock
        rorqual daemon -H $DOCKER_HOST >/log 2>&1 & daemon=$!
        tries=0
        until rorqual version >/dev/null 2>&1; do
            tries=$((tries + 1)); [ $tries -lt 300 ] || {{ cat /log; exit 1; }}; sleep 0.1
        done
        mkdir -p /image/bin && cp /bin/busybox /image/bin/
        tar -C /image -c . | rorqual import - inner >/dev/null || {{ cat /log; exit 1; }}
        {script}"
    );
    let binary = format!("{RORQUAL}:/bin/rorqual:ro");
    let common = ["run", "--rm", "--privileged", "-v", "/var/lib/rorqual", "-v", &binary];
    host.cli(common.iter().chain(flags).chain(&["busybox", "sh", "-c", &script]))?.ok()
}

#[test]
fn a_daemon_runs_in_a_privileged_container() -> TestResult {
    scenario(|host| {
        let script = "set -e
        rorqual run --rm inner busybox echo hello
        rorqual run --rm --memory 16m --cpus 0.5 --pids-limit 9 inner busybox echo limited
        rorqual run -d --name cc inner busybox sleep 1000 >/dev/null
        rorqual exec cc busybox echo exec
        rorqual stop -t 0 cc >/dev/null
        rorqual inspect --format '{{.State.ExitCode}}' cc
        rorqual rm cc >/dev/null
        kill $daemon
        wait $daemon
        echo ended";
        assert_eq!(nested(host, &[], script)?, "hello\nlimited\nexec\n137\nended");
        Ok(())
    })
}

#[test]
fn the_end_of_the_outer_container_ends_the_inner_ones() -> TestResult {
    scenario(|host| {
        let script =
            "rorqual run -d inner busybox sleep 1000 >/dev/null && kill -9 $daemon && echo left";
        // The leak check finds whatever of the inner container would stay: its processes, mounts and groups.
        assert_eq!(nested(host, &[], script)?, "left");
        Ok(())
    })
}

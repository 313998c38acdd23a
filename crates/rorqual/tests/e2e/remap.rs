//! `userns-remap`: containers whose root is nobody on the host, and everything that users do with them.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use rorqual_testkit::{Host, HostOptions, TestResult};

use crate::build_client::{build, context};
use crate::{inspect, scenario_with};

/// Where the ids of containers begin on the host.
const FIRST: u32 = 300_000;

/// A daemon that gives containers a range of the user `daemon`, which every host has.
fn remapped() -> HostOptions {
    let range = format!("daemon:{FIRST}:65536");
    // In a copy of /etc that this daemon alone sees.
    let before = format!(
        "mount -t tmpfs none /mnt && cp -a /etc /mnt/etc && echo {range} > /mnt/etc/subuid && \
         echo {range} > /mnt/etc/subgid && mount --bind /mnt/etc /etc"
    );
    let config = r#"{"userns-remap": "daemon"}"#.to_owned();
    HostOptions { before: Some(before), config: Some(config), ..HostOptions::default() }
}

/// Runs a command of the shell in a new container.
fn shell(host: &Host, flags: &[&str], script: &str) -> TestResult<rorqual_testkit::Finished> {
    let command = ["busybox", "sh", "-c", script];
    host.cli(["run", "--rm"].iter().chain(flags).chain(&command))
}

#[test]
fn root_of_a_container_is_nobody_on_the_host() -> TestResult {
    scenario_with(remapped(), |host| {
        let options = host.docker(["info", "--format", "{{.SecurityOptions}}"])?.ok()?;
        assert!(options.contains("name=userns"), "{options}");
        let map = "read a b c < /proc/self/uid_map; echo $(id -u) $a $b $c";
        shell(host, &[], map)?.prints(&format!("0 0 {FIRST} 65536"))?;
        shell(host, &["--userns", "host"], map)?.prints("0 0 0 4294967295")?;

        host.cli([
            "run",
            "-d",
            "--name",
            "one",
            "--ulimit",
            "nofile=100:200",
            "--oom-score-adj",
            "100",
            "busybox",
            "sleep",
            "1000",
        ])?
        .ok()?;
        let pid = inspect(host, "one", "{{.State.Pid}}")?;
        let owner = fs::metadata(format!("/proc/{pid}"))?;
        assert_eq!((owner.uid(), owner.gid()), (FIRST, FIRST));
        let exec = |words: &[&str]| host.cli(["exec", "one"].iter().chain(words));
        exec(&["sh", "-c", "ulimit -Hn; cat /proc/1/oom_score_adj"])?.prints("200\n100")?;
        exec(&["sh", "-c", "echo out > /dev/stdout"])?.prints("out")?;
        host.cli(["exec", "-u", "7", "one", "sh", "-c", "echo out > /dev/stdout"])?
            .prints("out")?;
        exec(&["cat", "/proc/self/uid_map"])?.ok()?;
        // What our files and the kernel's are like inside.
        exec(&["stat", "-c", "%u", "/etc/hosts", "/etc/resolv.conf", "/", "/dev/shm"])?
            .prints("0\n0\n0\n0")?;
        exec(&["sh", "-c", "echo 10.0.0.1 up >> /etc/hosts && touch /sys/kernel/x"])?
            .exits_with(1)?;
        // The kernel may tell the host's devices, but not give them.
        shell(host, &["--cap-add", "MKNOD"], "mknod /x b 8 0")?.exits_with(1)?;
        // A daemon that comes later finds all as it was.
        host.kill_daemon()?;
        host.start_daemon()?;
        host.cli(["exec", "one", "id", "-u"])?.prints("0")?;
        host.cli(["stop", "-t", "0", "one"])?.ok()?;
        Ok(())
    })
}

#[test]
fn what_needs_the_hosts_root_is_refused() -> TestResult {
    scenario_with(remapped(), |host| {
        for (flag, words) in [
            (
                "--privileged",
                "privileged mode is incompatible with user namespaces.  You must run the container in the host namespace when running privileged mode",
            ),
            (
                "--network=host",
                "cannot share the host's network namespace when user namespaces are enabled",
            ),
            ("--pid=host", "cannot share the host PID namespace when user namespaces are enabled"),
        ] {
            shell(host, &[flag], "true")?.exits_with(125)?.complains(words)?;
            shell(host, &[flag, "--userns=host"], "true")?.ok()?;
        }
        host.cli(["run", "-d", "--name", "free", "--userns=host", "busybox", "sleep", "1000"])?
            .ok()?;
        shell(host, &["--network=container:free"], "true")?
            .exits_with(125)?
            .complains("use --userns=host here, too")?;
        shell(host, &["--network=container:free", "--userns=host"], "true")?.ok()?;
        Ok(())
    })
}

#[test]
fn namespaces_belong_to_the_users_of_their_container() -> TestResult {
    scenario_with(remapped(), |host| {
        shell(
            host,
            &["--cap-add", "NET_ADMIN"],
            "ip addr add 10.9.9.9/32 dev lo && ip link set lo mtu 1400",
        )?
        .ok()?;
        shell(host, &["--network", "none", "--cap-add", "NET_ADMIN"], "ip link set lo mtu 1400")?
            .ok()?;
        shell(
            host,
            &[],
            "ping -c 1 -W 5 127.0.0.1 > /dev/null && hostname && test -e /sys/class/net/eth0",
        )?
        .ok()?;
        host.cli(["network", "create", "own"])?.ok()?;
        let name = [
            "run",
            "-d",
            "--name",
            "one",
            "--ipc",
            "shareable",
            "--network",
            "own",
            "--hostname",
            "here",
            "busybox",
            "sleep",
            "1000",
        ];
        host.cli(name)?.ok()?;
        shell(
            host,
            &["--network", "own", "--cap-add", "NET_ADMIN"],
            "ping -c 1 -W 5 one > /dev/null && ip link set eth0 mtu 1400",
        )?
        .ok()?;
        let user = host.cli(["exec", "one", "readlink", "/proc/self/ns/user"])?.ok()?;
        for kind in ["network", "pid", "ipc"] {
            let flag = format!("--{kind}=container:one");
            shell(host, &[&flag], "readlink /proc/self/ns/user; stat -c %u /")?
                .prints(&format!("{user}\n0"))?;
        }
        let other = shell(host, &[], "readlink /proc/self/ns/user")?.ok()?;
        assert_ne!(other, user);
        shell(host, &["-t"], "test -c /dev/console && tty")?.ok()?;
        shell(host, &["--init"], "true")?.ok()?;
        Ok(())
    })
}

/// Volumes belong to containers, binds to the host.
fn volumes_and_binds(host: &Host, dir: &Path) -> TestResult {
    for flag in ["--userns=", "--userns=host"] {
        shell(host, &[flag, "-v", "vol:/v"], "stat -c %u /v /v/seven && touch /v/more")?
            .prints("0\n7")?;
    }
    let bind = dir.join("bind");
    fs::create_dir(&bind)?;
    let bound = format!("{}:/b", bind.display());
    shell(host, &["-v", &bound], "stat -c %u /b; ! touch /b/x 2> /dev/null")?.prints("65534")?;
    std::os::unix::fs::chown(&bind, Some(FIRST), Some(FIRST))?;
    shell(host, &["-v", &bound], "stat -c %u /b; touch /b/x")?.prints("0")?;
    assert_eq!(fs::metadata(bind.join("x"))?.uid(), FIRST);

    let caller = dir.join("caller");
    fs::create_dir(&caller)?;
    std::os::unix::fs::chown(&caller, Some(1234), Some(1234))?;
    let mapped = format!("{}:/b:idmap", caller.display());
    let mut words = host.command("setpriv");
    words.args(["--reuid", "1234", "--regid", "1234", "--clear-groups", crate::RORQUAL]);
    words.args([
        "run",
        "--rm",
        "-v",
        &mapped,
        "busybox",
        "sh",
        "-c",
        "stat -c %u /b && touch /b/x",
    ]);
    fs::set_permissions(host.socket(), fs::Permissions::from_mode(0o777))?;
    host.run(words)?.prints("0")?;
    assert_eq!(fs::metadata(caller.join("x"))?.uid(), 1234);
    Ok(())
}

#[test]
fn files_are_the_containers_own() -> TestResult {
    scenario_with(remapped(), |host| {
        let dir = host.folder().to_owned();
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o755))?;
        host.cli(["run", "-d", "--name", "one", "-v", "vol:/vol", "busybox", "sleep", "1000"])?
            .ok()?;
        let sh = |script: &str| host.cli(["exec", "one", "sh", "-c", script]);
        sh("echo a > /a && touch /seven /vol/seven && chown 7:8 /seven /vol/seven && rm /bin/yes && chmod u+s /a")?.ok()?;
        let diff = host.cli(["diff", "one"])?.ok()?;
        assert!(
            diff.contains("A /seven") && diff.contains("D /bin/yes") && !diff.contains("/bin/sh"),
            "{diff}"
        );

        // In and out, while it runs and afterwards.
        let (given, taken) = (dir.join("given"), dir.join("taken"));
        fs::write(&given, "text")?;
        std::os::unix::fs::chown(&given, Some(5), Some(6))?;
        let given = given.display().to_string();
        let own = |path: &str| sh(&format!("stat -c '%u %g' {path}"));
        host.cli(["cp", "-a", &given, "one:/into"])?.ok()?;
        own("/into")?.prints("5 6")?;
        host.cli(["cp", &given, "one:/vol/into"])?.ok()?;
        own("/vol/into")?.ok()?;
        for _running in [true, false] {
            let taken = taken.display().to_string();
            host.cli(["cp", "-a", "one:/seven", &taken])?.ok()?;
            let meta = fs::metadata(&taken)?;
            assert_eq!((meta.uid(), meta.gid()), (7, 8));
            host.cli(["stop", "-t", "0", "one"])?.ok()?;
        }
        host.cli(["cp", "-a", &given, "one:/stopped"])?.ok()?;
        host.cli(["start", "one"])?.ok()?;
        own("/stopped")?.prints("5 6")?;

        // What is exported or committed has no trace of the map.
        let tar = dir.join("tar").display().to_string();
        host.cli(["export", "-o", &tar, "one"])?.ok()?;
        host.cli(["import", &tar, "exported"])?.ok()?;
        host.cli(["commit", "one", "committed"])?.ok()?;
        for image in ["exported", "committed"] {
            for flag in ["--userns=", "--userns=host"] {
                let script = "stat -c '%u %g' /seven /into && test -u /a && ! test -e /bin/yes";
                host.cli(["run", "--rm", flag, image, "sh", "-c", script])?.prints("7 8\n5 6")?;
            }
        }

        volumes_and_binds(host, &dir)?;

        // Without the setting the same container goes on with its files.
        host.stop_daemon()?;
        fs::write(dir.join("daemon.json"), "{}")?;
        host.start_daemon()?;
        host.cli(["start", "one"])?.ok()?;
        host.cli([
            "exec",
            "one",
            "sh",
            "-c",
            "stat -c %u /seven /vol/seven && cat /proc/self/uid_map",
        ])?
        .prints("7\n7\n         0          0 4294967295")?;
        Ok(())
    })
}

#[test]
fn builds_know_nothing_of_the_map() -> TestResult {
    scenario_with(remapped(), |host| {
        let dir = context(&[
            ("Dockerfile", crate::build_steps::MOUNTS),
            ("a", "content\n"),
            ("secret", "hidden"),
        ])?;
        // Without an agent of the client.
        let text = crate::build_steps::MOUNTS.lines().filter(|line| !line.contains("type=ssh"));
        let text = text.chain([
            "COPY --chown=7:8 a /owned",
            "USER 9",
            "RUN test $(stat -c %u /owned) = 7 && touch /tmp/mine",
        ]);
        fs::write(dir.path().join("Dockerfile"), text.collect::<Vec<_>>().join("\n"))?;
        fs::write(dir.path().join(".dockerignore"), "secret\n")?;
        let secret = format!("id=s,src={}", dir.path().join("secret").display());
        build(host, dir.path(), &["-t", "built", "--secret", &secret])?.ok()?;
        for flag in ["--userns=", "--userns=host"] {
            let script = "stat -c %u /owned /tmp/mine /heredoc";
            host.cli(["run", "--rm", flag, "built", "sh", "-c", script])?.prints("7\n9\n0")?;
        }
        Ok(())
    })
}

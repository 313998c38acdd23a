//! What a container cannot do or see, and what it may when asked for.

use rorqual_testkit::{Host, TestResult};

use crate::scenario;

fn run(host: &Host, flags: &[&str], script: &str) -> TestResult<String> {
    let command = ["busybox", "sh", "-c", script];
    host.cli(["run", "--rm"].iter().chain(flags).chain(&command))?.ok()
}

#[test]
fn the_default_container_is_confined_as_dockers() -> TestResult {
    scenario(|host| {
        let status = run(
            host,
            &[],
            "grep -E '^(CapEff|CapBnd|CapInh|CapAmb|Seccomp|NoNewPrivs):' /proc/self/status",
        )?;
        let status = status.replace('\t', " ");
        for line in [
            "CapEff: 00000000a80425fb",
            "CapBnd: 00000000a80425fb",
            "CapInh: 0000000000000000",
            "CapAmb: 0000000000000000",
            "Seccomp: 2",
            "NoNewPrivs: 0",
        ] {
            assert!(status.contains(line), "{line} is not in {status}");
        }
        assert_eq!(
            run(
                host,
                &["--security-opt", "no-new-privileges"],
                "grep NoNewPrivs /proc/self/status"
            )?,
            "NoNewPrivs:\t1"
        );
        assert_eq!(
            run(host, &["--cap-drop", "ALL"], "grep CapEff /proc/self/status")?,
            "CapEff:\t0000000000000000"
        );
        assert_eq!(
            run(
                host,
                &["--security-opt", "seccomp=unconfined"],
                "grep Seccomp: /proc/self/status"
            )?,
            "Seccomp:\t0"
        );
        assert_eq!(
            run(
                host,
                &[],
                "cat /proc/kcore | wc -c; ls /proc/acpi /sys/firmware 2>/dev/null | grep -v : | tr -d '\\n'"
            )?,
            "0"
        );
        assert_eq!(
            run(host, &[], "echo x > /proc/sys/kernel/hostname 2>/dev/null || echo refused")?,
            "refused"
        );
        assert_eq!(run(host, &[], "mount -t tmpfs x /tmp 2>/dev/null || echo refused")?, "refused");
        assert_eq!(
            run(host, &["--privileged"], "mount -t tmpfs x /tmp && echo mounted")?,
            "mounted"
        );
        assert_eq!(
            run(host, &[], "ls /dev | grep -v core | tr '\\n' ' '")?,
            "fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero "
        );
        Ok(())
    })
}

#[test]
fn namespaces_are_its_own_unless_shared() -> TestResult {
    scenario(|host| {
        assert_eq!(run(host, &[], "echo $$")?, "1");
        let own = |kind: &str| run(host, &[], &format!("readlink /proc/self/ns/{kind}"));
        let shared =
            |kind: &str, flag: &str| run(host, &[flag], &format!("readlink /proc/self/ns/{kind}"));
        let here = |kind: &str| -> TestResult<String> {
            Ok(std::fs::read_link(format!("/proc/self/ns/{kind}"))?.display().to_string())
        };
        for kind in ["pid", "net", "ipc", "uts", "mnt"] {
            assert_ne!(own(kind)?, here(kind)?, "{kind}");
        }
        assert_eq!(shared("pid", "--pid=host")?, here("pid")?);
        assert_eq!(shared("ipc", "--ipc=host")?, here("ipc")?);
        assert_eq!(shared("uts", "--uts=host")?, here("uts")?);
        host.cli([
            "run",
            "-d",
            "--name",
            "first",
            "--ipc",
            "shareable",
            "busybox",
            "sleep",
            "1000",
        ])?
        .ok()?;
        let of_first = host
            .cli([
                "exec",
                "first",
                "sh",
                "-c",
                "for n in pid net ipc; do readlink /proc/1/ns/$n; done",
            ])?
            .ok()?;
        let flags = ["--pid=container:first", "--network=container:first", "--ipc=container:first"];
        assert_eq!(
            run(host, &flags, "for n in pid net ipc; do readlink /proc/self/ns/$n; done")?,
            of_first
        );
        Ok(())
    })
}

#[test]
fn no_descriptor_of_the_host_leaks_in() -> TestResult {
    scenario(|host| {
        // 3 is the folder that ls itself reads.
        assert_eq!(run(host, &[], "ls /proc/self/fd | tr '\\n' ' '")?, "0 1 2 3 ");
        host.cli(["run", "-d", "--name", "cc", "busybox", "sleep", "1000"])?.ok()?;
        let fds = host.cli(["exec", "cc", "ls", "/proc/self/fd"])?.ok()?;
        assert_eq!(fds, "0\n1\n2\n3");
        let exe = host.cli(["exec", "cc", "readlink", "/proc/1/exe"])?.ok()?;
        assert_eq!(exe, "/bin/busybox");
        let mounts = run(host, &[], "cat /proc/self/mountinfo")?;
        let data = host.folder().join("data").display().to_string();
        let outside =
            mounts.lines().filter(|line| line.contains(&data) && !line.contains(" - overlay "));
        let outside: Vec<&str> = outside.filter(|line| !line.contains("/etc/")).collect();
        assert!(outside.is_empty(), "{outside:#?}");
        Ok(())
    })
}

#[test]
fn the_bridge_gives_an_address_and_a_way_to_siblings() -> TestResult {
    scenario(|host| {
        host.cli([
            "run",
            "-d",
            "--name",
            "server",
            "busybox",
            "sh",
            "-c",
            "mkdir /w; echo page > /w/index.html; exec httpd -f -p 8080 -h /w",
        ])?
        .ok()?;
        let ip = crate::inspect(
            host,
            "server",
            "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}",
        )?;
        assert!(ip.starts_with("172."), "{ip}");
        let fetch = format!(
            "for i in 1 2 3 4 5 6 7 8 9; do wget -q -O - http://{ip}:8080/ && break; sleep 0.2; done"
        );
        assert_eq!(run(host, &[], &fetch)?, "page");
        assert_eq!(run(host, &["--network", "none"], "ls /sys/class/net")?, "lo");
        let hosts =
            run(host, &["--hostname", "me", "--add-host", "other:1.2.3.4"], "cat /etc/hosts")?;
        assert!(hosts.contains("1.2.3.4\tother") && hosts.contains("\tme"), "{hosts}");
        Ok(())
    })
}

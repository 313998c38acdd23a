//! Volumes: what their options mount, and parts of them.

use rorqual_testkit::{Host, TestResult};

use crate::{inspect, scenario};

/// Counts the mounts of the host at or below its data root's volumes.
fn mounts(host: &Host) -> TestResult<usize> {
    let table = host.command("cat").arg("/proc/self/mountinfo").output()?;
    let table = String::from_utf8(table.stdout)?;
    Ok(table.lines().filter(|line| line.contains("/volumes/")).count())
}

#[test]
fn options_mount_while_somebody_uses_the_volume() -> TestResult {
    scenario(|host| {
        let options =
            ["--opt", "type=tmpfs", "--opt", "device=tmpfs", "--opt", "o=size=1m,uid=1000"];
        host.cli(["volume", "create"].into_iter().chain(options).chain(["memory"]))?
            .prints("memory")?;
        assert_eq!(mounts(host)?, 0);
        host.cli(["run", "-d", "--name", "one", "-v", "memory:/m", "busybox", "sleep", "1000"])?
            .ok()?;
        host.cli(["exec", "one", "stat", "-f", "-c", "%T", "/m"])?.prints("tmpfs")?;
        host.cli(["exec", "one", "stat", "-c", "%u", "/m"])?.prints("1000")?;
        host.cli(["exec", "one", "sh", "-c", "echo kept > /m/file"])?.ok()?;
        // A second container, and a next daemon, share the very same mount.
        host.kill_daemon()?;
        host.start_daemon()?;
        host.cli(["run", "--rm", "-v", "memory:/m", "busybox", "cat", "/m/file"])?
            .prints("kept")?;
        assert_eq!(mounts(host)?, 1);
        host.cli(["volume", "rm", "memory"])?.exits_with(1)?.complains("volume is in use")?;
        host.cli(["rm", "-f", "one"])?.ok()?;
        assert_eq!(mounts(host)?, 0);
        host.cli(["volume", "rm", "memory"])?.ok()?;
        Ok(())
    })
}

#[test]
fn binds_of_volumes_are_never_emptied() -> TestResult {
    scenario(|host| {
        let folder = tempfile::tempdir()?;
        std::fs::write(folder.path().join("precious"), "x\n")?;
        let device = format!("device={}", folder.path().display());
        host.cli(["volume", "create", "-o", "type=none", "-o", &device, "-o", "o=bind", "bound"])?
            .ok()?;
        host.cli(["run", "--rm", "-v", "bound:/b", "busybox", "cat", "/b/precious"])?
            .prints("x")?;
        host.cli(["create", "--name", "later", "-v", "bound:/b", "busybox", "true"])?.ok()?;
        host.cli(["rm", "later"])?.ok()?;
        host.cli(["volume", "rm", "bound"])?.ok()?;
        assert!(folder.path().join("precious").exists());
        Ok(())
    })
}

#[test]
fn bad_options_are_told_and_leave_nothing() -> TestResult {
    scenario(|host| {
        let create = |options: &[&str]| {
            let words = ["volume", "create", "bad"].iter().chain(options);
            host.cli(words.copied())
        };
        create(&["-o", "type=tmpfs"])?
            .exits_with(1)?
            .complains("missing required option: \"device\"")?;
        create(&["-o", "colour=red"])?.exits_with(1)?.complains("invalid option: \"colour\"")?;
        host.cli(["volume", "inspect", "bad"])?.exits_with(1)?;
        let device = ["-o", "type=none", "-o", "device=/nowhere/at/all", "-o", "o=bind"];
        create(&device)?.ok()?;
        host.cli(["run", "--name", "no", "-v", "bad:/b", "busybox", "true"])?
            .exits_with(127)?
            .complains("failed to mount local volume: mount /nowhere/at/all:")?
            .complains("no such file or directory")?;
        host.cli(["rm", "no"])?.ok()?;
        // What the image has at the path would be copied, so that the volume is needed sooner.
        host.cli(["run", "--name", "no", "-v", "bad:/bin", "busybox", "true"])?
            .exits_with(127)?
            .complains("failed to mount local volume: mount /nowhere/at/all:")?;
        host.cli(["volume", "rm", "bad"])?.ok()?;
        Ok(())
    })
}

#[test]
fn a_part_of_a_volume_can_be_mounted_and_links_do_not_lead_out() -> TestResult {
    scenario(|host| {
        let fill = "mkdir -p /v/sub/dir; echo part > /v/sub/dir/file; ln -s /etc /v/out; ln -s sub/dir /v/in";
        host.cli(["run", "--rm", "-v", "parts:/v", "busybox", "sh", "-c", fill])?.ok()?;
        let part = |path: &str, words: &[&str]| {
            let mount = format!("type=volume,src=parts,dst=/p,volume-subpath={path}");
            let words = ["run", "--rm", "--mount", &mount, "busybox"]
                .into_iter()
                .chain(words.iter().copied());
            host.cli(words)
        };
        part("sub/dir", &["cat", "/p/file"])?.prints("part")?;
        part("in", &["cat", "/p/file"])?.prints("part")?;
        // COMPAT: 127 is what clients make of "no such file".
        part("out", &["true"])?.exits_with(125)?.complains("subpath: out")?;
        part("missing", &["true"])?.exits_with(127)?.complains("/_data/missing: no such file")?;
        part("../..", &["true"])?
            .exits_with(125)?
            .complains("subpath must be a relative path within the volume")?;
        host.cli(["create", "--name", "whole", "-v", "parts:/v", "busybox", "true"])?.ok()?;
        assert!(inspect(host, "whole", "{{(index .Mounts 0).Source}}")?.ends_with("/parts/_data"));
        Ok(())
    })
}

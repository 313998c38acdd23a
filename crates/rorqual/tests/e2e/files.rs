//! Files in and out: `cp`, `diff`, `export`, binds and volumes.

use std::fs;

use rorqual_testkit::{TestResult, eventually};

use crate::scenario;

#[test]
fn copying_works_both_ways_and_stays_inside() -> TestResult {
    scenario(|host| {
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("file");
        fs::write(&file, "from the host\n")?;
        host.cli(["create", "--name", "cc", "busybox", "cat", "/tmp/file"])?.ok()?;
        let source = file.display().to_string();
        host.cli(["cp", &source, "cc:/tmp/file"])?.ok()?;
        host.cli(["start", "-a", "cc"])?.prints("from the host")?;
        let back = folder.path().join("back").display().to_string();
        host.cli(["cp", "cc:/etc/passwd", &back])?.ok()?;
        assert!(fs::read_to_string(&back)?.starts_with("root:x:0:0"));
        host.cli(["cp", "cc:/nowhere", &back])?
            .exits_with(1)?
            .complains("Could not find the file /nowhere in container")?;
        // A link in the container to a place outside leads to that place inside.
        host.cli(["run", "--name", "evil", "busybox", "ln", "-s", "/../../../../etc", "/tmp/out"])?
            .ok()?;
        host.cli(["cp", "evil:/tmp/out/passwd", &back])?.ok()?;
        assert!(fs::read_to_string(&back)?.contains("app:x:1000"), "the container's own passwd");
        Ok(())
    })
}

#[test]
fn diff_lists_what_changed() -> TestResult {
    scenario(|host| {
        host.cli([
            "run",
            "--name",
            "dd",
            "busybox",
            "sh",
            "-c",
            "echo x > /tmp/new; rm /etc/group; echo y >> /etc/passwd",
        ])?
        .ok()?;
        let lines = host.cli(["diff", "dd"])?.ok()?;
        let mut lines: Vec<&str> = lines.lines().collect();
        lines.sort_unstable();
        assert_eq!(lines, ["A /tmp/new", "C /etc", "C /etc/passwd", "C /tmp", "D /etc/group"]);
        host.cli(["create", "--name", "fresh", "busybox", "true"])?.ok()?;
        host.cli(["diff", "fresh"])?.prints("")?;
        Ok(())
    })
}

#[test]
fn binds_and_volumes_keep_data() -> TestResult {
    scenario(|host| {
        let folder = tempfile::tempdir()?;
        let bind = format!("{}:/data", folder.path().display());
        host.cli(["run", "--rm", "-v", &bind, "busybox", "sh", "-c", "echo kept > /data/file"])?
            .ok()?;
        assert_eq!(fs::read_to_string(folder.path().join("file"))?, "kept\n");
        let read_only = format!("{bind}:ro");
        let refused = "echo x > /data/file 2>/dev/null || echo refused";
        host.cli(["run", "--rm", "-v", &read_only, "busybox", "sh", "-c", refused])?
            .prints("refused")?;
        host.cli(["run", "--rm", "-v", "store:/etc", "busybox", "sh", "-c", "echo v > /etc/mark"])?
            .ok()?;
        host.cli([
            "run",
            "--rm",
            "-v",
            "store:/s",
            "busybox",
            "sh",
            "-c",
            "cat /s/mark; ls /s/passwd",
        ])?
        .prints("v\n/s/passwd")?;
        host.cli(["volume", "rm", "store"])?.prints("store")?;
        let mount = format!("type=bind,src={},dst=/m,readonly", folder.path().display());
        host.cli(["run", "--rm", "--mount", &mount, "busybox", "cat", "/m/file"])?
            .prints("kept")?;
        host.cli(["run", "--rm", "-v", "/no/such/dir/at/all", "busybox", "true"])?.ok()?;
        host.cli([
            "run",
            "--rm",
            "--mount",
            "type=bind,src=/no/such/dir,dst=/x",
            "busybox",
            "true",
        ])?
        .exits_with(125)?
        .complains("bind source path does not exist: /no/such/dir")?;
        Ok(())
    })
}

#[test]
fn a_running_container_is_exported_without_what_is_mounted_in_it() -> TestResult {
    scenario(|host| {
        let script = "echo x > /new; mkdir -p /data; echo y > /data/mounted; exec sleep 1000";
        let run = ["run", "-d", "--name", "cc", "-v", "kept:/data", "busybox", "sh", "-c", script];
        host.cli(run)?.ok()?;
        eventually("the container has written", || {
            host.cli(["exec", "cc", "test", "-e", "/data/mounted"]).ok().filter(|run| run.code == 0)
        })?;
        let archive = host.folder().join("export.tar");
        host.cli(["export", "-o", &archive.display().to_string(), "cc"])?.ok()?;
        let mut list = host.command("tar");
        list.arg("-tf").arg(&archive);
        let names = host.run(list)?.ok()?;
        let names: Vec<&str> = names.lines().collect();
        for wanted in ["new", "proc/", "etc/passwd", "etc/hosts"] {
            assert!(names.contains(&wanted), "{wanted} is missing");
        }
        let below =
            |folder: &str| names.iter().any(|name| name.starts_with(folder) && *name != folder);
        assert!(!below("proc/") && !below("sys/") && !names.contains(&"data/mounted"));
        Ok(())
    })
}

#[test]
fn a_volume_over_etc_keeps_the_files_that_every_container_gets() -> TestResult {
    scenario(|host| {
        let script = "cat /etc/hosts | grep -c localhost; cat /etc/hostname; echo mine > /etc/mine";
        let first =
            ["run", "--rm", "--hostname", "hh", "-v", "etc:/etc", "busybox", "sh", "-c", script];
        let said = host.cli(first)?.ok()?;
        assert_eq!(said.lines().last(), Some("hh"), "{said}");
        host.cli(["run", "--rm", "-v", "etc:/etc", "busybox", "cat", "/etc/mine"])?
            .prints("mine")?;
        Ok(())
    })
}

//! Images on disk: import, tag, commit, save, load, history, removal.

use rorqual_testkit::TestResult;

use crate::{inspect, scenario};

#[test]
fn an_image_survives_commit_save_and_load() -> TestResult {
    scenario(|host| {
        host.cli([
            "run",
            "--name",
            "cc",
            "busybox",
            "sh",
            "-c",
            "echo mine > /mine; rm /etc/group",
        ])?
        .ok()?;
        host.cli(["commit", "-m", "note", "--change", "CMD [\"cat\",\"/mine\"]", "cc", "own:v1"])?
            .ok()?;
        host.cli(["rm", "cc"])?.ok()?;
        host.cli(["run", "--rm", "own:v1"])?.prints("mine")?;
        host.cli(["run", "--rm", "own:v1", "ls", "/etc"])?
            .prints("hostname\nhosts\nmtab\npasswd\nresolv.conf")?;
        let folder = tempfile::tempdir()?;
        let archive = folder.path().join("own.tar").display().to_string();
        let id = inspect(host, "own:v1", "{{.Id}}")?;
        host.cli(["save", "-o", &archive, "own:v1"])?.ok()?;
        host.cli(["rmi", "own:v1"])?.ok()?;
        host.cli(["run", "--rm", "own:v1"])?.exits_with(125)?;
        host.cli(["load", "-q", "-i", &archive])?.prints("Loaded image: own:v1")?;
        assert_eq!(inspect(host, "own:v1", "{{.Id}}")?, id);
        host.cli(["run", "--rm", "own:v1"])?.prints("mine")?;
        assert!(host.cli(["history", "own:v1"])?.ok()?.lines().count() >= 3);
        Ok(())
    })
}

#[test]
fn names_come_and_go() -> TestResult {
    scenario(|host| {
        host.cli(["tag", "busybox", "localhost:5000/a/b:c"])?.ok()?;
        let list = host.cli(["images", "--format", "{{.Repository}}:{{.Tag}}"])?.ok()?;
        let mut list: Vec<&str> =
            list.lines().filter(|name| !name.starts_with("rorqual/")).collect();
        list.sort_unstable();
        assert_eq!(list, ["busybox:latest", "localhost:5000/a/b:c"]);
        host.cli(["rmi", "localhost:5000/a/b:c"])?.prints("Untagged: localhost:5000/a/b:c")?;
        host.cli(["run", "-d", "--name", "user", "busybox", "sleep", "1000"])?.ok()?;
        host.cli(["rmi", "busybox"])?.exits_with(1)?.complains("conflict")?;
        host.cli(["tag", "nowhere", "x"])?
            .exits_with(1)?
            .complains("No such image: nowhere:latest")?;
        host.cli(["tag", "busybox", "Not Valid"])?.exits_with(1)?;
        Ok(())
    })
}

#[test]
fn the_built_in_image_greets() -> TestResult {
    scenario(|host| {
        let hello = host.cli(["run", "--rm", "rorqual/hello"])?.ok()?;
        assert!(hello.contains("Rorqual"), "{hello}");
        Ok(())
    })
}

#[test]
fn broken_archives_are_refused_and_leave_nothing() -> TestResult {
    scenario(|host| {
        for broken in [&b""[..], b"not a tar at all", &[0_u8; 1024]] {
            let refused = host.cli_with_input(["load"], broken)?;
            assert_ne!(refused.code, 0, "{refused:?}");
        }
        let folder = tempfile::tempdir()?;
        let archive = folder.path().join("whole.tar");
        host.cli(["save", "-o", &archive.display().to_string(), "busybox"])?.ok()?;
        host.cli(["rmi", "busybox"])?.ok()?;
        let whole = std::fs::read(&archive)?;
        let cut = host.cli_with_input(["load"], &whole[..whole.len() / 2])?;
        assert_ne!(cut.code, 0);
        let mut bent = whole.clone();
        let middle = whole.len() / 2;
        bent[middle] ^= 0xff;
        assert_ne!(host.cli_with_input(["load"], &bent)?.code, 0, "a bent byte");
        host.cli(["images", "-q", "busybox"])?.prints("")?;
        host.cli_with_input(["load"], &whole)?.ok()?;
        host.cli(["run", "--rm", "busybox", "echo", "whole"])?.prints("whole")?;
        Ok(())
    })
}

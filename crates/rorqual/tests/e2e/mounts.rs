//! Kinds of mounts: images, read-only trees, id-mapped binds.

use std::os::unix::fs::{MetadataExt, PermissionsExt};

use rorqual_testkit::{Host, TestResult};

use crate::{RORQUAL, inspect, scenario};

#[test]
fn images_can_be_mounted_and_are_never_written() -> TestResult {
    scenario(|host| {
        let show = |mount: &str, words: &[&str]| {
            let run = ["run", "--rm", "--mount", mount, "busybox"];
            host.cli(run.into_iter().chain(words.iter().copied()))
        };
        // An image of two layers.
        host.cli([
            "run",
            "--name",
            "more",
            "busybox",
            "sh",
            "-c",
            "mkdir -p /srv/x; echo hi > /srv/x/f; ln -s /etc /srv/out",
        ])?
        .ok()?;
        host.cli(["commit", "more", "two"])?.ok()?;
        host.cli(["rm", "more"])?.ok()?;
        show("type=image,src=two,dst=/i", &["cat", "/i/srv/x/f"])?.prints("hi")?;
        show("type=image,src=two,dst=/i,image-subpath=srv/x", &["cat", "/i/f"])?.prints("hi")?;
        show("type=image,src=two,dst=/i", &["touch", "/i/new"])?
            .exits_with(1)?
            .complains("Read-only file system")?;
        show("type=image,src=two,dst=/i,image-subpath=../..", &["true"])?
            .exits_with(125)?
            .complains("subpath must be a relative path")?;
        let mount = "type=image,src=nosuch,dst=/i";
        host.cli(["run", "--rm", "--pull", "never", "--mount", mount, "busybox", "true"])?
            .exits_with(125)?
            .complains("o such image: nosuch")?;
        // It stays as long as who mounts it.
        host.cli([
            "create",
            "--name",
            "user",
            "--mount",
            "type=image,src=two,dst=/i",
            "busybox",
            "cat",
            "/i/srv/x/f",
        ])?
        .ok()?;
        assert_eq!(inspect(host, "user", "{{(index .Mounts 0).Type}}")?, "image");
        host.cli(["rmi", "two"])?.ok()?;
        host.cli(["image", "prune", "-f"])?.ok()?;
        host.cli(["start", "-a", "user"])?.prints("hi")?;
        Ok(())
    })
}

#[test]
fn read_only_reaches_the_mounts_below() -> TestResult {
    scenario(|host| {
        let folder = host.folder().join("tree");
        std::fs::create_dir_all(folder.join("below"))?;
        let below = host
            .command("mount")
            .args(["-t", "tmpfs", "below"])
            .arg(folder.join("below"))
            .status()?;
        assert!(below.success());
        let write = |options: &str| {
            let mount = format!("type=bind,src={},dst=/t,{options}", folder.display());
            host.cli(["run", "--rm", "--mount", &mount, "busybox", "touch", "/t/below/x"])
        };
        write("readonly")?.exits_with(1)?.complains("Read-only file system")?;
        write("readonly,bind-recursive=writable")?.ok()?;
        write("readonly,bind-recursive=readonly,bind-propagation=rprivate")?
            .exits_with(1)?
            .complains("Read-only file system")?;
        // Without the mounts below, the directory under them is seen.
        write("bind-recursive=disabled")?.ok()?;
        assert!(folder.join("below/x").exists());
        assert!(host.command("umount").arg(folder.join("below")).status()?.success());
        Ok(())
    })
}

const CALLER: u32 = 4321;

/// Runs a client as somebody who is not root.
fn as_caller(host: &Host, program: &str, words: &[&str]) -> TestResult<rorqual_testkit::Finished> {
    let ids = CALLER.to_string();
    let mut command = host.command("setpriv");
    command.args(["--reuid", &ids, "--regid", &ids, "--clear-groups", program]).args(words);
    host.run(command)
}

#[test]
fn what_a_container_makes_in_an_id_mapped_bind_belongs_to_the_caller() -> TestResult {
    scenario(|host| {
        for path in [host.folder().to_owned(), host.socket()] {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777))?;
        }
        let folder = host.folder().join("home");
        std::fs::create_dir(&folder)?;
        std::os::unix::fs::chown(&folder, Some(CALLER), Some(CALLER))?;
        let owner = |name: &str| {
            let meta = std::fs::metadata(folder.join(name))?;
            Ok::<_, std::io::Error>((meta.uid(), meta.gid()))
        };
        let bind = format!("{}:/h:idmap", folder.display());
        as_caller(host, RORQUAL, &["run", "--rm", "-v", &bind, "busybox", "touch", "/h/root"])?
            .ok()?;
        assert_eq!(owner("root")?, (CALLER, CALLER));
        as_caller(
            host,
            RORQUAL,
            &["run", "--rm", "-v", &bind, "busybox", "stat", "-c", "%u", "/h/root"],
        )?
        .prints("0")?;
        as_caller(
            host,
            RORQUAL,
            &["run", "--rm", "-u", "7:8", "-v", &bind, "busybox", "touch", "/h/seven"],
        )?
        .ok()?;
        assert_eq!(owner("seven")?, (CALLER, CALLER));
        let mount = format!("type=bind,src={},dst=/h,consistency=idmap", folder.display());
        as_caller(
            host,
            "docker",
            &["run", "--rm", "--mount", &mount, "busybox", "touch", "/h/docker"],
        )?
        .ok()?;
        assert_eq!(owner("docker")?, (CALLER, CALLER));
        let mount = format!("type=bind,src={},dst=/h,bind-idmap", folder.display());
        as_caller(
            host,
            RORQUAL,
            &["run", "--rm", "--mount", &mount, "busybox", "touch", "/h/ours"],
        )?
        .ok()?;
        assert_eq!(owner("ours")?, (CALLER, CALLER));
        // A directory that is made for it is the caller's, too.
        let made = format!("{}/made:/h:idmap", host.folder().display());
        as_caller(host, RORQUAL, &["run", "--rm", "-v", &made, "busybox", "touch", "/h/x"])?
            .ok()?;
        assert_eq!(std::fs::metadata(host.folder().join("made/x"))?.uid(), CALLER);
        as_caller(host, RORQUAL, &["run", "--rm", "-u", "nobody", "-v", &bind, "busybox", "true"])?
            .exits_with(125)?
            .complains("say its ids, as in idmap=999.999")?;
        // Not asked for, nothing is mapped.
        let plain = format!("{}:/h", folder.display());
        as_caller(host, RORQUAL, &["run", "--rm", "-v", &plain, "busybox", "touch", "/h/plain"])?
            .ok()?;
        assert_eq!(owner("plain")?, (0, 0));
        // A file system that cannot: proc.
        let words = ["run", "--rm", "-v", "/proc:/h:idmap", "busybox", "true"];
        as_caller(host, RORQUAL, &words)?.exits_with(125)?.complains("cannot map ids")?;
        Ok(())
    })
}

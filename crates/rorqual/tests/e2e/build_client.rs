//! `build` of our own client: contexts, outputs, secrets, what is shown, what is refused.

use std::fs;
use std::path::Path;

use rorqual_testkit::{Finished, Host, TestResult, eventually};

use crate::{RORQUAL, scenario};

pub(crate) fn context(files: &[(&str, &str)]) -> TestResult<tempfile::TempDir> {
    let dir = tempfile::tempdir()?;
    for (path, text) in files {
        let path = dir.path().join(path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(path, text)?;
    }
    Ok(dir)
}

pub(crate) fn build(host: &Host, dir: &Path, flags: &[&str]) -> TestResult<Finished> {
    let dir = dir.display().to_string();
    let mut args = vec!["build", "--progress", "plain"];
    args.extend(flags);
    args.push(&dir);
    host.cli(args)
}

#[test]
fn a_directory_becomes_an_image_and_is_cached() -> TestResult {
    scenario(|host| {
        let dir = context(&[
            (
                "Dockerfile",
                "FROM busybox\nCOPY . /src\nRUN cat /src/a > /b\nCMD [\"cat\", \"/b\"]\n",
            ),
            ("a", "one\n"),
            ("left/out.tmp", "no"),
            (".dockerignore", "**/*.tmp\n"),
        ])?;
        let id = dir.path().join("id").display().to_string();
        let first = build(host, dir.path(), &["-t", "built:1", "--iidfile", &id])?;
        first.ok()?;
        host.cli(["run", "--rm", "built:1"])?.prints("one")?;
        host.cli(["run", "--rm", "built:1", "ls", "/src/left"])?.prints("")?;
        let shown = host.cli(["image", "inspect", "-f", "{{.Id}}", "built:1"])?.ok()?;
        assert_eq!(shown, fs::read_to_string(dir.path().join("id"))?);
        fs::remove_file(dir.path().join("id"))?;

        let again = build(host, dir.path(), &["-t", "built:1"])?;
        assert!(again.stderr.contains("CACHED"), "{}", again.stderr);
        fs::write(dir.path().join("a"), "two\n")?;
        build(host, dir.path(), &["-t", "built:1"])?.ok()?;
        host.cli(["run", "--rm", "built:1"])?.prints("two")?;
        Ok(())
    })
}

#[test]
fn a_failing_step_is_shown_with_its_output_and_its_lines() -> TestResult {
    scenario(|host| {
        let dir = context(&[("Dockerfile", "FROM busybox\nRUN echo about to fail; exit 7\n")])?;
        let failed = build(host, dir.path(), &[])?.exits_with(1)?;
        for part in [
            "about to fail",
            "exit code: 7",
            "Dockerfile:2",
            ">>> RUN echo about to fail; exit 7",
            "ERROR: failed to build: failed to solve: process",
        ] {
            assert!(failed.stderr.contains(part), "no {part:?} in {}", failed.stderr);
        }
        let dir = context(&[("Dockerfile", "FROM busybox\nCOPPY a b\n")])?;
        build(host, dir.path(), &[])?.exits_with(1)?.complains("unknown instruction: COPPY")?;
        host.cli(["build", "/nowhere"])?.exits_with(1)?.complains("not found")?;
        Ok(())
    })
}

#[test]
fn outputs_go_where_they_are_wanted() -> TestResult {
    scenario(|host| {
        let dir = context(&[(
            "Dockerfile",
            "FROM busybox AS make\nRUN mkdir /out && echo made > /out/file\nFROM scratch\nCOPY --from=make /out /\n",
        )])?;
        let out = tempfile::tempdir()?;
        let at = |name: &str| out.path().join(name).display().to_string();
        build(host, dir.path(), &["-o", &at("files")])?.ok()?;
        assert_eq!(fs::read_to_string(out.path().join("files/file"))?, "made\n");
        build(host, dir.path(), &["-o", &format!("type=tar,dest={}", at("x.tar"))])?.ok()?;
        let mut tar = tar::Archive::new(fs::File::open(out.path().join("x.tar"))?);
        let names: Vec<String> = tar
            .entries()?
            .map(|entry| Ok(entry?.path()?.display().to_string()))
            .collect::<std::io::Result<_>>()?;
        assert!(names.iter().any(|name| name == "file"), "{names:?}");
        let archive = format!("type=docker,dest={}", at("image.tar"));
        let facts = at("facts.json");
        build(host, dir.path(), &["-t", "packed:1", "-o", &archive, "--metadata-file", &facts])?
            .ok()?;
        assert!(fs::read_to_string(&facts)?.contains("containerimage.config.digest"));
        host.cli(["image", "inspect", "packed:1"])?.exits_with(1)?;
        host.cli(["load", "-q", "-i", &at("image.tar")])?.prints("Loaded image: packed:1")?;
        Ok(())
    })
}

#[test]
fn secrets_and_variables_reach_steps_and_not_the_image() -> TestResult {
    scenario(|host| {
        let dir = context(&[
            (
                "Dockerfile",
                "FROM busybox\nARG WHO=nobody\nRUN --mount=type=secret,id=s wc -c < /run/secrets/s > /count; echo $WHO > /who\n",
            ),
            ("secret", "12345678"),
        ])?;
        let secret = format!("id=s,src={}", dir.path().join("secret").display());
        let flags =
            ["-t", "kept:1", "--secret", &secret, "--build-arg", "WHO=me", "--label", "l=1"];
        build(host, dir.path(), &flags)?.ok()?;
        host.cli(["run", "--rm", "kept:1", "cat", "/count", "/who"])?.prints("8\nme")?;
        host.cli(["run", "--rm", "kept:1", "ls", "/run/secrets"])?.exits_with(1)?;
        host.cli(["image", "inspect", "-f", "{{.Config.Labels.l}}", "kept:1"])?.prints("1")?;
        Ok(())
    })
}

#[test]
fn questions_are_answered_without_building() -> TestResult {
    scenario(|host| {
        let dir = context(&[(
            "Dockerfile",
            "# what comes first\nFROM busybox AS first\nFROM first AS second\nENV A=$nothing\n",
        )])?;
        let targets = build(host, dir.path(), &["--call", "targets"])?.ok()?;
        assert!(targets.contains("first") && targets.contains("second"), "{targets}");
        let checked = build(host, dir.path(), &["--check"])?;
        assert!(checked.stdout.contains("UndefinedVar"), "{checked:?}");
        Ok(())
    })
}

#[test]
fn a_dockerfile_from_standard_input_and_the_cache() -> TestResult {
    scenario(|host| {
        let text = b"FROM busybox\nRUN echo piped > /x\n";
        host.cli_with_input(["build", "-q", "-t", "piped:1", "-"], text)?.ok()?;
        host.cli(["run", "--rm", "piped:1", "cat", "/x"])?.prints("piped")?;
        let usage = host.cli(["builder", "du"])?.ok()?;
        assert!(usage.contains("Total:"), "{usage}");
        let past = host.cli(["builder", "history"])?.ok()?;
        assert!(past.contains("Completed"), "{past}");
        host.cli(["builder", "prune", "-a", "-f"])?.ok()?;
        host.cli(["builder", "du"])?.ok()?;
        Ok(())
    })
}

#[test]
fn what_is_not_there_is_refused_before_anything_is_left() -> TestResult {
    scenario(|host| {
        let dir = context(&[("Dockerfile", "FROM busybox\nRUN echo made > /x\n")])?;
        for (flags, text) in [
            (&["--cache-to", "type=gha"][..], "cache exports of the kind \"gha\""),
            (&["--ssh", "key=/etc/hostname"], "is no socket of an ssh agent"),
        ] {
            let flags = [&["-t", "refused:1"][..], flags].concat();
            build(host, dir.path(), &flags)?.exits_with(1)?.complains(text)?;
        }
        host.cli(["image", "inspect", "refused:1"])?.exits_with(1)?;
        Ok(())
    })
}

/// Our own registry in the host's network, with one user.
pub(crate) struct Registry(std::process::Child);

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) fn registry(host: &Host) -> TestResult<Registry> {
    let users = host.folder().join("users");
    let hash =
        format!("printf secret | {RORQUAL} registry hash-password user > {}", users.display());
    let made = std::process::Command::new("sh").args(["-euc", &hash]).status()?;
    assert!(made.success(), "no password file: {made}");
    let log = fs::File::create(host.folder().join("registry.log"))?;
    let mut command = host.command(RORQUAL);
    command.args(["registry", "--listen", "127.0.0.1:5000", "--htpasswd"]).arg(&users);
    command.arg("--storage").arg(host.folder().join("registry"));
    let served = Registry(command.stdout(log.try_clone()?).stderr(log).spawn()?);
    let login = ["login", "-u", "user", "--password-stdin", "127.0.0.1:5000"];
    eventually("the registry takes the login", || {
        host.cli_with_input(login, b"secret").ok()?.ok().ok()
    })?;
    Ok(served)
}

#[test]
fn a_build_pulls_and_pushes_with_the_logins_of_its_client() -> TestResult {
    scenario(|host| {
        let _registry = registry(host)?;
        host.cli(["tag", "busybox", "127.0.0.1:5000/base:1"])?.ok()?;
        host.cli(["push", "-q", "127.0.0.1:5000/base:1"])?.ok()?;
        host.cli(["rmi", "127.0.0.1:5000/base:1"])?.ok()?;
        let text = "FROM 127.0.0.1:5000/base:1\nRUN echo pushed > /x\n";
        let dir = context(&[("Dockerfile", text)])?;
        build(host, dir.path(), &["--push", "-t", "127.0.0.1:5000/team/app:1"])?.ok()?;
        host.cli(["rmi", "127.0.0.1:5000/team/app:1"])?.ok()?;
        host.cli(["pull", "-q", "127.0.0.1:5000/team/app:1"])?.ok()?;
        host.cli(["run", "--rm", "127.0.0.1:5000/team/app:1", "cat", "/x"])?.prints("pushed")?;
        host.cli(["logout", "127.0.0.1:5000"])?.ok()?;
        let refused = build(host, dir.path(), &["--push", "-t", "127.0.0.1:5000/team/app:2"])?;
        refused.exits_with(1)?.complains("pushing 127.0.0.1:5000/team/app:2")?;
        build(host, dir.path(), &["--push"])?.exits_with(1)?.complains("tag is needed")?;
        Ok(())
    })
}

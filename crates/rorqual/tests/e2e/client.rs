//! The client's own business: names it is called by, plugins, completions, manual pages, signals.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::{Command, Stdio};

use rorqual_testkit::{Host, TestResult, eventually};

use crate::{RORQUAL, inspect, scenario};

#[test]
fn the_name_chooses_the_role() -> TestResult {
    let folder = tempfile::tempdir()?;
    let called = |name: &str, words: &[&str]| -> TestResult<(i32, String)> {
        let path = folder.path().join(name);
        if !path.exists() {
            symlink(RORQUAL, &path)?;
        }
        let output =
            Command::new(path).args(words).env("DOCKER_HOST", "unix:///nowhere").output()?;
        let text = [output.stdout, output.stderr].concat();
        Ok((output.status.code().unwrap_or(-1), String::from_utf8_lossy(&text).into_owned()))
    };
    for (name, words, code, wanted) in [
        ("docker", &["--help"][..], 0, "Usage:  docker [OPTIONS] COMMAND"),
        ("rq", &["ps", "--help"], 0, "Usage:  rq ps [OPTIONS]"),
        ("dockerd", &["--help"], 0, "Usage:  "),
        ("dockerd", &["--version"], 0, "Rorqual daemon version"),
        ("docker", &["ps"], 1, "Cannot connect to the Docker daemon at unix:///nowhere"),
        ("docker", &["no-such"], 1, "docker: unknown command: docker no-such"),
        ("docker", &["ps", "--nope"], 125, "unknown flag: --nope"),
        ("docker", &["container", "nope"], 1, "unknown command: docker container nope"),
        // Commands under both of their names.
        ("docker", &["container", "ls", "--help"], 0, "docker container ls, docker container list"),
        ("docker", &["image", "rm", "--help"], 0, "docker rmi"),
        // A format cannot hide that there is no daemon.
        ("docker", &["version", "--format", "{{.Server.Version}}"], 1, "Cannot connect"),
        ("docker", &["info", "--format", "{{.Name}}"], 1, "Cannot connect"),
    ] {
        let (found, text) = called(name, words)?;
        assert!(found == code && text.contains(wanted), "{name} {words:?}: {found} {text}");
    }
    Ok(())
}

/// A plugin that shows what it was called with.
const PLUGIN: &str = r#"#!/bin/sh
case "$1" in
docker-cli-plugin-metadata) echo '{"SchemaVersion":"0.1.0","Vendor":"Somebody","Version":"v3","ShortDescription":"Test"}' ;;
__complete) printf 'up\tStart\ndown\tStop\n:4\n' ;;
*) echo "called: $*, host: $DOCKER_HOST"; exit 7 ;;
esac
"#;

#[test]
fn plugins_are_commands() -> TestResult {
    scenario(|host| {
        let folder = host.folder().join("config/cli-plugins");
        fs::create_dir_all(&folder)?;
        let path = folder.join("docker-stage");
        fs::write(&path, PLUGIN)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        let call = format!("called: stage up -d, host: unix://{}", host.socket().display());
        for finished in [host.docker(["stage", "up", "-d"])?, host.cli(["stage", "up", "-d"])?] {
            finished.exits_with(7)?.prints(&call)?;
        }
        let with_flag = host.cli(["--log-level", "warn", "stage", "up"])?.exits_with(7)?;
        assert!(
            with_flag.stdout.starts_with("called: --log-level warn stage up,"),
            "{with_flag:?}"
        );
        host.cli(["__complete", "stage", ""])?.prints("up\tStart\ndown\tStop\n:words")?;
        assert!(host.cli(["__complete", "st"])?.ok()?.contains("stage\t"));
        let listed = "{{range .ClientInfo.Plugins}}{{.Name}} {{.Version}}{{end}}";
        host.cli(["info", "--format", listed])?.prints("stage v3")?;
        fs::write(&path, "#!/bin/sh\nexit 1\n")?;
        host.cli(["stage"])?.exits_with(1)?.complains("does not describe itself")?;
        Ok(())
    })
}

#[test]
fn completions_and_manual_pages_come_from_the_table() -> TestResult {
    scenario(|host| {
        host.cli(["run", "-d", "--name", "complete-me", "busybox", "sleep", "1000"])?.ok()?;
        let offered = host.cli(["__complete", "stop", "comp"])?.ok()?;
        assert!(offered.starts_with("complete-me\tbusybox"), "{offered}");
        for shell in ["bash", "zsh", "fish", "powershell"] {
            let script = host.cli(["completion", shell])?.ok()?;
            assert!(script.contains("__complete"), "{script}");
        }
        host.cli(["completion", "tcsh"])?.exits_with(1)?.complains("unsupported shell")?;
        let script = host.folder().join("completion");
        fs::write(&script, host.cli(["completion", "bash"])?.ok()?)?;
        let mut bash = host.command("bash");
        let ask = "source \"$1\"; COMP_WORDS=(\"$0\" stop comp); COMP_CWORD=2; _rorqual_complete; echo ${COMPREPLY[@]}";
        bash.args(["--norc", "-c", ask, RORQUAL]).arg(&script);
        host.run(bash)?.prints("complete-me")?;
        let manual = host.folder().join("man");
        host.cli(["__manual".as_ref(), manual.as_os_str()])?.ok()?;
        let page = fs::read_to_string(manual.join("rorqual-run.1"))?;
        assert!(page.starts_with(".TH \"RORQUAL") && page.contains("\\-\\-publish"), "{page}");
        assert!(manual.join("rorqual-network-create.1").exists());
        Ok(())
    })
}

/// Starts a client in the foreground whose container answers SIGINT with code 9.
fn foreground(host: &Host, words: &[&str]) -> TestResult<std::process::Child> {
    let script = "trap 'exit 9' INT; echo ready; while :; do sleep 0.1; done";
    let mut command = host.command(RORQUAL);
    command.args(["run", "--name", "cc"]).args(words).args(["busybox", "sh", "-c", script]);
    Ok(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?)
}

#[test]
fn signals_in_the_foreground_reach_the_container() -> TestResult {
    scenario(|host| {
        let mut client = foreground(host, &[])?;
        eventually("the trap is set", || {
            let logs = host.cli(["logs", "cc"]).ok()?;
            logs.stdout.contains("ready").then_some(())
        })?;
        // The client itself: the harness enters namespaces by executing it in place.
        let sent = Command::new("kill").args(["-INT", &client.id().to_string()]).status()?;
        assert!(sent.success());
        let code = eventually("the client ends", || client.try_wait().ok().flatten())?.code();
        assert_eq!(code, Some(9));
        assert_eq!(inspect(host, "cc", "{{.State.Status}} {{.State.ExitCode}}")?, "exited 9");
        Ok(())
    })
}

#[test]
fn copies_come_out_as_they_are() -> TestResult {
    scenario(|host| {
        let script = "mkdir -p /src/sub; cd /src; echo text >file; chmod 640 file; ln file hard; ln -s /etc/passwd link; \
                      mkfifo pipe; echo deep >sub/deep; chmod 555 sub";
        host.cli(["run", "--name", "cc", "busybox", "sh", "-c", script])?.ok()?;
        let place = host.folder().join("out");
        fs::create_dir(&place)?;
        let target = place.display().to_string();
        host.cli(["cp", "cc:/src", &target])?.ok()?;
        host.cli(["cp", "cc:/src", &format!("{target}/renamed")])?.ok()?;
        host.cli(["cp", "cc:/src/.", &format!("{target}/renamed")])?.ok()?;
        for folder in ["src", "renamed"] {
            let at = |name: &str| place.join(folder).join(name);
            assert_eq!(fs::read_to_string(at("hard"))?, "text\n");
            assert_eq!(fs::metadata(at("file"))?.permissions().mode() & 0o7777, 0o640);
            assert_eq!(fs::read_link(at("link"))?.to_str(), Some("/etc/passwd"));
            assert_eq!(fs::read_to_string(at("sub/deep"))?, "deep\n");
            assert_eq!(fs::metadata(at("sub"))?.permissions().mode() & 0o7777, 0o555);
        }
        // A link that the user names is followed.
        symlink("real", place.join("named"))?;
        host.cli(["cp", "cc:/src/file", &format!("{target}/named")])?.ok()?;
        assert_eq!(fs::read_to_string(place.join("real"))?, "text\n");
        Ok(())
    })
}

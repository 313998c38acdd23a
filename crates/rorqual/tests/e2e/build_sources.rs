//! Builds of what lies elsewhere: files and archives at addresses, git repositories, contexts that the daemon fetches.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rorqual_testkit::{Host, TestResult, eventually};

use crate::build::build;
use crate::build_client::{build as own, context};
use crate::scenario;

/// A server; ends with this.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

impl Server {
    /// Waits until something listens at a port inside the host.
    fn ready(mut command: Command, host: &Host, port: &str) -> TestResult<Self> {
        let server = Self(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?);
        eventually("the server listens", || {
            let mut probe = host.command(rorqual_testkit::image::busybox().ok()?);
            probe.args(["nc", "-w", "1", "127.0.0.1", port]);
            host.run(probe).ok().filter(|run| run.code == 0).map(drop)
        })?;
        Ok(server)
    }

    fn web(host: &Host, files: &Path) -> TestResult<Self> {
        let mut server = host.command(rorqual_testkit::image::busybox()?);
        server.args(["httpd", "-f", "-p", "127.0.0.1:8000", "-h"]).arg(files);
        Self::ready(server, host, "8000")
    }

    fn git(host: &Host, repositories: &Path) -> TestResult<Self> {
        // Not by `git daemon`, which would be its parent and die alone.
        let programs = Command::new("git").arg("--exec-path").output()?.stdout;
        let programs = String::from_utf8(programs)?;
        let mut server = host.command(Path::new(programs.trim()).join("git-daemon"));
        server.args(["--reuseaddr", "--export-all", "--listen=127.0.0.1", "--port=9418"]);
        server.arg(format!("--base-path={}", repositories.display())).arg(repositories);
        Self::ready(server, host, "9418")
    }
}

fn nothing_is_left(host: &Host) -> TestResult {
    eventually("nothing of what was fetched is left", || {
        let left = fs::read_dir(host.folder().join("data/build/arrivals")).ok()?;
        (left.count() == 0).then_some(())
    })
}

fn sh(folder: &Path, script: &str) -> TestResult<String> {
    let output = Command::new("sh").arg("-ec").arg(script).current_dir(folder).output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
    }
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

#[test]
fn files_at_addresses_are_added_checked_and_remembered() -> TestResult {
    scenario(|host| {
        let web = tempfile::tempdir()?;
        fs::write(web.path().join("file"), "fetched\n")?;
        sh(web.path(), "echo inside > member; tar -cf a.tar member; touch -d @1000000000 file")?;
        let sum = sh(web.path(), "sha256sum file | cut -d' ' -f1")?;
        let server = Server::web(host, web.path())?;
        let url = "http://127.0.0.1:8000";
        let text = |sum: &str| {
            format!(
                "FROM busybox\nADD --checksum=sha256:{sum} {url}/file /checked\nADD {url}/file {url}/a.tar /in/\n\
                 RUN cat /in/file && stat -c '%a %Y %u' /in/file && ls /in\n"
            )
        };
        let dir = context(&[("Dockerfile", text(&sum).as_str())])?;
        let write = |text: &str| fs::write(dir.path().join("Dockerfile"), text);
        let made = || own(host, dir.path(), &[]);
        // Docker's mode, the server's time, and an archive stays one.
        made()?.exits_with(0)?.complains("600 1000000000 0\n")?.complains("a.tar\n")?;
        let again = made()?.exits_with(0)?;
        assert!(!again.stderr.contains("1000000000 0"), "{}", again.stderr);
        fs::write(web.path().join("file"), "other\n")?;
        write(&text(&"0".repeat(64)))?;
        made()?.exits_with(1)?.complains("digest mismatch sha256:")?;
        write(&format!("FROM busybox\nADD {url}/file /x\nRUN cat /x | rev\n"))?;
        made()?.exits_with(0)?.complains("rehto\n")?;
        write(&format!("FROM busybox\nADD {url}/nothing /x\n"))?;
        made()?.exits_with(1)?.complains("invalid response status 404")?;
        drop(server);
        // With a checksum it is known what is there; without, the server has to be asked.
        write(&format!("FROM busybox\nADD --checksum=sha256:{sum} {url}/file /checked\n"))?;
        made()?.exits_with(0)?;
        write(&format!("FROM busybox\nADD {url}/file /x\n"))?;
        made()?.exits_with(1)?.complains("connection refused")?;
        nothing_is_left(host)
    })
}

#[test]
fn a_context_is_fetched_from_an_address() -> TestResult {
    scenario(|host| {
        let web = tempfile::tempdir()?;
        fs::write(web.path().join("Dockerfile"), "FROM busybox\nCOPY a /a\nRUN cat /a\n")?;
        fs::write(web.path().join("Lone"), "FROM busybox\nRUN echo alone\n")?;
        sh(web.path(), "echo packed > a; tar -czf context.tar.gz Dockerfile a")?;
        let server = Server::web(host, web.path())?;
        let remote = |name: &str| format!("remote=http%3A%2F%2F127.0.0.1%3A8000%2F{name}");
        build(host, &remote("context.tar.gz"), b"")?.built()?.says("packed\n")?;
        build(host, &remote("Lone"), b"")?.built()?.says("alone\n")?;
        build(host, &remote("nothing"), b"")?.fails_with("404 Not Found")?;
        build(host, "remote=nowhere", b"")?.fails_with("need the address")?;
        drop(server);
        build(host, &remote("context.tar.gz"), b"")?.fails_with("connection refused")?;
        Ok(())
    })
}

/// Makes a repository with a branch, a tag, a directory, and a hook and settings that would be felt if anything heeded them.
const REPOSITORY: &str = r"
export HOME=$PWD GIT_CONFIG_NOSYSTEM=1
git init -q -b main work && cd work
git config user.email a@b && git config user.name a
mkdir sub && printf 'FROM busybox\nCOPY . /in\nRUN ls -A /in && cat /in/text\n' > sub/Dockerfile
echo first > sub/text && chmod 755 sub/text && git add . && git commit -qm one && git tag -a v1 -m v1
echo second > sub/text && git commit -qam two
git rev-parse v1^{commit}
git clone -q --bare . ../made.git
";

#[test]
fn repositories_are_contexts_and_are_added() -> TestResult {
    if Command::new("git").arg("--version").output().is_err() {
        return Ok(());
    }
    scenario(|host| {
        let all = tempfile::tempdir()?;
        let first = sh(all.path(), REPOSITORY)?;
        let server = Server::git(host, all.path())?;
        let remote =
            |fragment: &str| format!("remote=git%3A%2F%2F127.0.0.1%2Fmade.git%23{fragment}");
        build(host, &remote("main%3Asub"), b"")?.built()?.says("Dockerfile\ntext\nsecond\n")?;
        build(host, &remote("v1%3Asub"), b"")?.built()?.says("first\n")?;
        build(host, &remote("nowhere"), b"")?.fails_with("does not contain ref nowhere")?;
        build(host, &remote("main%3Anothing"), b"")?.fails_with("has no directory")?;
        let url = "git://127.0.0.1/made.git";
        let dir = context(&[(
            "Dockerfile",
            format!(
                "FROM busybox\nADD {url}#v1 /one\nADD --keep-git-dir=true {url}#main /two\nADD {url}#{first} /three\n\
                 RUN cat /one/sub/text /two/sub/text /three/sub/text | tr '\\n' ' '; ls -A /one; cat /two/.git/HEAD; stat -c %a /one/sub/text\n"
            )
            .as_str(),
        )])?;
        own(host, dir.path(), &[])?
            .exits_with(0)?
            .complains("first second first sub\n")?
            .complains("ref: refs/heads/main\n")?
            .complains("755\n")?;
        let again = own(host, dir.path(), &[])?.exits_with(0)?;
        assert!(!again.stderr.contains("first second"), "{}", again.stderr);
        let seen = host.cli(["builder", "du", "--verbose"])?.ok()?;
        assert!(seen.contains("repository git://127.0.0.1/made.git"), "{seen}");
        host.cli(["builder", "prune", "-af"])?.ok()?;
        assert_eq!(fs::read_dir(host.folder().join("data/build/git"))?.count(), 0);
        drop(server);
        nothing_is_left(host)
    })
}

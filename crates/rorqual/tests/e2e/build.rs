//! Building images by the classic protocol: what comes out, what is cached, what is refused, and what faults leave.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use rorqual_testkit::{Host, TestResult, eventually};

use crate::{inspect, scenario};

/// A build context of files, as a directory.
struct Context(tempfile::TempDir);

impl Context {
    fn new(files: &[(&str, &str)]) -> TestResult<Self> {
        let context = Self(tempfile::tempdir()?);
        for (path, text) in files {
            context.write(path, text)?;
        }
        Ok(context)
    }

    fn path(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    fn write(&self, path: &str, text: &str) -> TestResult {
        let path = self.path(path);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        Ok(fs::write(path, text)?)
    }

    fn tar(&self) -> TestResult<Vec<u8>> {
        let output = Command::new("tar").arg("-C").arg(self.0.path()).args(["-c", "."]).output()?;
        Ok(output.stdout)
    }
}

/// What a build said.
#[derive(Debug)]
pub(crate) struct Said {
    status: u16,
    /// The text of all lines, one after the other.
    text: String,
    error: String,
}

impl Said {
    pub(crate) fn built(self) -> TestResult<Self> {
        if self.status == 200 && self.error.is_empty() {
            return Ok(self);
        }
        Err(format!("the build failed: {self:#?}").into())
    }

    pub(crate) fn fails_with(self, text: &str) -> TestResult<Self> {
        if self.error.contains(text) {
            return Ok(self);
        }
        Err(format!("expected a failure with {text:?}: {self:#?}").into())
    }

    pub(crate) fn says(self, text: &str) -> TestResult<Self> {
        if self.text.contains(text) {
            return Ok(self);
        }
        Err(format!("expected {text:?}: {self:#?}").into())
    }

    fn says_not(self, text: &str) -> TestResult<Self> {
        if !self.text.contains(text) {
            return Ok(self);
        }
        Err(format!("did not expect {text:?}: {self:#?}").into())
    }
}

fn begin(host: &Host, query: &str, body: &[u8]) -> TestResult<UnixStream> {
    let mut socket = UnixStream::connect(host.socket())?;
    write!(
        socket,
        "POST /v1.44/build?{query} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\
         Content-Type: application/x-tar\r\nContent-Length: {}\r\n\r\n",
        body.len()
    )?;
    // A daemon that refuses at once need not read all of it.
    let _ = socket.write_all(body);
    Ok(socket)
}

pub(crate) fn build(host: &Host, query: &str, body: &[u8]) -> TestResult<Said> {
    let mut answer = Vec::new();
    begin(host, query, body)?.read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (head, rest) = answer.split_once("\r\n\r\n").ok_or("no answer")?;
    let status = head.split(' ').nth(1).ok_or("no status")?.parse()?;
    let mut said = Said { status, text: String::new(), error: String::new() };
    for line in rest.lines().filter(|line| line.starts_with('{')) {
        let line: serde_json::Value = serde_json::from_str(line)?;
        let text = |name: &str| line[name].as_str().unwrap_or_default().to_owned();
        said.text.push_str(&text("stream"));
        said.error.push_str(&text("error"));
        if status != 200 {
            said.error.push_str(&text("message"));
        }
    }
    Ok(said)
}

fn layers(host: &Host, image: &str) -> TestResult<String> {
    inspect(host, image, "{{json .RootFS.Layers}}")
}

#[test]
fn a_dockerfile_becomes_an_image_that_runs() -> TestResult {
    scenario(|host| {
        let context = Context::new(&[
            (
                "Dockerfile",
                "FROM busybox\nARG who=world\nENV GREETING=hello\nWORKDIR /srv\nCOPY src/ ./\n\
                 RUN echo $GREETING $who > said && chmod 600 said\nUSER app\n\
                 LABEL kind=test\nEXPOSE 80\nCMD [\"cat\", \"/srv/a\", \"/srv/sub/b\"]\n",
            ),
            ("src/a", "one\n"),
            ("src/sub/b", "two\n"),
        ])?;
        let tar = context.tar()?;
        build(host, "t=mine:v1&buildargs=%7B%22who%22%3A%22you%22%7D", &tar)?
            .built()?
            .says("Step 1/10 : FROM busybox\n")?
            .says("Successfully built ")?
            .says("Successfully tagged mine:v1\n")?;
        host.cli(["run", "--rm", "mine:v1"])?.prints("one\ntwo")?;
        host.cli(["run", "--rm", "-u", "0", "mine:v1", "cat", "/srv/said"])?.prints("hello you")?;
        host.cli(["run", "--rm", "mine:v1", "stat", "-c", "%a %u", "/srv/said"])?
            .prints("600 0")?;
        let config = "{{.Config.WorkingDir}} {{.Config.User}} {{index .Config.Labels \"kind\"}}";
        assert_eq!(inspect(host, "mine:v1", config)?, "/srv app test");
        // What a step's mounts and files of the daemon need leaves no trace.
        host.cli(["run", "--rm", "-u", "0", "mine:v1", "ls", "/etc"])?
            .prints("group\nhostname\nhosts\nmtab\npasswd\nresolv.conf")?;
        Ok(())
    })
}

#[test]
fn what_did_not_change_is_taken_from_the_cache() -> TestResult {
    scenario(|host| {
        let context = Context::new(&[
            (
                "Dockerfile",
                "FROM busybox\nCOPY a /a\nRUN cat /a && date +%N%s > /when\nCOPY b /b\nRUN cat /b\n",
            ),
            ("a", "first\n"),
            ("b", "second\n"),
        ])?;
        build(host, "t=one", &context.tar()?)?.built()?.says("first\n")?.says("second\n")?;
        let before = layers(host, "one")?;
        // Times do not count.
        context.write("a", "first\n")?;
        build(host, "t=two", &context.tar()?)?
            .built()?
            .says(" ---> Using cache\n")?
            .says_not("first\n")?
            .says_not("Running in")?;
        assert_eq!(layers(host, "two")?, before);
        context.write("b", "third\n")?;
        build(host, "t=three", &context.tar()?)?.built()?.says_not("first\n")?.says("third\n")?;
        // A cache survives the daemon, also one that is killed, and a collection.
        host.kill_daemon()?;
        host.start_daemon()?;
        host.cli(["rmi", "one", "two", "three"])?.ok()?;
        build(host, "t=two", &context.tar()?)?.built()?.says_not("Running in")?;
        host.cli(["run", "--rm", "two", "cat", "/b"])?.prints("third")?;
        build(host, "t=four&nocache=1", &context.tar()?)?.built()?.says("first\n")?;
        assert_ne!(layers(host, "four")?, before);
        assert!(host.cli(["system", "df"])?.ok()?.contains("Build Cache"));
        host.cli(["system", "prune", "-af"])?.ok()?;
        host.import_busybox()?;
        build(host, "t=five", &context.tar()?)?.built()?.says("first\n")?;
        Ok(())
    })
}

#[test]
fn stages_are_copied_from_and_nothing_of_them_stays() -> TestResult {
    scenario(|host| {
        let context = Context::new(&[(
            "Dockerfile",
            "FROM busybox AS made\nRUN mkdir -p /out/deep && echo made > /out/deep/file && \
             ln -s deep/file /out/link && ln /out/deep/file /out/hard\n\
             FROM scratch\nCOPY --from=made --chown=7:8 /out /\nCOPY --from=made /bin/busybox /tool/busybox\n\
             ENTRYPOINT [\"/tool/busybox\", \"cat\"]\nCMD [\"/link\"]\n",
        )])?;
        build(host, "t=slim", &context.tar()?)?.built()?;
        host.cli(["run", "--rm", "slim"])?.prints("made")?;
        host.cli(["run", "--rm", "slim", "/hard"])?.prints("made")?;
        host.cli([
            "run",
            "--rm",
            "--entrypoint",
            "/tool/busybox",
            "slim",
            "stat",
            "-c",
            "%u:%g",
            "/deep/file",
        ])?
        .exits_with(0)?
        .prints("7:8")?;
        Ok(())
    })
}

#[test]
fn failures_tell_what_and_leave_nothing() -> TestResult {
    scenario(|host| {
        let cases = [
            ("FROM busybox\nRUN echo out; exit 3\n", 200, "returned a non-zero code: 3"),
            (
                "FROM busybox\nCOPY nowhere /x\n",
                200,
                "COPY failed: file not found in build context or excluded by .dockerignore: stat nowhere: file does not exist",
            ),
            ("FROM busybox\nCOPY ../../etc/shadow /x\n", 200, "file not found in build context"),
            ("FROM busybox\nFROBNICATE\n", 400, "unknown instruction: FROBNICATE"),
            ("RUN true\n", 400, ""),
            ("FROM busybox\nCOPY --from=9 a /a\n", 0, ""),
        ];
        for (dockerfile, status, text) in cases {
            let context = Context::new(&[("Dockerfile", dockerfile)])?;
            let said = build(host, "t=never", &context.tar()?)?.fails_with(text)?;
            assert!(!said.error.is_empty(), "{dockerfile}");
            if status != 0 {
                assert_eq!(said.status, status, "{dockerfile} {said:?}");
            }
        }
        let context = Context::new(&[("other", "FROM busybox\n")])?;
        build(host, "", &context.tar()?)?
            .fails_with("Cannot locate specified Dockerfile: Dockerfile")?;
        build(host, "", b"no archive")?.fails_with("")?;
        host.cli(["images", "-q", "never"])?.prints("")?;
        for folder in ["data/containers", "data/build/contexts"] {
            eventually("nothing of them is left", || {
                (fs::read_dir(host.folder().join(folder)).ok()?.count() == 0).then_some(())
            })?;
        }
        Ok(())
    })
}

#[test]
fn a_hostile_context_stays_inside() -> TestResult {
    scenario(|host| {
        let context = Context::new(&[
            (
                "Dockerfile",
                "FROM busybox\nRUN ln -s /etc /srv && ln -s ../../../../outside /up\n\
                 COPY links /links\nCOPY file /srv/planted\nCOPY file /up\nCOPY abs /got\n",
            ),
            ("file", "mine\n"),
            ("links/x", "x"),
        ])?;
        let secret = host.folder().join("secret");
        fs::write(&secret, "secret of the host")?;
        std::os::unix::fs::symlink(&secret, context.path("links/direct"))?;
        std::os::unix::fs::symlink("../../../../../../../../etc/shadow", context.path("links/up"))?;
        std::os::unix::fs::symlink("/etc/shadow", context.path("abs"))?;
        let said = build(host, "t=hostile", &context.tar()?)?;
        // The link that leads out of the context has nothing to show there.
        said.fails_with("file not found in build context")?;
        context.write(
            "Dockerfile",
            &fs::read_to_string(context.path("Dockerfile"))?.replace("COPY abs /got\n", ""),
        )?;
        build(host, "t=hostile", &context.tar()?)?.built()?;
        host.cli(["run", "--rm", "hostile", "readlink", "/links/direct"])?
            .prints(&secret.display().to_string())?;
        host.cli(["run", "--rm", "hostile", "cat", "/etc/planted"])?.prints("mine")?;
        host.cli(["run", "--rm", "hostile", "cat", "/up"])?.prints("mine")?;
        assert!(!Path::new("/etc/planted").exists() && !Path::new("/outside").exists());
        Ok(())
    })
}

#[test]
fn a_build_whose_client_goes_away_ends() -> TestResult {
    scenario(|host| {
        let context =
            Context::new(&[("Dockerfile", "FROM busybox\nRUN echo started; sleep 987654\n")])?;
        let mut socket = begin(host, "t=gone", &context.tar()?)?;
        let mut seen = String::new();
        let mut piece = [0; 4096];
        while !seen.contains("started\\n") {
            let len = socket.read(&mut piece)?;
            assert!(len > 0, "{seen}");
            seen.push_str(&String::from_utf8_lossy(&piece[..len]));
        }
        eventually("the step runs", || running("987654").then_some(()))?;
        drop(socket);
        eventually("the step ends", || (!running("987654")).then_some(()))?;
        eventually("its snapshot goes", || {
            (fs::read_dir(host.folder().join("data/containers")).ok()?.count() == 0).then_some(())
        })?;
        Ok(())
    })
}

#[test]
fn a_daemon_killed_in_the_middle_of_a_build_starts_clean_and_knows_what_was_finished() -> TestResult
{
    scenario(|host| {
        let dockerfile =
            "FROM busybox\nRUN echo finished > /done\nRUN echo started; sleep 876543\n";
        let context = Context::new(&[("Dockerfile", dockerfile)])?;
        let mut socket = begin(host, "t=killed", &context.tar()?)?;
        let mut seen = String::new();
        let mut piece = [0; 4096];
        while !seen.contains("started\\n") {
            let len = socket.read(&mut piece)?;
            assert!(len > 0, "{seen}");
            seen.push_str(&String::from_utf8_lossy(&piece[..len]));
        }
        host.kill_daemon()?;
        host.start_daemon()?;
        eventually("the step ends", || (!running("876543")).then_some(()))?;
        eventually("its snapshot goes", || {
            (fs::read_dir(host.folder().join("data/containers")).ok()?.count() == 0).then_some(())
        })?;
        let short = dockerfile.replace("; sleep 876543", "");
        context.write("Dockerfile", &short)?;
        let said = build(host, "t=killed", &context.tar()?)?.built()?;
        let steps = said.text.split("Step ").collect::<Vec<_>>();
        assert!(steps[2].contains("Using cache"), "{said:?}");
        assert!(steps[3].contains("Running in"), "{said:?}");
        Ok(())
    })
}

/// Tells whether `sleep` with this argument runs anywhere.
fn running(argument: &str) -> bool {
    let Ok(all) = fs::read_dir("/proc") else { return false };
    all.flatten().any(|entry| {
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let words = line.split(|byte| *byte == 0).collect::<Vec<_>>();
        words.first().is_some_and(|word| word.ends_with(b"sleep"))
            && words.contains(&argument.as_bytes())
    })
}

#[test]
fn the_docker_client_builds() -> TestResult {
    if Command::new("docker").arg("--version").output().is_err() {
        return Ok(());
    }
    scenario(|host| {
        let context = Context::new(&[
            ("Dockerfile", "FROM busybox\nCOPY . /in\nRUN test ! -e /in/left && cat /in/kept\n"),
            (".dockerignore", "left\n"),
            ("left", "x"),
            ("kept", "kept\n"),
        ])?;
        let mut command = host.command("docker");
        command.env("DOCKER_BUILDKIT", "0").args(["build", "-t", "cli:1"]).arg(context.0.path());
        let built = host.run(command)?.ok()?;
        assert!(built.contains("kept\n") && built.contains("Successfully tagged cli:1"), "{built}");
        Ok(())
    })
}

//! Clients from elsewhere: mutual TLS, ssh, and those that mean no good.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rorqual_testkit::{Finished, Host, HostOptions, TestResult, eventually};

use crate::{RORQUAL, inspect, scenario, scenario_with};

/// Makes authorities and certificates; a directory per kind of client, as `DOCKER_CERT_PATH` wants it.
const CERTIFICATES: &str = r#"
set -eu
cat > ca.cnf <<END
[ca]
default_ca = d
[d]
database = index
serial = serial
new_certs_dir = .
default_md = sha256
policy = p
unique_subject = no
[p]
commonName = supplied
END
: > index; echo 1000 > serial
new_key="-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes"
for name in ours other; do
    openssl req -x509 $new_key -keyout $name-key.pem -out $name.pem -days 30 -subj /CN=$name
done
issue() { # name authority extensions validity
    mkdir $1
    openssl req $new_key -keyout $1/key.pem -out $1/request -subj /CN=$1
    printf "$3" > $1/extensions
    openssl ca -batch -config ca.cnf -cert $2.pem -keyfile $2-key.pem -in $1/request -out $1/cert.pem \
        -extfile $1/extensions -notext $4
    cp ours.pem $1/ca.pem
}
issue server ours "subjectAltName=DNS:localhost,IP:127.0.0.1\nextendedKeyUsage=serverAuth" "-days 30"
issue good ours "extendedKeyUsage=clientAuth" "-days 30"
issue stranger other "extendedKeyUsage=clientAuth" "-days 30"
issue expired ours "extendedKeyUsage=clientAuth" "-startdate 20200101000000Z -enddate 20200201000000Z"
mkdir nothing; cp ours.pem nothing/ca.pem
cp -r good doubter; cp other.pem doubter/ca.pem
"#;

const TCP: &str = "tcp://localhost:2376";

/// Makes the certificates in a new directory.
fn certificates() -> TestResult<tempfile::TempDir> {
    let folder = tempfile::tempdir()?;
    let made = Command::new("sh").args(["-c", CERTIFICATES]).current_dir(folder.path()).output()?;
    if made.status.success() {
        return Ok(folder);
    }
    Err(format!("cannot make certificates: {}", String::from_utf8_lossy(&made.stderr)).into())
}

fn server_flags(folder: &Path, verify: bool) -> HostOptions {
    let file = |name: &str| folder.join(name).display().to_string();
    let mut flags = vec!["-H".to_owned(), "tcp://127.0.0.1:2376".to_owned()];
    flags.push(if verify { "--tlsverify" } else { "--tls" }.to_owned());
    for (flag, name) in [
        ("--tlscacert", "ours.pem"),
        ("--tlscert", "server/cert.pem"),
        ("--tlskey", "server/key.pem"),
    ] {
        flags.extend([flag.to_owned(), file(name)]);
    }
    HostOptions { flags, ..HostOptions::default() }
}

/// Calls a client with the certificates of `who`.
fn call(host: &Host, client: &str, who: &Path, words: &[&str]) -> TestResult<Finished> {
    let mut command = host.command(client);
    command.env_remove("DOCKER_HOST").env("DOCKER_CERT_PATH", who).args(words);
    host.run(command)
}

#[test]
fn only_certificates_of_the_authority_get_in() -> TestResult {
    let folder = certificates()?;
    scenario_with(server_flags(folder.path(), true), |host| {
        for client in ["docker", RORQUAL] {
            let asks = |who: &str, tls: &str| {
                let words = ["-H", TCP, tls, "version", "--format", "{{.Server.Os}}"];
                call(host, client, &folder.path().join(who), &words)
            };
            asks("good", "--tlsverify")?.prints("linux")?;
            // Without verifying the daemon, which still verifies the client.
            asks("doubter", "--tls")?.prints("linux")?;
            for who in ["stranger", "expired", "nothing", "doubter"] {
                let refused = asks(who, "--tlsverify")?.exits_with(1)?;
                // Libraries of TLS have their own names for the alerts.
                let names = ["certificate", "Certificate", "UnknownCA", "UnknownIssuer"];
                assert!(
                    names.iter().any(|name| refused.stderr.contains(name)),
                    "{who}: {refused:#?}"
                );
            }
            call(host, client, folder.path(), &["-H", TCP, "ps"])?
                .exits_with(1)?
                .complains("Are you trying to connect to a TLS-enabled daemon without TLS?")?;
            streams_over_tls(host, client, &folder.path().join("good"))?;
        }
        Ok(())
    })
}

/// What takes over a connection, with half of it closed early, and all by variables.
fn streams_over_tls(host: &Host, client: &str, who: &Path) -> TestResult {
    let mut command = host.command("sh");
    command.args(["-c", "echo over the wire | \"$0\" run --rm -i busybox cat", client]);
    command.env("DOCKER_HOST", TCP).env("DOCKER_TLS_VERIFY", "1").env("DOCKER_CERT_PATH", who);
    host.run(command)?.prints("over the wire")?;
    Ok(())
}

#[test]
fn contexts_carry_their_certificates() -> TestResult {
    let folder = certificates()?;
    scenario_with(server_flags(folder.path(), true), |host| {
        for (client, name) in [("docker", "theirs"), (RORQUAL, "ours")] {
            let place = folder.path().join("good");
            let endpoint = format!(
                "host={TCP},ca={0}/ca.pem,cert={0}/cert.pem,key={0}/key.pem",
                place.display()
            );
            let plain = |words: &[&str]| call(host, client, Path::new("/nowhere"), words);
            let os = ["version", "--format", "{{.Server.Os}}"];
            plain(&["context", "create", name, "--docker", &endpoint])?.ok()?;
            plain(&[&["--context", name][..], &os].concat())?.prints("linux")?;
            plain(&["context", "use", name])?.ok()?;
            plain(&os)?.prints("linux")?;
            plain(&["context", "show"])?.prints(name)?;
            let archive = folder.path().join(name).display().to_string();
            plain(&["context", "export", name, &archive])?.ok()?;
            plain(&["context", "use", "default"])?.ok()?;
            plain(&["context", "rm", name])?.ok()?;
            plain(&["context", "import", "again", &archive])?.ok()?;
            plain(&[&["-c", "again"][..], &os].concat())?.prints("linux")?;
            plain(&["context", "rm", "again"])?.ok()?;
        }
        Ok(())
    })
}

#[test]
fn encryption_without_clients_certificates_stays_on_this_host() -> TestResult {
    let folder = certificates()?;
    scenario_with(server_flags(folder.path(), false), |host| {
        let nothing = folder.path().join("nothing");
        for client in ["docker", RORQUAL] {
            let words = ["-H", TCP, "--tlsverify", "version", "--format", "{{.Server.Os}}"];
            call(host, client, &nothing, &words)?.prints("linux")?;
        }
        assert!(host.daemon_log().contains("without authentication"));
        let places =
            ["data2", "run2", "pid2"].map(|name| host.folder().join(name).display().to_string());
        let [data, run, pid] = &places;
        let mut flags = server_flags(folder.path(), false).flags;
        flags[1] = "tcp://0.0.0.0:2377".to_owned();
        flags.extend(["--data-root", data, "--exec-root", run, "-p", pid].map(str::to_owned));
        host.refused_daemon(&flags)?.exits_with(1)?.complains("without --tlsverify")?;
        Ok(())
    })
}

/// An ssh server in the host's namespaces whose users find our binary under the name `docker`.
struct Sshd {
    server: Child,
    /// Directory with an `ssh` that knows the server and the key.
    tools: PathBuf,
}

impl Sshd {
    fn start(host: &Host) -> TestResult<Self> {
        let folder = host.folder().join("ssh");
        let (tools, far) = (folder.join("tools"), folder.join("far"));
        fs::create_dir_all(&tools)?;
        fs::create_dir_all(&far)?;
        fs::create_dir_all("/run/sshd")?;
        symlink(RORQUAL, far.join("docker"))?;
        for name in ["host", "user"] {
            let made = Command::new("ssh-keygen")
                .args(["-q", "-t", "ed25519", "-N", "", "-f"])
                .arg(folder.join(name))
                .status()?;
            assert!(made.success());
        }
        let at = folder.display();
        let config = format!(
            "ListenAddress 127.0.0.1\nPort 2222\nHostKey {at}/host\nAuthorizedKeysFile {at}/user.pub\n\
             StrictModes no\nUsePAM no\nPidFile none\nPasswordAuthentication no\nPermitRootLogin prohibit-password\n\
             SetEnv PATH={at}/far:/usr/bin:/bin DOCKER_HOST=unix://{} DOCKER_CONFIG={at}/none\n",
            host.socket().display()
        );
        fs::write(folder.join("sshd_config"), config)?;
        let client = format!(
            "Host *\nIdentityFile {at}/user\nIdentitiesOnly yes\nUserKnownHostsFile {at}/known\n\
             StrictHostKeyChecking accept-new\nLogLevel ERROR\nBatchMode yes\n"
        );
        fs::write(folder.join("ssh_config"), client)?;
        let wrapper = tools.join("ssh");
        fs::write(&wrapper, format!("#!/bin/sh\nexec /usr/bin/ssh -F {at}/ssh_config \"$@\"\n"))?;
        fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755))?;
        let log = fs::File::create(folder.join("log"))?;
        let mut server = host.command("/usr/sbin/sshd");
        server.args(["-D", "-e", "-f"]).arg(folder.join("sshd_config"));
        server.stdout(Stdio::null()).stderr(log);
        let sshd = Self { server: server.spawn()?, tools };
        eventually("the ssh server listens", || {
            let log = fs::read_to_string(folder.join("log")).ok()?;
            log.contains("Server listening").then_some(())
        })?;
        Ok(sshd)
    }

    fn call(
        &self,
        host: &Host,
        client: &str,
        target: &str,
        words: &[&str],
    ) -> TestResult<Finished> {
        let mut command = host.command(client);
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{}:{path}", self.tools.display())).env("DOCKER_HOST", target);
        // What clients leave there is seen.
        let temporary = host.folder().join("temporary");
        std::fs::create_dir_all(&temporary)?;
        command.env("TMPDIR", temporary).args(words);
        host.run(command)
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

#[test]
fn ssh_reaches_the_daemon_of_another_machine() -> TestResult {
    scenario(|host| {
        let sshd = Sshd::start(host)?;
        let (plain, with_path) = (
            "ssh://root@127.0.0.1:2222".to_owned(),
            format!("ssh://root@127.0.0.1:2222{}", host.socket().display()),
        );
        for client in ["docker", RORQUAL] {
            for target in [&plain, &with_path] {
                let asks = |words: &[&str]| sshd.call(host, client, target, words);
                asks(&["version", "--format", "{{.Server.Os}}"])?.prints("linux")?;
                asks(&["run", "--rm", "busybox", "echo", "far away"])?.prints("far away")?;
                asks(&["run", "--rm", "busybox", "sh", "-c", "exit 9"])?.exits_with(9)?;
            }
            // docker's client tells what ssh said, or that it could not write to it, whichever it notices first.
            let nobody = sshd.call(host, client, "ssh://root@127.0.0.1:2223", &["ps"])?;
            let nobody = nobody.exits_with(1)?;
            let said = ["Connection refused", "broken pipe"].map(|it| nobody.stderr.contains(it));
            assert!(said.contains(&true), "{}", nobody.stderr);
        }
        Ok(())
    })
}

/// A daemon beside the host's own, as that of another machine.
struct FarDaemon {
    process: Child,
    socket: PathBuf,
}

impl FarDaemon {
    fn start(host: &Host) -> TestResult<Self> {
        let place = |name: &str| host.folder().join("machine").join(name);
        fs::create_dir(host.folder().join("machine"))?;
        let socket = place("sock");
        let log = fs::File::create(place("log"))?;
        let mut command = host.command(RORQUAL);
        command.args(["daemon", "--bridge", "none", "-H"]);
        command.arg(format!("unix://{}", socket.display()));
        command.arg("--data-root").arg(place("data")).arg("--exec-root").arg(place("run"));
        command.arg("-p").arg(place("pid"));
        command.arg("--cgroup-parent").arg(format!("/{}/machine", host.cgroup()));
        let process = command.stdout(log.try_clone()?).stderr(log).spawn()?;
        let far = Self { process, socket };
        eventually("the far daemon answers", || far.cli(host, &["version"]).ok()?.ok().ok())?;
        Ok(far)
    }

    fn cli(&self, host: &Host, words: &[&str]) -> TestResult<Finished> {
        let mut command = host.command(RORQUAL);
        command.env("DOCKER_HOST", format!("unix://{}", self.socket.display())).args(words);
        host.run(command)
    }
}

impl Drop for FarDaemon {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = Command::new("kill").args(["-TERM", &self.process.id().to_string()]).status();
        let _ = self.process.wait();
    }
}

#[test]
fn an_image_goes_over_ssh_without_a_registry() -> TestResult {
    scenario(|host| {
        let sshd = Sshd::start(host)?;
        let far = FarDaemon::start(host)?;
        let near = format!("unix://{}", host.socket().display());
        let to = format!("ssh://root@127.0.0.1:2222{}", far.socket.display());
        let push = |image: &str| sshd.call(host, RORQUAL, &near, &["image", "push", &to, image]);
        host.cli(["run", "--name", "maker", "busybox", "sh", "-c", "echo sent > /note"])?.ok()?;
        host.cli(["commit", "maker", "note:v1"])?.ok()?;
        host.cli(["rm", "maker"])?.ok()?;
        let first = push("note:v1")?.ok()?;
        assert!(first.contains("Pull complete"), "{first}");
        assert!(first.ends_with("note:v1 is now at root@127.0.0.1"), "{first}");
        let id = inspect(host, "note:v1", "{{.Id}}")?;
        let names = ["inspect", "--format", "{{.Id}} {{.RepoTags}} {{.RepoDigests}}", "note:v1"];
        far.cli(host, &names)?.prints(&format!("{id} [note:v1] []"))?;
        far.cli(host, &["run", "--rm", "--network", "none", "note:v1", "cat", "/note"])?
            .prints("sent")?;
        // What is there is not sent again.
        let second = push("note:v1")?.ok()?;
        assert!(!second.contains("Pull complete"), "{second}");
        // Of an image on top of it, only the new layer goes.
        host.cli(["run", "--name", "maker", "note:v1", "sh", "-c", "echo more > /more"])?.ok()?;
        host.cli(["commit", "maker", "note:v2"])?.ok()?;
        host.cli(["rm", "maker"])?.ok()?;
        let third = push("note:v2")?.ok()?;
        assert_eq!(third.matches("Pull complete").count(), 1, "{third}");
        far.cli(host, &["run", "--rm", "--network", "none", "note:v2", "cat", "/note", "/more"])?
            .prints("sent\nmore")?;
        push("nope")?.exits_with(1)?.complains("No such image: nope")?;
        let nobody = ["image", "push", "ssh://root@127.0.0.1:2223", "note:v1"];
        sshd.call(host, RORQUAL, &near, &nobody)?.exits_with(1)?.complains("Connection refused")?;
        let left = std::fs::read_dir(host.folder().join("temporary"))?.collect::<Vec<_>>();
        assert!(left.is_empty(), "{left:?}");
        Ok(())
    })
}

/// Connects to the daemon's socket as a client of which only the bytes are known.
fn raw(host: &Host, bytes: &[u8]) -> TestResult<UnixStream> {
    let mut socket = UnixStream::connect(host.socket())?;
    socket.set_read_timeout(Some(Duration::from_secs(20)))?;
    socket.set_write_timeout(Some(Duration::from_secs(20)))?;
    // A daemon that refuses early may close before all is written.
    let _ = socket.write_all(bytes);
    Ok(socket)
}

/// Sends bytes and returns the first line of the answer.
fn answer(host: &Host, bytes: &[u8]) -> TestResult<String> {
    let mut socket = raw(host, bytes)?;
    let mut answer = [0; 256];
    let count = socket.read(&mut answer)?;
    let text = String::from_utf8_lossy(&answer[..count]).into_owned();
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

#[test]
fn clients_that_hang_do_not_hinder_others() -> TestResult {
    scenario(|host| {
        let load = b"POST /images/load HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\nhalf";
        let mut hanging = Vec::new();
        // More than the daemon has threads for blocking work, were it to give each of them one.
        for _ in 0..100 {
            hanging.push(raw(host, load)?);
            hanging.push(raw(host, b"GET /_ping HTTP/1.1\r\nHost: x\r\nX-Slow: ")?);
            hanging.push(raw(host, b"")?);
        }
        host.cli(["run", "--rm", "busybox", "echo", "quick"])?.prints("quick")?;
        host.cli(["ps", "-a"])?.exits_with(0)?;
        drop(hanging);
        // Those that waited for their turn are forgotten with their connections.
        host.import_busybox()
    })
}

#[test]
fn oversized_and_broken_requests_are_refused() -> TestResult {
    scenario(|host| {
        let head =
            |header: String| format!("GET /_ping HTTP/1.1\r\nHost: x\r\n{header}\r\n").into_bytes();
        let chunked = "POST /containers/create HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\
                       Transfer-Encoding: chunked\r\n\r\n";
        let large = format!(
            "POST /containers/create HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {0}\r\n\r\n{1}",
            9 << 20,
            " ".repeat(9 << 20)
        );
        let deep = "[".repeat(100_000);
        let deep = format!(
            "POST /containers/create HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{deep}",
            deep.len()
        );
        for (what, bytes, wanted) in [
            ("a huge header", head(format!("X: {}\r\n", "y".repeat(1 << 20))), "431"),
            ("many headers", head("X: y\r\n".repeat(1000)), "431"),
            (
                "a chunk of 2^64 bytes",
                format!("{chunked}FFFFFFFFFFFFFFFFF\r\n").into_bytes(),
                "400",
            ),
            (
                "an endless chunk extension",
                format!("{chunked}1;{}", "x".repeat(1 << 20)).into_bytes(),
                "400",
            ),
            ("a document beyond its bound", large.into_bytes(), "400"),
            ("a document nested too deeply", deep.into_bytes(), "400"),
            (
                "no HTTP at all",
                b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 nonsense\r\n\r\n".to_vec(),
                "400",
            ),
        ] {
            let line = answer(host, &bytes)?;
            assert!(line.starts_with(&format!("HTTP/1.1 {wanted}")), "{what}: {line:?}");
        }
        host.cli(["version"])?.exits_with(0)?;
        Ok(())
    })
}

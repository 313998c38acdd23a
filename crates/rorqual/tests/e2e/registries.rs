//! Images from and to real registries: Debian's `docker-registry`, with TLS from a private authority, with passwords, with tokens, and in
//! place of the default registry. Scenarios that need it are skipped where it is not installed.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rorqual_testkit::{Host, HostOptions, TestResult, eventually};

use crate::{RORQUAL, inspect, scenario, scenario_with};

/// A process that ends with the scenario.
pub(crate) struct Served(pub(crate) Child);

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn is_installed() -> bool {
    Path::new("/usr/bin/docker-registry").exists()
}

pub(crate) fn reachable(host: &Host, port: u16) -> TestResult {
    eventually("the server listens", || {
        let script = format!("exec 3<>/dev/tcp/127.0.0.1/{port}");
        let mut command = host.command("bash");
        command.args(["-c", &script]).stderr(Stdio::null());
        host.run(command).ok()?.ok().ok()
    })?;
    Ok(())
}

/// Starts a registry in the host's network; `more` is further configuration.
fn registry(host: &Host, port: u16, http: &str, more: &str) -> TestResult<Served> {
    let folder = host.folder().join(format!("registry-{port}"));
    fs::create_dir(&folder)?;
    let config = format!(
        "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\n\
         http:\n  addr: 127.0.0.1:{port}\n{http}\n{more}\n",
        folder.join("data").display()
    );
    let path = folder.join("config.yml");
    fs::write(&path, config)?;
    let log = fs::File::create(folder.join("log"))?;
    let mut command = host.command("docker-registry");
    command.arg("serve").arg(&path).stdout(log.try_clone()?).stderr(log);
    let served = Served(command.spawn()?);
    reachable(host, port)?;
    Ok(served)
}

pub(crate) fn bash(folder: &Path, script: &str) -> TestResult<String> {
    let output = Command::new("bash").args(["-euc", script]).current_dir(folder).output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// Makes an authority and a certificate for 127.0.0.1.
pub(crate) const CERTIFICATES: &str = r#"
new_key="-newkey rsa:2048 -nodes"
openssl req -x509 $new_key -keyout ca-key.pem -out ca.crt -days 30 -subj /CN=authority
openssl req $new_key -keyout key.pem -out request -subj /CN=registry
printf 'subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth' > extensions
openssl x509 -req -in request -CA ca.crt -CAkey ca-key.pem -CAcreateserial -days 30 -extfile extensions -out cert.pem
"#;

/// A token server: hands out tokens signed by the authority's key to `user` with the password `secret`.
const TOKENS: &str = r#"
import base64, http.server, json, ssl, subprocess, sys, time, urllib.parse
folder, port = sys.argv[1], int(sys.argv[2])
address = (sys.argv[3:] or ["127.0.0.1"])[0]
b64 = lambda raw: base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
lines = open(folder + "/ca.crt").read().split("-----")[2].split()
class Server(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        query = urllib.parse.parse_qs(urllib.parse.urlparse(self.path).query)
        good = self.headers.get("authorization") == "Basic " + base64.b64encode(b"user:secret").decode()
        if "authorization" in self.headers and not good:
            return self.answer(401, {"details": "incorrect username or password"})
        access = []
        for scope in query.get("scope", []) if good else []:
            kind, name, actions = scope.rsplit(":", 2)[0].split(":")[0], scope.split(":")[1], scope.split(":")[-1]
            access.append({"type": kind, "name": name, "actions": actions.split(",")})
        now = int(time.time())
        head = {"typ": "JWT", "alg": "RS256", "x5c": ["".join(lines)]}
        body = {"iss": "tokens", "sub": "user", "aud": query["service"][0], "exp": now + 60, "nbf": now - 9, "iat": now, "jti": "x", "access": access}
        signed = b64(json.dumps(head).encode()) + "." + b64(json.dumps(body).encode())
        sign = ["openssl", "dgst", "-sha256", "-sign", folder + "/ca-key.pem"]
        signature = subprocess.run(sign, input=signed.encode(), stdout=subprocess.PIPE, check=True).stdout
        self.answer(200, {"token": signed + "." + b64(signature), "expires_in": 60})
    def answer(self, status, document):
        text = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)
    def log_message(self, *words): pass
server = http.server.ThreadingHTTPServer((address, port), Server)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(folder + "/cert.pem", folder + "/key.pem")
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
"#;

#[test]
fn an_image_goes_to_a_registry_and_comes_back() -> TestResult {
    if !is_installed() {
        return Ok(());
    }
    scenario(|host| {
        let _registry = registry(host, 5000, "", "")?;
        host.cli(["run", "--name", "maker", "busybox", "sh", "-c", "echo pushed > /note"])?.ok()?;
        host.cli(["commit", "maker", "127.0.0.1:5000/team/note:v1"])?.ok()?;
        host.cli(["rm", "maker"])?.ok()?;
        let pushed = host.cli(["push", "127.0.0.1:5000/team/note:v1"])?.ok()?;
        assert!(
            pushed.contains("The push refers to repository [127.0.0.1:5000/team/note]"),
            "{pushed}"
        );
        assert!(
            pushed.contains(": Pushed") && pushed.contains("\nv1: digest: sha256:"),
            "{pushed}"
        );
        let again = host.cli(["push", "127.0.0.1:5000/team/note:v1"])?.ok()?;
        assert!(!again.contains(": Pushed") && again.contains("Layer already exists"), "{again}");
        let id = inspect(host, "127.0.0.1:5000/team/note:v1", "{{.Id}}")?;
        let digest = inspect(host, "127.0.0.1:5000/team/note:v1", "{{index .RepoDigests 0}}")?;
        host.cli(["rmi", "-f", "127.0.0.1:5000/team/note:v1", "busybox"])?.ok()?;
        // What is missing is pulled to be run, with progress beside the output.
        let run = host.cli(["run", "--rm", "127.0.0.1:5000/team/note:v1", "cat", "/note"])?;
        assert!(
            run.stderr.contains("Unable to find image '127.0.0.1:5000/team/note:v1' locally"),
            "{}",
            run.stderr
        );
        assert!(
            run.stderr.contains("Pull complete") && !run.stderr.contains('\u{1b}'),
            "{}",
            run.stderr
        );
        run.prints("pushed")?;
        assert_eq!(inspect(host, "127.0.0.1:5000/team/note:v1", "{{.Id}}")?, id);
        let again = host.cli(["pull", "127.0.0.1:5000/team/note:v1"])?.ok()?;
        assert!(
            again.contains("Status: Image is up to date for 127.0.0.1:5000/team/note:v1"),
            "{again}"
        );
        host.cli(["pull", "-q", &digest])?.prints(&digest)?;
        host.cli(["run", "--rm", "--pull", "never", "127.0.0.1:5000/nope"])?.exits_with(125)?;
        host.cli(["pull", "127.0.0.1:5000/team/note:nope"])?
            .exits_with(1)?
            .complains("manifest for 127.0.0.1:5000/team/note:nope not found: manifest unknown: manifest unknown")?;
        host.cli(["push", "127.0.0.1:5000/nope"])?
            .exits_with(1)?
            .complains("An image does not exist locally with the tag: 127.0.0.1:5000/nope")?;
        // All tags, both ways.
        host.cli(["tag", &id, "127.0.0.1:5000/team/note:v2"])?.ok()?;
        host.cli(["push", "-a", "127.0.0.1:5000/team/note"])?.ok()?;
        host.cli(["rmi", "-f", &id])?.ok()?;
        host.cli(["pull", "-a", "127.0.0.1:5000/team/note"])?.ok()?;
        host.cli(["run", "--rm", "127.0.0.1:5000/team/note:v2", "cat", "/note"])?
            .prints("pushed")?;
        let events = host
            .cli([
                "events",
                "--since",
                "1",
                "--until",
                "0s",
                "--filter",
                "type=image",
                "--format",
                "{{.Action}} {{.Actor.ID}}",
            ])?
            .ok()?;
        for expected in ["push 127.0.0.1:5000/team/note:v1", "pull 127.0.0.1:5000/team/note:v2"] {
            assert!(events.contains(expected), "{events}");
        }
        lists_are_made(host)
    })
}

/// Makes a list of what was pushed.
fn lists_are_made(host: &Host) -> TestResult {
    let inspected = host.cli(["manifest", "inspect", "127.0.0.1:5000/team/note:v1"])?.ok()?;
    assert!(inspected.contains("\"schemaVersion\": 2"), "{inspected}");
    host.cli(["manifest", "create", "127.0.0.1:5000/team/list:v1", "127.0.0.1:5000/team/note:v1"])?
        .ok()?;
    host.cli([
        "manifest",
        "annotate",
        "127.0.0.1:5000/team/list:v1",
        "127.0.0.1:5000/team/note:v1",
        "--variant",
        "v9",
    ])?
    .ok()?;
    host.cli(["manifest", "push", "-p", "127.0.0.1:5000/team/list:v1"])?.ok()?;
    let list = host.cli(["manifest", "inspect", "127.0.0.1:5000/team/list:v1"])?.ok()?;
    assert!(list.contains("\"variant\": \"v9\""), "{list}");
    Ok(())
}

#[test]
fn the_docker_client_pulls_and_pushes() -> TestResult {
    if !is_installed()
        || !Path::new("/usr/local/bin/docker").exists() && !Path::new("/usr/bin/docker").exists()
    {
        return Ok(());
    }
    scenario(|host| {
        let _registry = registry(host, 5000, "", "")?;
        host.docker(["tag", "busybox", "127.0.0.1:5000/b:1"])?.ok()?;
        let pushed = host.docker(["push", "127.0.0.1:5000/b:1"])?.ok()?;
        assert!(pushed.contains("1: digest: sha256:"), "{pushed}");
        host.docker(["rmi", "127.0.0.1:5000/b:1", "busybox"])?.ok()?;
        host.docker(["run", "--rm", "127.0.0.1:5000/b:1", "echo", "fetched"])?.prints("fetched")?;
        let pulled = host.docker(["pull", "127.0.0.1:5000/b:1"])?.ok()?;
        assert!(pulled.contains("Status: Image is up to date for 127.0.0.1:5000/b:1"), "{pulled}");
        host.docker(["pull", "127.0.0.1:5000/nope"])?.exits_with(1)?.complains("not found")?;
        let inspected =
            host.docker(["manifest", "inspect", "--insecure", "127.0.0.1:5000/b:1"])?.ok()?;
        assert!(inspected.contains("schemaVersion"), "{inspected}");
        Ok(())
    })
}

#[test]
fn a_registry_with_tokens_and_a_private_authority() -> TestResult {
    if !is_installed() {
        return Ok(());
    }
    let keys = tempfile::tempdir()?;
    bash(keys.path(), CERTIFICATES)?;
    let trusted = keys.path().join("certs.d/127.0.0.1:5443");
    fs::create_dir_all(&trusted)?;
    let tokens = keys.path().join("certs.d/127.0.0.1:5444");
    fs::create_dir_all(&tokens)?;
    for folder in [&trusted, &tokens] {
        fs::copy(keys.path().join("ca.crt"), folder.join("ca.crt"))?;
    }
    let certs = keys.path().join("certs.d").display().to_string();
    let options =
        HostOptions { flags: vec!["--registry-certs".to_owned(), certs], ..HostOptions::default() };
    scenario_with(options, |host| {
        let path = |name: &str| keys.path().join(name).display().to_string();
        let http =
            format!("  tls: {{certificate: {}, key: {}}}", path("cert.pem"), path("key.pem"));
        let auth = format!(
            "auth: {{token: {{realm: 'https://127.0.0.1:5444/token', service: r, issuer: tokens, rootcertbundle: {}}}}}",
            path("ca.crt")
        );
        let _registry = registry(host, 5443, &http, &auth)?;
        let mut server = host.command("python3");
        server.args(["-c", TOKENS]).arg(keys.path()).arg("5444");
        let _server = Served(server.spawn()?);
        reachable(host, 5444)?;
        let name = "127.0.0.1:5443/team/b:1";
        host.cli(["tag", "busybox", name])?.ok()?;
        host.cli(["push", name])?.exits_with(1)?;
        host.cli_with_input(
            ["login", "-u", "user", "--password-stdin", "127.0.0.1:5443"],
            b"wrong\n",
        )?
        .exits_with(1)?
        .complains("incorrect username or password")?;
        host.cli_with_input(
            ["login", "-u", "user", "--password-stdin", "127.0.0.1:5443"],
            b"secret\n",
        )?
        .prints("Login Succeeded")?;
        // What is kept is sealed.
        let config = host.folder().join("config");
        for file in fs::read_dir(&config)? {
            let text = fs::read_to_string(file?.path())?;
            assert!(!text.contains("secret") && !text.contains("dXNlcjpzZWNyZXQ"), "{text}");
        }
        host.cli(["push", name])?.ok()?;
        host.cli(["rmi", name, "busybox"])?.ok()?;
        host.cli(["run", "--rm", name, "echo", "fetched"])?.prints("fetched")?;
        host.cli(["logout", "127.0.0.1:5443"])?
            .prints("Removing login credentials for 127.0.0.1:5443")?;
        host.cli(["rmi", name])?.ok()?;
        host.cli(["pull", name])?.exits_with(1)?;
        Ok(())
    })
}

#[test]
fn a_registry_is_the_default_one_by_name() -> TestResult {
    if !is_installed() {
        return Ok(());
    }
    let keys = tempfile::tempdir()?;
    let names = "DNS:registry-1.docker.io,DNS:auth.docker.io";
    bash(keys.path(), &CERTIFICATES.replace("IP:127.0.0.1", names))?;
    for name in ["registry-1.docker.io", "auth.docker.io"] {
        let trusted = keys.path().join("certs.d").join(name);
        fs::create_dir_all(&trusted)?;
        fs::copy(keys.path().join("ca.crt"), trusted.join("ca.crt"))?;
    }
    let hosts = "127.0.0.1 localhost registry-1.docker.io\n127.0.0.2 auth.docker.io\n";
    fs::write(keys.path().join("hosts"), hosts)?;
    let path = |name: &str| keys.path().join(name).display().to_string();
    let flags = vec!["--registry-certs".to_owned(), path("certs.d")];
    scenario_with(HostOptions { flags, ..HostOptions::default() }, |host| {
        let bound =
            host.command("mount").args(["--bind", &path("hosts"), "/etc/hosts"]).status()?;
        assert!(bound.success());
        let http =
            format!("  tls: {{certificate: {}, key: {}}}", path("cert.pem"), path("key.pem"));
        let auth = format!(
            "auth: {{token: {{realm: 'https://auth.docker.io/token', service: registry.docker.io, issuer: tokens, rootcertbundle: {}}}}}",
            path("ca.crt")
        );
        let _registry = registry(host, 443, &http, &auth)?;
        let mut server = host.command("python3");
        server.args(["-c", TOKENS]).arg(keys.path()).args(["443", "127.0.0.2"]);
        let _server = Served(server.spawn()?);
        eventually("the token server listens", || {
            let mut command = host.command("bash");
            command.args(["-c", "exec 3<>/dev/tcp/127.0.0.2/443"]).stderr(Stdio::null());
            host.run(command).ok()?.ok().ok()
        })?;
        host.cli(["tag", "busybox", "tiny:1"])?.ok()?;
        host.cli(["push", "tiny:1"])?.exits_with(1)?;
        host.cli_with_input(["login", "-u", "user", "--password-stdin"], b"secret\n")?
            .prints("Login Succeeded")?;
        let pushed = host.cli(["push", "tiny:1"])?.ok()?;
        assert!(pushed.contains("refers to repository [docker.io/library/tiny]"), "{pushed}");
        host.cli(["rmi", "-f", "tiny:1", "busybox"])?.ok()?;
        let run = host.cli(["run", "--rm", "tiny:1", "echo", "fetched"])?;
        assert!(run.stderr.contains("1: Pulling from library/tiny"), "{}", run.stderr);
        run.prints("fetched")?;
        let stored = host.folder().join("registry-443/data/docker/registry/v2/repositories");
        assert!(stored.join("library/tiny/_manifests/tags/1").exists());
        Ok(())
    })
}

#[test]
fn a_mirror_stands_in_for_the_default_registry() -> TestResult {
    if !is_installed() {
        return Ok(());
    }
    let config = r#"{"registry-mirrors": ["http://127.0.0.1:5000"], "registry-rules": {"blocked.test": {"blocked": true}}}"#;
    let options = HostOptions { config: Some(config.to_owned()), ..HostOptions::default() };
    scenario_with(options, |host| {
        let _registry = registry(host, 5000, "", "")?;
        host.cli(["tag", "busybox", "127.0.0.1:5000/library/tiny:1"])?.ok()?;
        host.cli(["push", "127.0.0.1:5000/library/tiny:1"])?.ok()?;
        host.cli(["rmi", "-f", "busybox", "127.0.0.1:5000/library/tiny:1"])?.ok()?;
        host.cli(["run", "--rm", "tiny:1", "echo", "fetched"])?.prints("fetched")?;
        host.cli(["pull", "tiny:1"])?.ok()?;
        host.cli(["pull", "blocked.test/a"])?
            .exits_with(1)?
            .complains("is blocked by this daemon's settings")?;
        Ok(())
    })
}

#[test]
fn passwords_are_kept_plain_only_by_force() -> TestResult {
    if !is_installed() {
        return Ok(());
    }
    scenario(|host| {
        let users = host.folder().join("users");
        bash(host.folder(), "htpasswd -Bbn user secret > users")?;
        let auth = format!("auth: {{htpasswd: {{realm: r, path: {}}}}}", users.display());
        let _registry = registry(host, 5000, "", &auth)?;
        let login = |more: &[&'static str]| {
            let words = ["login", "-u", "user", "--password-stdin"].iter().chain(more);
            host.cli_with_input(words.copied().chain(["127.0.0.1:5000"]), b"secret")
        };
        login(&[])?.prints("Login Succeeded")?;
        let text = fs::read_to_string(host.folder().join("config/config.json"))?;
        assert!(!text.contains("dXNlcjpzZWNyZXQ="), "{text}");
        host.cli(["tag", "busybox", "127.0.0.1:5000/b"])?.ok()?;
        host.cli(["push", "-q", "127.0.0.1:5000/b"])?.prints("127.0.0.1:5000/b:latest")?;
        host.cli(["logout", "127.0.0.1:5000"])?.ok()?;
        host.cli(["push", "127.0.0.1:5000/b"])?
            .exits_with(1)?
            .complains("no basic auth credentials")?;
        login(&["--plain"])?.complains("Your credentials are stored unencrypted")?;
        let text = fs::read_to_string(host.folder().join("config/config.json"))?;
        assert!(text.contains("dXNlcjpzZWNyZXQ="), "{text}");
        host.cli(["push", "127.0.0.1:5000/b"])?.ok()?;
        Ok(())
    })
}

#[test]
fn a_classic_build_pulls_with_the_login_of_its_client() -> TestResult {
    let clients = ["/usr/local/bin/docker", "/usr/bin/docker"];
    if !is_installed() || !clients.iter().any(|client| Path::new(client).exists()) {
        return Ok(());
    }
    scenario(|host| {
        bash(host.folder(), "htpasswd -Bbn user secret > users")?;
        let users = host.folder().join("users");
        let auth = format!("auth: {{htpasswd: {{realm: r, path: {}}}}}", users.display());
        let _registry = registry(host, 5000, "", &auth)?;
        let login = ["login", "--plain", "-u", "user", "--password-stdin", "127.0.0.1:5000"];
        host.cli_with_input(login, b"secret")?.ok()?;
        host.cli(["tag", "busybox", "127.0.0.1:5000/base"])?.ok()?;
        host.cli(["push", "-q", "127.0.0.1:5000/base"])?.ok()?;
        host.cli(["rmi", "-f", "127.0.0.1:5000/base", "busybox"])?.ok()?;
        let context = host.folder().join("context");
        fs::create_dir(&context)?;
        fs::write(
            context.join("Dockerfile"),
            "FROM 127.0.0.1:5000/base\nRUN echo built > /note\n",
        )?;
        let build = || {
            let mut command = host.command("docker");
            command.env("DOCKER_BUILDKIT", "0").args(["build", "-t", "derived"]).arg(&context);
            host.run(command)
        };
        build()?.ok()?;
        host.cli(["run", "--rm", "derived", "cat", "/note"])?.prints("built")?;
        host.cli(["rmi", "-f", "derived", "127.0.0.1:5000/base"])?.ok()?;
        host.cli(["logout", "127.0.0.1:5000"])?.ok()?;
        build()?.exits_with(1)?.complains("no basic auth credentials")?;
        Ok(())
    })
}

#[test]
fn a_daemon_killed_in_the_middle_of_a_pull_starts_clean() -> TestResult {
    if !is_installed() {
        return Ok(());
    }
    scenario(|host| {
        let _registry = registry(host, 5000, "", "")?;
        let script = "dd if=/dev/urandom of=/big bs=1M count=200 2>/dev/null";
        host.cli(["run", "--name", "maker", "busybox", "sh", "-c", script])?.ok()?;
        host.cli(["commit", "maker", "127.0.0.1:5000/big:1"])?.ok()?;
        host.cli(["rm", "maker"])?.ok()?;
        host.cli(["push", "127.0.0.1:5000/big:1"])?.ok()?;
        host.cli(["rmi", "127.0.0.1:5000/big:1"])?.ok()?;
        let mut pulling = host
            .command(RORQUAL)
            .args(["pull", "127.0.0.1:5000/big:1"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let ingest = host.folder().join("data/content/ingest");
        let unfinished = || fs::read_dir(&ingest).is_ok_and(|entries| entries.count() > 0);
        eventually("the pull is under way", || unfinished().then_some(()))?;
        host.kill_daemon()?;
        pulling.wait()?;
        host.start_daemon()?;
        assert!(!unfinished(), "unfinished blobs stay");
        let layers = fs::read_dir(host.folder().join("data/layers"))?;
        for layer in layers {
            let name = layer?.file_name().into_string().map_err(|_| "a name")?;
            assert!(!name.starts_with(".ingest"), "{name}");
        }
        assert!(
            !host
                .cli(["images", "-q", "127.0.0.1:5000/big"])?
                .ok()?
                .contains(char::is_alphanumeric)
        );
        host.cli(["pull", "-q", "127.0.0.1:5000/big:1"])?.ok()?;
        host.cli(["run", "--rm", "127.0.0.1:5000/big:1", "sh", "-c", "wc -c < /big"])?
            .prints("209715200")?;
        Ok(())
    })
}

#[test]
fn a_full_disk_ends_a_pull_and_nothing_else() -> TestResult {
    if !is_installed() {
        return Ok(());
    }
    scenario(|host| {
        let _registry = registry(host, 5000, "", "")?;
        let script = "dd if=/dev/urandom of=/big bs=1M count=40 2>/dev/null";
        host.cli(["run", "--name", "maker", "busybox", "sh", "-c", script])?.ok()?;
        host.cli(["commit", "maker", "127.0.0.1:5000/big:1"])?.ok()?;
        host.cli(["push", "127.0.0.1:5000/big:1"])?.ok()?;
        host.cli(["rm", "maker"])?.ok()?;
        crate::faults::small_data_root(host)?;
        let refused = host.cli(["pull", "127.0.0.1:5000/big:1"])?;
        let text = format!("{}{}", refused.stdout, refused.stderr);
        let told = text.contains("o space left") || text.contains("all the space that is free");
        assert!(refused.code != 0 && told, "{text}");
        let ingest = host.command("ls").arg(host.folder().join("data/content/ingest")).output()?;
        assert!(ingest.stdout.is_empty(), "{ingest:?}");
        host.cli(["run", "--rm", "busybox", "echo", "alive"])?.prints("alive")?;
        Ok(())
    })
}

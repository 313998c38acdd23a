//! Images to and from our own registry, by the binary alone: the same file is registry, daemon and client.

use std::fs;
use std::process::{Child, Stdio};

use rorqual_testkit::{Host, HostOptions, TestResult, eventually};

use crate::registries::{CERTIFICATES, Served, bash, reachable};
use crate::{RORQUAL, inspect, scenario, scenario_with};

/// Makes a certificate for a client of the registry.
const CLIENT: &str = r"
openssl req -newkey rsa:2048 -nodes -keyout client.key -out request -subj /CN=client
printf 'extendedKeyUsage=clientAuth' > extensions
openssl x509 -req -in request -CA ca.crt -CAkey ca-key.pem -CAcreateserial -days 30 -extfile extensions -out client.cert
";

/// Starts our registry in the host's network. Its storage is `registry` in the host's folder.
pub(crate) fn registry(host: &Host, port: u16, more: &[&str]) -> TestResult<Served> {
    let log =
        fs::File::options().create(true).append(true).open(host.folder().join("registry.log"))?;
    let mut command = host.command(RORQUAL);
    command.args(["registry", "--listen", &format!("127.0.0.1:{port}"), "--storage"]);
    command.arg(host.folder().join("registry")).args(more);
    let served = Served(command.stdout(log.try_clone()?).stderr(log).spawn()?);
    reachable(host, port)?;
    Ok(served)
}

/// Makes an image with a file of `mib` MiB that nobody can pack.
fn large_image(host: &Host, name: &str, mib: u32) -> TestResult {
    let script = format!("dd if=/dev/urandom of=/big bs=1M count={mib} 2>/dev/null");
    host.cli(["run", "--name", "maker", "busybox", "sh", "-c", &script])?.ok()?;
    host.cli(["commit", "maker", name])?.ok()?;
    host.cli(["rm", "maker"])?.ok()?;
    Ok(())
}

/// Begins a push and waits until the registry has some of it.
fn begun_push(host: &Host, name: &str) -> TestResult<Child> {
    let pushing = host
        .command(RORQUAL)
        .args(["push", name])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let storage = host.folder().join("registry");
    eventually("the registry has some MiB", || {
        let size = bash(&storage, "du -sm . | cut -f1").ok()?;
        (size.trim().parse::<u32>().ok()? > 4).then_some(())
    })?;
    Ok(pushing)
}

#[test]
fn an_image_goes_to_our_registry_and_comes_back() -> TestResult {
    scenario(|host| {
        let _registry = registry(host, 5100, &[])?;
        let name = "127.0.0.1:5100/team/note:v1";
        host.cli(["run", "--name", "maker", "busybox", "sh", "-c", "echo pushed > /note"])?.ok()?;
        host.cli(["commit", "maker", name])?.ok()?;
        host.cli(["rm", "maker"])?.ok()?;
        let pushed = host.cli(["push", name])?.ok()?;
        assert!(pushed.contains(": Pushed") && pushed.contains("v1: digest: sha256:"), "{pushed}");
        let again = host.cli(["push", name])?.ok()?;
        assert!(!again.contains(": Pushed") && again.contains("Layer already exists"), "{again}");
        let id = inspect(host, name, "{{.Id}}")?;
        host.cli(["rmi", "-f", name, "busybox"])?.ok()?;
        let run = host.cli(["run", "--rm", name, "cat", "/note"])?;
        assert!(
            run.stderr.contains("Unable to find image") && run.stderr.contains("Pull complete")
        );
        run.prints("pushed")?;
        assert_eq!(inspect(host, name, "{{.Id}}")?, id);
        host.cli(["rmi", "-f", name])?.ok()?;
        host.cli(["pull", name])?.ok()?;
        assert_eq!(inspect(host, name, "{{.Id}}")?, id);
        host.cli(["pull", "127.0.0.1:5100/team/note:nope"])?
            .exits_with(1)?
            .complains("not found")?;
        Ok(())
    })
}

#[test]
fn what_is_at_our_registry_is_found_and_listed() -> TestResult {
    scenario(|host| {
        let _registry = registry(host, 5100, &[])?;
        for name in ["team/web", "team/webserver", "other/db"] {
            let name = format!("127.0.0.1:5100/{name}:1");
            host.cli(["tag", "busybox", &name])?.ok()?;
            host.cli(["push", "-q", &name])?.ok()?;
        }
        let found = |words: &str| {
            let term = format!("127.0.0.1:5100/{words}");
            host.cli(["search", "--format", "{{.Name}}", &term])?.ok()
        };
        assert_eq!(found("web")?, "127.0.0.1:5100/team/web\n127.0.0.1:5100/team/webserver");
        assert_eq!(found("server")?, "127.0.0.1:5100/team/webserver");
        assert_eq!(found("nothing")?, "");
        let list = "127.0.0.1:5100/team/list:1";
        host.cli(["manifest", "create", list, "127.0.0.1:5100/team/web:1"])?.ok()?;
        let kept = host.cli(["manifest", "inspect", "-v", list])?.ok()?;
        assert!(kept.contains("\"Descriptor\"") && kept.contains("team/web"), "{kept}");
        host.cli(["manifest", "rm", list])?.ok()?;
        host.cli(["manifest", "push", list])?.exits_with(1)?;
        host.cli(["manifest", "inspect", list])?
            .exits_with(1)?
            .complains("no such manifest: 127.0.0.1:5100/team/list:1")?;
        Ok(())
    })
}

#[test]
fn what_is_missing_is_pulled_with_bars_on_a_terminal_and_lines_in_a_pipe() -> TestResult {
    scenario(|host| {
        let _registry = registry(host, 5100, &[])?;
        let name = "127.0.0.1:5100/large:1";
        large_image(host, name, 64)?;
        host.cli(["push", "-q", name])?.ok()?;
        let run = |script: &str| {
            host.cli(["rmi", "-f", name])?.ok()?;
            let mut command = host.command("sh");
            command.args(["-c", script, RORQUAL, name]);
            host.run(command)
        };
        let piped = run("\"$0\" run --rm \"$1\" echo ran")?;
        let lines: Vec<_> = piped.stderr.lines().collect();
        assert_eq!(
            lines[..2],
            ["Unable to find image '127.0.0.1:5100/large:1' locally", "1: Pulling from large"]
        );
        let all = piped.stderr.as_str();
        assert!(!all.contains(['\u{1b}', '\r']) && !all.contains("Downloading"), "{all}");
        assert!(all.contains(": Pull complete\nDigest: sha256:"), "{all}");
        piped.prints("ran")?;
        for (columns, bars) in [(150, true), (80, false)] {
            let command = format!("stty cols {columns} && {RORQUAL} run --rm {name} echo ran");
            let typed = run(&format!("script -qec '{command}' /dev/null"))?.ok()?;
            let moving = "\u{1b}[2K\r";
            assert!(typed.contains(moving) && typed.contains(": Downloading "), "{typed}");
            assert_eq!(typed.contains("==>"), bars, "{typed}");
            assert!(typed.contains("MB/67.1") && typed.trim_end().ends_with("ran"), "{typed}");
        }
        Ok(())
    })
}

#[test]
fn a_registry_killed_in_the_middle_of_a_push_takes_the_next_one() -> TestResult {
    scenario(|host| {
        let name = "127.0.0.1:5100/big:1";
        large_image(host, name, 96)?;
        let first = registry(host, 5100, &[])?;
        let mut pushing = begun_push(host, name)?;
        drop(first);
        // Nobody is there to go on with: the push says so.
        assert!(!pushing.wait()?.success());
        let _second = registry(host, 5100, &[])?;
        host.cli(["pull", name])?.exits_with(1)?.complains("not found")?;
        host.cli(["push", name])?.ok()?;
        host.cli(["rmi", "-f", name])?.ok()?;
        host.cli(["run", "--rm", name, "sh", "-c", "wc -c < /big"])?.prints("100663296")?;
        Ok(())
    })
}

#[test]
fn a_push_goes_on_where_a_restarted_registry_is() -> TestResult {
    scenario(|host| {
        let name = "127.0.0.1:5100/big:1";
        large_image(host, name, 96)?;
        let first = registry(host, 5100, &[])?;
        let mut pushing = begun_push(host, name)?;
        drop(first);
        let _second = registry(host, 5100, &[])?;
        let pushed = pushing.wait()?.success();
        if !pushed {
            // It may have given up before the registry was back.
            host.cli(["push", name])?.ok()?;
        }
        host.cli(["rmi", "-f", name])?.ok()?;
        host.cli(["run", "--rm", name, "sh", "-c", "wc -c < /big"])?.prints("100663296")?;
        Ok(())
    })
}

#[test]
fn a_registry_without_space_says_so_and_serves_on() -> TestResult {
    scenario(|host| {
        let storage = host.folder().join("registry");
        fs::create_dir(&storage)?;
        let mut mount = host.command("mount");
        mount.args(["-t", "tmpfs", "-o", "size=16m", "tmpfs"]).arg(&storage);
        host.run(mount)?.ok()?;
        let served = registry(host, 5100, &[])?;
        host.cli(["tag", "busybox", "127.0.0.1:5100/small:1"])?.ok()?;
        host.cli(["push", "127.0.0.1:5100/small:1"])?.ok()?;
        large_image(host, "127.0.0.1:5100/big:1", 40)?;
        let refused = host.cli(["push", "127.0.0.1:5100/big:1"])?;
        let text = format!("{}{}", refused.stdout, refused.stderr);
        assert!(refused.code == 1 && text.contains("the storage is full"), "{text}");
        host.cli(["rmi", "-f", "127.0.0.1:5100/small:1"])?.ok()?;
        host.cli(["run", "--rm", "127.0.0.1:5100/small:1", "echo", "served"])?.prints("served")?;
        drop(served);
        let mut unmount = host.command("umount");
        unmount.arg(&storage);
        host.run(unmount)?.ok()?;
        Ok(())
    })
}

#[test]
fn our_registry_with_a_private_authority_and_passwords() -> TestResult {
    let keys = tempfile::tempdir()?;
    bash(keys.path(), CERTIFICATES)?;
    let trusted = keys.path().join("certs.d/127.0.0.1:5143");
    fs::create_dir_all(&trusted)?;
    fs::copy(keys.path().join("ca.crt"), trusted.join("ca.crt"))?;
    let certs = keys.path().join("certs.d").display().to_string();
    let options =
        HostOptions { flags: vec!["--registry-certs".to_owned(), certs], ..HostOptions::default() };
    scenario_with(options, |host| {
        let path = |name: &str| keys.path().join(name).display().to_string();
        let mut hash = host.command("sh");
        let script = "printf secret | \"$0\" registry hash-password user > \"$1\"";
        hash.args(["-c", script, RORQUAL, &path("users")]);
        host.run(hash)?.ok()?;
        let (cert, key, users) = (path("cert.pem"), path("key.pem"), path("users"));
        let flags = ["--tls-cert", &cert, "--tls-key", &key, "--htpasswd", &users];
        let _registry = registry(host, 5143, &flags)?;
        let name = "127.0.0.1:5143/team/b:1";
        host.cli(["tag", "busybox", name])?.ok()?;
        host.cli(["push", name])?.exits_with(1)?.complains("no basic auth credentials")?;
        let login = |password: &[u8]| {
            let words = ["login", "-u", "user", "--password-stdin", "127.0.0.1:5143"];
            host.cli_with_input(words, password)
        };
        login(b"wrong")?.exits_with(1)?;
        login(b"secret")?.prints("Login Succeeded")?;
        host.cli(["push", name])?.ok()?;
        host.cli(["rmi", name, "busybox"])?.ok()?;
        host.cli(["run", "--rm", name, "echo", "fetched"])?.prints("fetched")?;
        host.cli(["logout", "127.0.0.1:5143"])?.ok()?;
        host.cli(["rmi", name])?.ok()?;
        host.cli(["pull", name])?.exits_with(1)?;
        Ok(())
    })
}

#[test]
fn a_registry_that_wants_clients_certificates() -> TestResult {
    let keys = tempfile::tempdir()?;
    bash(keys.path(), CERTIFICATES)?;
    bash(keys.path(), CLIENT)?;
    let trusted = keys.path().join("certs.d/127.0.0.1:5143");
    fs::create_dir_all(&trusted)?;
    fs::copy(keys.path().join("ca.crt"), trusted.join("ca.crt"))?;
    let certs = keys.path().join("certs.d").display().to_string();
    let options =
        HostOptions { flags: vec!["--registry-certs".to_owned(), certs], ..HostOptions::default() };
    scenario_with(options, |host| {
        let path = |name: &str| keys.path().join(name).display().to_string();
        let (cert, key, ca) = (path("cert.pem"), path("key.pem"), path("ca.crt"));
        let flags = ["--tls-cert", &cert, "--tls-key", &key, "--tls-client-ca", &ca];
        let _registry = registry(host, 5143, &flags)?;
        let name = "127.0.0.1:5143/team/b:1";
        host.cli(["tag", "busybox", name])?.ok()?;
        host.cli(["push", name])?.exits_with(1)?;
        fs::copy(keys.path().join("client.cert"), trusted.join("client.cert"))?;
        host.signal_daemon("HUP")?;
        eventually("a certificate without its key is told", || {
            let refused = host.cli(["push", name]).ok()?;
            refused.complains("missing key").ok()
        })?;
        fs::copy(keys.path().join("client.key"), trusted.join("client.key"))?;
        host.signal_daemon("HUP")?;
        eventually("the registry lets us in", || host.cli(["push", name]).ok()?.ok().ok())?;
        host.cli(["rmi", name, "busybox"])?.ok()?;
        host.cli(["run", "--rm", name, "echo", "fetched"])?.prints("fetched")?;
        Ok(())
    })
}

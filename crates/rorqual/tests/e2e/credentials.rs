//! Where passwords of registries are kept: by helpers of others, and by the helper that the binary itself is.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Command;

use rorqual_testkit::{Finished, Host, TestResult};

use crate::registries::Served;
use crate::registry_own::registry;
use crate::{RORQUAL, scenario};

/// A helper as somebody else writes one: one file per server, and a note of each call.
const HELPER: &str = r#"#!/bin/sh
folder=$(dirname "$0")
echo "$1" >> "$folder/calls"
case $1 in
    store)
        words=$(cat)
        server=$(echo "$words" | sed 's/.*"ServerURL":"\([^"]*\)".*/\1/; s,[/:],_,g')
        echo "$words" > "$folder/kept-$server" ;;
    get)
        file=$folder/kept-$(tr -d '\n' | sed 's,[/:],_,g')
        [ -e "$file" ] || { echo 'credentials not found in native keychain'; exit 1; }
        cat "$file" ;;
    erase) rm -f "$folder/kept-$(tr -d '\n' | sed 's,[/:],_,g')" ;;
    list) echo '{}' ;;
esac
"#;

const SERVER: &str = "127.0.0.1:5100";

/// Starts a registry that knows `user` with the password `secret`, and makes a folder for helpers.
fn begin(host: &Host) -> TestResult<Served> {
    let users = host.folder().join("users");
    let mut hash = host.command("sh");
    let script = "printf secret | \"$0\" registry hash-password user > \"$1\"";
    hash.args(["-c", script, RORQUAL]).arg(&users);
    host.run(hash)?.ok()?;
    fs::create_dir(host.folder().join("helpers"))?;
    fs::create_dir_all(host.folder().join("config"))?;
    registry(host, 5100, &["--htpasswd", &users.display().to_string()])
}

fn settings(host: &Host, text: &str) -> TestResult {
    Ok(fs::write(host.folder().join("config/config.json"), text)?)
}

/// A command that finds the helpers.
fn with_helpers(host: &Host, program: &str, args: &[&str]) -> Command {
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = host.command(program);
    command.env("PATH", format!("{}:{path}", host.folder().join("helpers").display()));
    command.env("HOME", host.folder().join("home")).args(args);
    command
}

fn login(host: &Host, program: &str, password: &str) -> TestResult<Finished> {
    let words = ["login", "-u", "user", "--password-stdin", SERVER];
    let mut command = with_helpers(host, "sh", &["-c", "printf %s \"$0\" | \"$@\"", password]);
    command.arg(program).args(words);
    host.run(command)
}

fn kept_nowhere_readable(folder: &Path) -> TestResult {
    for file in fs::read_dir(folder)? {
        let text = String::from_utf8_lossy(&fs::read(file?.path())?).into_owned();
        assert!(!text.contains("secret") && !text.contains("dXNlcjpzZWNyZXQ"), "{text}");
    }
    Ok(())
}

#[test]
fn helpers_of_others_keep_passwords() -> TestResult {
    scenario(|host| {
        let _registry = begin(host)?;
        let helpers = host.folder().join("helpers");
        let program = helpers.join("docker-credential-notes");
        fs::write(&program, HELPER)?;
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
        let calls = || fs::read_to_string(helpers.join("calls")).unwrap_or_default();
        for text in [
            format!(r#"{{"credHelpers": {{"{SERVER}": "notes"}}}}"#),
            r#"{"credsStore": "notes"}"#.to_owned(),
        ] {
            settings(host, &text)?;
            let kept = helpers.join("kept-127.0.0.1_5100");
            login(host, RORQUAL, "wrong")?.exits_with(1)?;
            assert!(!kept.exists(), "a password that is wrong is not kept");
            login(host, RORQUAL, "secret")?.prints("Login Succeeded")?;
            assert!(fs::read_to_string(&kept)?.contains("\"Secret\":\"secret\""));
            kept_nowhere_readable(&host.folder().join("config"))?;
            host.cli(["tag", "busybox", "127.0.0.1:5100/b"])?.ok()?;
            host.run(with_helpers(host, RORQUAL, &["push", "127.0.0.1:5100/b"]))?.ok()?;
            host.run(with_helpers(host, RORQUAL, &["logout", SERVER]))?.ok()?;
            assert!(!kept.exists() && calls().contains("get\n") && calls().contains("erase\n"));
            host.run(with_helpers(host, RORQUAL, &["pull", "127.0.0.1:5100/b"]))?
                .exits_with(1)?
                .complains("no basic auth credentials")?;
            fs::remove_file(helpers.join("calls"))?;
        }
        // One that is not there is named.
        settings(host, r#"{"credsStore": "nowhere"}"#)?;
        login(host, RORQUAL, "secret")?.exits_with(1)?.complains("docker-credential-nowhere")?;
        Ok(())
    })
}

#[test]
fn the_binary_is_a_helper_for_other_clients() -> TestResult {
    if !["/usr/local/bin/docker", "/usr/bin/docker"].iter().any(|path| Path::new(path).exists()) {
        return Ok(());
    }
    scenario(|host| {
        let _registry = begin(host)?;
        symlink(RORQUAL, host.folder().join("helpers/docker-credential-rorqual"))?;
        settings(host, r#"{"credsStore": "rorqual"}"#)?;
        login(host, "docker", "secret")?.prints("Login Succeeded")?;
        kept_nowhere_readable(&host.folder().join("config"))?;
        let helper = |action: &str, input: &str| {
            let mut command = with_helpers(host, "sh", &["-c", "printf %s \"$0\" | \"$@\"", input]);
            command.args(["docker-credential-rorqual", action]);
            host.run(command)
        };
        let got = helper("get", SERVER)?.ok()?;
        assert!(got.contains("\"Secret\":\"secret\"") && got.contains("\"Username\":\"user\""));
        helper("list", "")?.prints(&format!("{{\"{SERVER}\":\"user\"}}"))?;
        // Each client uses what the other kept.
        host.cli(["tag", "busybox", "127.0.0.1:5100/b"])?.ok()?;
        host.run(with_helpers(host, RORQUAL, &["push", "127.0.0.1:5100/b"]))?.ok()?;
        host.run(with_helpers(host, "docker", &["pull", "127.0.0.1:5100/b"]))?.ok()?;
        host.run(with_helpers(host, "docker", &["logout", SERVER]))?.ok()?;
        let nothing = helper("get", SERVER)?.exits_with(1)?;
        assert!(nothing.stdout.contains("credentials not found in native keychain"), "{nothing:?}");
        Ok(())
    })
}

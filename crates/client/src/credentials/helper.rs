//! Credential helpers as a caller: `docker-credential-NAME ACTION`, input on standard input, the answer on standard output.

use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::json;

use super::{Credential, CredentialsError};

// LIMIT: a helper's answer; secrets are some KiB.
const MAX_OUTPUT: u64 = 1 << 20;
// LIMIT: a helper may ask its user, but not for ever.
const PATIENCE: Duration = Duration::from_secs(120);
/// COMPAT: how helpers say that they have nothing.
const NOT_FOUND: &str = "credentials not found in native keychain";

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    #[serde(default)]
    username: String,
    #[serde(default)]
    secret: String,
}

fn program(name: &str) -> String {
    format!("docker-credential-{name}")
}

/// Tells whether a helper can be called.
pub(super) fn exists(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(program(name)).is_file())
}

fn call(
    name: &str,
    action: &'static str,
    gerund: &'static str,
    input: &str,
) -> Result<Result<String, String>, CredentialsError> {
    let failed = |reason: String, output: String| CredentialsError::Helper {
        action: gerund,
        reason,
        output,
    };
    // A name is one word, not a path to elsewhere.
    if name.contains('/') || name.contains('\0') {
        return Err(failed(format!("{name:?} is not the name of a helper"), String::new()));
    }
    let child = Command::new(program(name))
        .arg(action)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn();
    let missing = |error: std::io::Error| {
        let reason = match error.kind() {
            std::io::ErrorKind::NotFound => {
                format!("exec: \"{}\": executable file not found in $PATH", program(name))
            }
            _ => error.to_string(),
        };
        failed(reason, String::new())
    };
    let mut child = child.map_err(missing)?;
    if let Some(mut stdin) = child.stdin.take() {
        // A helper that does not read its input says itself why.
        stdin.write_all(input.as_bytes()).ok();
    }
    let stdout = child.stdout.take();
    let reading = thread::spawn(move || {
        let mut output = String::new();
        if let Some(stdout) = stdout {
            stdout.take(MAX_OUTPUT).read_to_string(&mut output).ok();
        }
        output
    });
    let begun = Instant::now();
    let status = loop {
        match child.try_wait().map_err(|error| failed(error.to_string(), String::new()))? {
            Some(status) => break status,
            None if begun.elapsed() > PATIENCE => {
                child.kill().ok();
                child.wait().ok();
                return Err(failed("it does not answer".to_owned(), String::new()));
            }
            None => thread::sleep(Duration::from_millis(5)),
        }
    };
    let output = reading.join().unwrap_or_default().trim().to_owned();
    if status.success() {
        return Ok(Ok(output));
    }
    let code = status.code().map_or_else(|| "signal".to_owned(), |code| code.to_string());
    if output.contains(NOT_FOUND) {
        return Ok(Err(output));
    }
    Err(failed(format!("exit status {code}"), output))
}

/// Asks for a credential.
pub(super) fn get(name: &str, key: &str) -> Result<Option<Credential>, CredentialsError> {
    let Ok(output) = call(name, "get", "getting", key)? else { return Ok(None) };
    let answer =
        serde_json::from_str::<Answer>(&output).map_err(|error| CredentialsError::Helper {
            action: "getting",
            reason: error.to_string(),
            // What it printed may hold the secret.
            output: String::new(),
        })?;
    let Answer { username, secret } = answer;
    Ok((!secret.is_empty() || !username.is_empty())
        .then(|| Credential::from_helper(username, secret)))
}

/// Hands a credential over.
pub(super) fn store(
    name: &str,
    key: &str,
    credential: &Credential,
) -> Result<(), CredentialsError> {
    let document = json!({
        "ServerURL": key, "Username": credential.helper_name(), "Secret": credential.secret,
    });
    call(name, "store", "saving", &document.to_string()).map(drop)
}

/// Has a credential forgotten; one that is not there is fine.
pub(super) fn erase(name: &str, key: &str) -> Result<(), CredentialsError> {
    call(name, "erase", "erasing", key).map(drop)
}

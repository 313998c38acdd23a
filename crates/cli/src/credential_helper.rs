//! Our store of credentials for other programs: the protocol of credential helpers.
//!
//! `docker-credential-rorqual ACTION`, or `rorqual credential-helper ACTION`: input on standard input, the answer on standard output.

use std::io::{Read, Write};
use std::path::PathBuf;

use rorqual_client::credentials::Credential;
use rorqual_client::credentials::vault::Vault;
use serde_json::{Map, Value, json};

// LIMIT: what is stored at once; secrets are some KiB.
const MAX_INPUT: u64 = 1 << 20;

fn directory() -> PathBuf {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    match variable("DOCKER_CONFIG") {
        Some(directory) => directory.into(),
        None => PathBuf::from(variable("HOME").unwrap_or_else(|| "/".into())).join(".docker"),
    }
}

/// Carries out one action; returns the exit code.
pub(crate) fn run(words: &[String]) -> u8 {
    let outcome = act(words.first().map_or("", String::as_str), &Vault::of(&directory()));
    let (code, text) = match outcome {
        Ok(text) => (0, text),
        // COMPAT: callers read what is wrong from standard output.
        Err(text) => (1, text),
    };
    if text.is_empty() {
        return code;
    }
    match writeln!(std::io::stdout().lock(), "{text}") {
        Ok(()) => code,
        Err(_) => 1,
    }
}

fn act(action: &str, vault: &Vault) -> Result<String, String> {
    match action {
        "get" => get(vault),
        "store" => store(vault),
        "erase" => erase(vault),
        "list" => list(vault),
        "version" | "--version" => {
            Ok(format!("docker-credential-rorqual (rorqual) v{}", env!("CARGO_PKG_VERSION")))
        }
        _ => Err("Usage: docker-credential-rorqual <store|get|erase|list|version>".to_owned()),
    }
}

fn input() -> Result<String, String> {
    let mut text = String::new();
    let read = std::io::stdin().lock().take(MAX_INPUT).read_to_string(&mut text);
    read.map_err(|error| error.to_string())?;
    Ok(text.trim().to_owned())
}

fn server() -> Result<String, String> {
    let server = input()?;
    // COMPAT: these texts are part of the protocol.
    if server.is_empty() { Err("no credentials server URL".to_owned()) } else { Ok(server) }
}

fn said<T>(result: Result<T, rorqual_client::credentials::CredentialsError>) -> Result<T, String> {
    result.map_err(|error| error.to_string())
}

fn get(vault: &Vault) -> Result<String, String> {
    let server = server()?;
    match said(vault.get(&server))? {
        Some(found) => {
            let username = if found.is_token { "<token>" } else { &found.username };
            Ok(json!({"ServerURL": server, "Username": username, "Secret": found.secret})
                .to_string())
        }
        None => Err("credentials not found in native keychain".to_owned()),
    }
}

fn store(vault: &Vault) -> Result<String, String> {
    let document: Value =
        serde_json::from_str(&input()?).map_err(|error| format!("invalid input: {error}"))?;
    let text = |key: &str| document[key].as_str().unwrap_or_default().to_owned();
    let (server, username, secret) = (text("ServerURL"), text("Username"), text("Secret"));
    if server.is_empty() {
        return Err("no credentials server URL".to_owned());
    }
    if username.is_empty() {
        return Err("no credentials username".to_owned());
    }
    let is_token = username == "<token>";
    let username = if is_token { String::new() } else { username };
    said(vault.store(&server, &Credential { username, secret, is_token })).map(|()| String::new())
}

fn erase(vault: &Vault) -> Result<String, String> {
    let server = server()?;
    said(vault.erase(&server)).map(|_| String::new())
}

fn list(vault: &Vault) -> Result<String, String> {
    let entries = said(vault.list())?;
    let map: Map<String, Value> =
        entries.into_iter().map(|(server, name)| (server, name.into())).collect();
    Ok(Value::Object(map).to_string())
}

//! Which daemon a call speaks to: flags, variables, contexts and defaults, in Docker's order.

use std::env;
use std::path::{Path, PathBuf};

use rorqual_client::config::Config;
use rorqual_client::context::ContextStore;
use rorqual_client::{Client, Host, Options, TlsFiles};

use super::{COMPATIBLE, Cli, complain};
use crate::failure::Failure;
use crate::flag::Matches;

const DOCKER_SOCKET: &str = "unix:///var/run/docker.sock";
const OWN_SOCKET: &str = "/run/rorqual/rorqual.sock";

/// Returns where settings and contexts live.
pub(crate) fn config_directory(root: &Matches) -> PathBuf {
    if root.given("config") {
        return PathBuf::from(root.text("config"));
    }
    match variable("DOCKER_CONFIG") {
        Some(directory) => PathBuf::from(directory),
        None => PathBuf::from(variable("HOME").unwrap_or_else(|| "/".to_owned())).join(".docker"),
    }
}

fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

/// Returns the name of the context in force.
pub(crate) fn current_context(root: &Matches, config: &Config) -> String {
    let chosen = |name: &str| if name.is_empty() { "default".to_owned() } else { name.to_owned() };
    if root.given("context") {
        return chosen(root.text("context"));
    }
    if root.given("host") || variable("DOCKER_HOST").is_some() {
        return "default".to_owned();
    }
    match variable("DOCKER_CONTEXT") {
        Some(name) => name,
        None => chosen(config.text("currentContext").unwrap_or_default()),
    }
}

/// Returns the address of the daemon of the built-in context.
pub(crate) fn default_host(root: &Matches, program: &str) -> String {
    let given = root.list("host").last().cloned().or_else(|| variable("DOCKER_HOST"));
    match given {
        Some(text) => normal_host(&text),
        None if program != "docker" && Path::new(OWN_SOCKET).exists() => {
            format!("unix://{OWN_SOCKET}")
        }
        None => DOCKER_SOCKET.to_owned(),
    }
}

/// Returns the daemon that plugins would not find by themselves: our own socket, where nothing else was chosen.
pub(super) fn host_for_plugins(root: &Matches, program: &str) -> Option<String> {
    let chosen = root.given("host") || root.given("context");
    if chosen || variable("DOCKER_HOST").is_some() || variable("DOCKER_CONTEXT").is_some() {
        return None;
    }
    Some(default_host(root, program)).filter(|host| host != DOCKER_SOCKET)
}

/// Completes what users shorten: `host`, `host:port`, `unix://`, `tcp://`.
fn normal_host(text: &str) -> String {
    match text.trim() {
        "" | "unix://" => DOCKER_SOCKET.to_owned(),
        "tcp://" => "tcp://localhost:2375".to_owned(),
        text if text.contains("://") => text.to_owned(),
        text => format!("tcp://{text}"),
    }
}

/// Makes the client of the daemon in force.
pub(super) fn client(cli: &Cli) -> Result<Client, Failure> {
    let root = &cli.root;
    if root.given("context") && root.given("host") {
        return Err(Failure::new("conflicting options: cannot specify both --host and --context"));
    }
    let name = current_context(root, &cli.config);
    let (address, tls) = if name == "default" {
        warn_of_ignored_context(cli);
        (default_host(root, &cli.program), flag_tls(cli))
    } else {
        ContextStore::new(cli.config.directory()).endpoint(&name).map_err(|error| {
            Failure::new(format!(
                "Failed to initialize: unable to resolve docker endpoint: {error}"
            ))
        })?
    };
    let host: Host = if address.is_empty() { DOCKER_SOCKET } else { address.as_str() }
        .parse()
        .map_err(|error: rorqual_client::InvalidHost| {
            Failure::new(format!(
                "Failed to initialize: unable to resolve docker endpoint: {error}"
            ))
        })?;
    let mut headers = cli.config.headers();
    headers.extend(custom_headers()?);
    let options = Options {
        tls,
        api_version: variable("DOCKER_API_VERSION"),
        headers,
        // COMPAT: daemons and proxies tell clients apart by this.
        user_agent: format!("Docker-Client/{COMPATIBLE} (linux)"),
    };
    Ok(Client::new(host, options))
}

fn warn_of_ignored_context(cli: &Cli) {
    let stored = cli.config.text("currentContext").filter(|name| *name != "default");
    if let (Some(stored), Some(_)) = (stored, variable("DOCKER_HOST"))
        && cli.root.command.name == "context"
    {
        complain(&format!(
            "Warning: DOCKER_HOST environment variable overrides the active context. To use {stored:?}, either set the global --context flag, or unset DOCKER_HOST environment variable."
        ));
    }
}

/// `DOCKER_CUSTOM_HEADERS`: `name=value` pairs, separated by commas.
fn custom_headers() -> Result<Vec<(String, String)>, Failure> {
    let Some(text) = variable("DOCKER_CUSTOM_HEADERS") else { return Ok(Vec::new()) };
    let pair = |pair: &str| match pair.split_once('=') {
        Some((name, value)) if !name.trim().is_empty() => {
            Ok((name.trim().to_owned(), value.to_owned()))
        }
        _ => Err(Failure::new(format!(
            "failed to parse custom headers from DOCKER_CUSTOM_HEADERS environment variable: invalid custom header {pair:?}"
        ))),
    };
    text.split(',').map(pair).collect()
}

/// Returns the TLS rules of flags and variables.
pub(crate) fn flag_tls(cli: &Cli) -> Option<TlsFiles> {
    let root = &cli.root;
    let verify = match root.given("tlsverify") {
        true => root.on("tlsverify"),
        false => variable("DOCKER_TLS_VERIFY").is_some(),
    };
    let on = verify || root.on("tls") || variable("DOCKER_TLS").is_some();
    let directory = variable("DOCKER_CERT_PATH")
        .map_or_else(|| cli.config.directory().to_path_buf(), PathBuf::from);
    // A file that was named must be there; one of the default names may be missing.
    let file = |flag: &str, name: &str| {
        let path = match root.given(flag) {
            true => PathBuf::from(root.text(flag)),
            false => directory.join(name),
        };
        (root.given(flag) || path.is_file()).then_some(path)
    };
    on.then(|| TlsFiles {
        ca: file("tlscacert", "ca.pem"),
        cert: file("tlscert", "cert.pem"),
        key: file("tlskey", "key.pem"),
        skip_verify: !verify,
    })
}

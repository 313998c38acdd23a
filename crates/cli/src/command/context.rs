//! Contexts: named daemons.

use std::io::{Read as _, Write as _};

use rorqual_client::context::{ContextError, ContextStore, TLS_NAMES, is_valid_name, new_meta};
use serde_json::{Value as Json, json};

use super::{facts, inspect, task};
use crate::cli::{Cli, current_context, default_host, flag_tls};
use crate::failure::{Failure, Outcome, joined, open_failure};
use crate::flag::{Args, Command, Completes, Flag, Kind, Matches};
use crate::output::Listing;
use crate::template::{Record, Value};

const NAMED: Command = Command { completes: Completes::Contexts, ..Command::EMPTY };

/// `context`
pub(super) static GROUP: Command = Command {
    name: "context",
    usage: "COMMAND",
    about: "Manage contexts",
    children: &[&CREATE, &EXPORT, &IMPORT, &INSPECT, &LS, &RM, &SHOW, &UPDATE, &USE],
    ..Command::EMPTY
};

const DESCRIPTION: Flag = Flag::new("description", Kind::Text("string"), "What the context is for");
const DOCKER: Flag = Flag::new(
    "docker",
    Kind::Commas("stringToString"),
    "The daemon: from, host, ca, cert, key, skip-tls-verify",
);

static CREATE: Command = Command {
    name: "create",
    usage: "[OPTIONS] CONTEXT",
    about: "Create a context",
    flags: &[&[DESCRIPTION, DOCKER, Flag::new("from", Kind::Text("string"), "Copy this context")]],
    args: Args::Exactly(1),
    run: task!(create),
    ..NAMED
};

static EXPORT: Command = Command {
    name: "export",
    usage: "[OPTIONS] CONTEXT [FILE|-]",
    about: "Write a context to a tar archive or STDOUT",
    args: Args::Between(1, 2),
    run: task!(export),
    ..NAMED
};

static IMPORT: Command = Command {
    name: "import",
    usage: "CONTEXT FILE|-",
    about: "Read a context from a tar archive",
    args: Args::Exactly(2),
    run: task!(import),
    ..Command::EMPTY
};

static INSPECT: Command = Command {
    name: "inspect",
    usage: "[OPTIONS] [CONTEXT] [CONTEXT...]",
    about: "Show all about one or more contexts",
    flags: &[&[Flag::new(
        "format",
        Kind::Text("string"),
        "Form of the output: 'json' or a Go template",
    )
    .short('f')]],
    args: Args::Any,
    run: task!(inspected),
    ..NAMED
};

static LS: Command = Command {
    name: "ls",
    aliases: &["list"],
    paths: &["context ls", "context list"],
    usage: "[OPTIONS]",
    about: "List contexts",
    flags: &[&[
        Flag::new(
            "format",
            Kind::Text("string"),
            "Form of the output:\n'table', 'table TEMPLATE', 'json' or a Go template",
        ),
        Flag::new("quiet", Kind::Bool, "Show only names").short('q'),
    ]],
    args: Args::None,
    run: task!(ls),
    ..Command::EMPTY
};

static RM: Command = Command {
    name: "rm",
    aliases: &["remove"],
    paths: &["context rm", "context remove"],
    usage: "CONTEXT [CONTEXT...]",
    about: "Remove one or more contexts",
    flags: &[&[Flag::new("force", Kind::Bool, "Remove a context in use").short('f')]],
    args: Args::AtLeast(1),
    run: task!(remove),
    ..NAMED
};

static SHOW: Command = Command {
    name: "show",
    about: "Print the name of the current context",
    run: task!(show),
    ..Command::EMPTY
};

static UPDATE: Command = Command {
    name: "update",
    usage: "[OPTIONS] CONTEXT",
    about: "Change a context",
    flags: &[&[DESCRIPTION, DOCKER]],
    args: Args::Exactly(1),
    run: task!(update),
    ..NAMED
};

static USE: Command = Command {
    name: "use",
    usage: "CONTEXT",
    about: "Set the current context",
    args: Args::Exactly(1),
    run: task!(choose),
    ..NAMED
};

type Tls = Vec<(String, Vec<u8>)>;

fn store(cli: &Cli) -> ContextStore {
    ContextStore::new(cli.config.directory())
}

/// The built-in context as if it were stored.
fn default_meta(cli: &Cli) -> Json {
    let skip = flag_tls(cli).is_some_and(|tls| tls.skip_verify);
    let endpoint = json!({ "Host": default_host(&cli.root, &cli.program), "SkipTLSVerify": skip });
    new_meta("default", "", &endpoint)
}

fn load(cli: &Cli, name: &str) -> Result<Json, ContextError> {
    if name == "default" { Ok(default_meta(cli)) } else { store(cli).load(name) }
}

fn tls_of(cli: &Cli, name: &str) -> Result<Tls, Failure> {
    let mut files = Vec::new();
    for (file, path) in store(cli).tls_files(name) {
        files.push((file.to_owned(), std::fs::read(&path)?));
    }
    Ok(files)
}

/// Reads `--docker`: the endpoint and its TLS material.
fn endpoint(cli: &Cli, pairs: &[String]) -> Result<(Json, Tls), Failure> {
    let (mut host, mut skip, mut tls) = (String::new(), false, Tls::new());
    for pair in pairs {
        let (key, value) = pair
            .split_once('=')
            .ok_or_else(|| Failure::new(format!("{pair} must be formatted as key=value")))?;
        match key {
            "host" => host = value.to_owned(),
            "skip-tls-verify" => {
                skip = crate::flag::parse_bool(value).ok_or_else(|| {
                    Failure::new(format!("skip-tls-verify: invalid value {value:?}"))
                })?;
            }
            "ca" | "cert" | "key" => {
                let bytes = std::fs::read(value).map_err(|error| open_failure(value, &error))?;
                tls.push((format!("{key}.pem"), bytes));
            }
            "from" => {
                let meta = load(cli, value)?;
                let other = &meta["Endpoints"]["docker"];
                host = other["Host"].as_str().unwrap_or_default().to_owned();
                skip = other["SkipTLSVerify"].as_bool().unwrap_or(false);
                tls = tls_of(cli, value)?;
            }
            _ => {
                return Err(Failure::new(format!(
                    "unable to create docker endpoint config: unrecognized config key: {key}"
                )));
            }
        }
    }
    if !host.is_empty() {
        host.parse::<rorqual_client::Host>().map_err(|error| {
            Failure::new(format!(
                "unable to create docker endpoint config: invalid docker endpoint options: {error}"
            ))
        })?;
    }
    Ok((json!({ "Host": host, "SkipTLSVerify": skip }), tls))
}

fn check_new(cli: &Cli, name: &str) -> Result<(), Failure> {
    if name == "default" {
        return Err(Failure::new("\"default\" is a reserved context name"));
    }
    if !is_valid_name(name) {
        return Err(ContextError::InvalidName(name.to_owned()).into());
    }
    match store(cli).load(name) {
        Ok(_) => Err(Failure::new(format!("context \"{name}\" already exists"))),
        Err(_) => Ok(()),
    }
}

fn created(cli: &Cli, name: &str) -> Result<(), Failure> {
    cli.line(name)?;
    cli.complain(&format!("Successfully created context \"{name}\""));
    Ok(())
}

async fn create(cli: &Cli, matches: &Matches) -> Outcome {
    let name = matches.word(0);
    check_new(cli, name)?;
    let from = matches.text("from");
    let docker = matches.list("docker");
    let (meta, tls) = if from.is_empty() && docker.is_empty() {
        let current = current_context(&cli.root, &cli.config);
        (load(cli, &current)?, tls_of(cli, &current)?)
    } else if from.is_empty() {
        let (endpoint, tls) = endpoint(cli, docker)?;
        (new_meta(name, "", &endpoint), tls)
    } else {
        if !docker.is_empty() {
            return Err(Failure::new("cannot use --docker flag when --from is set"));
        }
        (load(cli, from)?, tls_of(cli, from)?)
    };
    let old = meta["Metadata"]["Description"].as_str().unwrap_or_default().to_owned();
    let description = if matches.given("description") { matches.text("description") } else { &old };
    let meta = new_meta(name, description, &meta["Endpoints"]["docker"]);
    store(cli).save(&meta, Some(&tls))?;
    created(cli, name)?;
    Ok(0)
}

async fn update(cli: &Cli, matches: &Matches) -> Outcome {
    let name = matches.word(0);
    if name == "default" {
        return Err(Failure::new("\"default\" is a reserved context name"));
    }
    let mut meta = store(cli).load(name)?;
    if matches.given("description") {
        meta["Metadata"]["Description"] = matches.text("description").into();
    }
    let mut tls = None;
    if matches.given("docker") {
        let (endpoint, files) = endpoint(cli, matches.list("docker"))?;
        meta["Endpoints"]["docker"] = endpoint;
        tls = Some(files);
    }
    store(cli).save(&meta, tls.as_deref())?;
    cli.line(name)?;
    cli.complain(&format!("Successfully updated context \"{name}\""));
    Ok(0)
}

async fn show(cli: &Cli, _: &Matches) -> Outcome {
    cli.line(&current_context(&cli.root, &cli.config))?;
    Ok(0)
}

async fn choose(cli: &Cli, matches: &Matches) -> Outcome {
    let name = matches.word(0);
    if name != "default" {
        store(cli).load(name)?;
    }
    let mut config = cli.config.clone();
    config.set("currentContext", (name != "default").then(|| name.into()));
    config.save()?;
    cli.line(name)?;
    cli.complain(&format!("Current context is now \"{name}\""));
    if name != "default" && std::env::var("DOCKER_HOST").is_ok_and(|host| !host.is_empty()) {
        cli.complain(&format!("Warning: DOCKER_HOST environment variable overrides the active context. To use \"{name}\", either set the global --context flag, or unset DOCKER_HOST environment variable."));
    }
    Ok(0)
}

async fn remove(cli: &Cli, matches: &Matches) -> Outcome {
    let current = current_context(&cli.root, &cli.config);
    let mut errors = Vec::new();
    for name in &matches.words {
        let in_use = *name == current && !matches.on("force");
        let result = match name.as_str() {
            "default" => Err(Failure::new("context \"default\" cannot be removed")),
            _ if in_use => Err(Failure::new(format!(
                "context \"{name}\" is in use, set -f flag to force remove"
            ))),
            _ => store(cli).remove(name).map_err(Failure::from),
        };
        match result {
            Ok(()) => {
                if *name == current {
                    let mut config = cli.config.clone();
                    config.set("currentContext", None);
                    config.save()?;
                }
                cli.line(name)?;
            }
            Err(failure) => errors.push(failure.text),
        }
    }
    joined(&errors)
}

const HEADERS: &[(&str, &str)] = &[
    ("Current", "CURRENT"),
    ("Name", "NAME"),
    ("Description", "DESCRIPTION"),
    ("DockerEndpoint", "DOCKER ENDPOINT"),
    ("Error", "ERROR"),
];

async fn ls(cli: &Cli, matches: &Matches) -> Outcome {
    let quiet = matches.on("quiet");
    let current = current_context(&cli.root, &cli.config);
    let mut all = vec![default_meta(cli)];
    all[0]["Metadata"]["Description"] = "Current DOCKER_HOST based configuration".into();
    all.extend(store(cli).list()?);
    all.sort_by_key(|meta| super::volume::natural(meta["Name"].as_str().unwrap_or_default()));
    if quiet {
        for meta in &all {
            cli.line(meta["Name"].as_str().unwrap_or_default())?;
        }
        return Ok(0);
    }
    let table = matches!(matches.text("format"), "" | "table");
    let row = |meta: &Json| {
        let name = meta["Name"].as_str().unwrap_or_default();
        let is_current = name == current;
        let shown = if table && is_current { format!("{name} *") } else { name.to_owned() };
        let text = |value: &Json| Value::from(value.as_str().unwrap_or_default());
        let fields = vec![
            ("Current", Value::Bool(is_current)),
            ("Description", text(&meta["Metadata"]["Description"])),
            ("DockerEndpoint", text(&meta["Endpoints"]["docker"]["Host"])),
            ("Error", "".into()),
            ("Name", shown.into()),
        ];
        Record::row("formatter.clientContextContext", fields)
    };
    let rows = all.iter().map(row).collect();
    let listing =
        Listing::new("{{.Name}}\t{{.Description}}\t{{.DockerEndpoint}}\t{{.Error}}", HEADERS);
    listing.show(cli, rows, matches.text("format"))?;
    if std::env::var_os("DOCKER_HOST").is_some_and(|host| !host.is_empty()) {
        cli.complain("Warning: DOCKER_HOST environment variable overrides the active context. To use a context, either set the global --context flag, or unset DOCKER_HOST environment variable.");
    }
    Ok(0)
}

async fn inspected(cli: &Cli, matches: &Matches) -> Outcome {
    let names = match matches.words.as_slice() {
        [] => vec![current_context(&cli.root, &cli.config)],
        names => names.to_vec(),
    };
    let (mut found, mut errors) = (Vec::new(), Vec::new());
    for name in &names {
        let mut meta = match load(cli, name) {
            Ok(meta) => meta,
            Err(error) => {
                errors.push(error.to_string());
                continue;
            }
        };
        let store = store(cli);
        let files: Vec<&str> = store.tls_files(name).iter().map(|(file, _)| *file).collect();
        let is_default = name == "default";
        let place = |path: std::path::PathBuf| {
            if is_default { "<IN MEMORY>".to_owned() } else { path.display().to_string() }
        };
        meta["TLSMaterial"] = if files.is_empty() { json!({}) } else { json!({ "docker": files }) };
        meta["Storage"] = json!({
            "MetadataPath": place(store.meta_directory(name)),
            "TLSPath": place(store.tls_directory(name)),
        });
        found.push(meta);
    }
    inspect::show(cli, matches.text("format"), &found, &errors)
}

async fn export(cli: &Cli, matches: &Matches) -> Outcome {
    let name = matches.word(0);
    let target = match matches.word(1) {
        "" => format!("{name}.dockercontext"),
        file => file.to_owned(),
    };
    if target == "-" && crate::terminal::output_is_terminal() {
        return Err(Failure::new("cowardly refusing to export to a terminal, specify a file path"));
    }
    let meta = load(cli, name)?.to_string();
    let mut builder = tar::Builder::new(Vec::new());
    let mut add = |path: &str, bytes: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o600);
        header.set_size(bytes.len() as u64);
        builder.append_data(&mut header, path, bytes)
    };
    add("meta.json", meta.as_bytes())?;
    for (file, bytes) in tls_of(cli, name)? {
        add(&format!("tls/docker/{file}"), &bytes)?;
    }
    let bytes = builder.into_inner()?;
    if target == "-" {
        std::io::stdout().lock().write_all(&bytes)?;
        return Ok(0);
    }
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&target)
        .map_err(|error| open_failure(&target, &error))?;
    file.write_all(&bytes)?;
    cli.complain(&format!("Written file {target:?}"));
    Ok(0)
}

async fn import(cli: &Cli, matches: &Matches) -> Outcome {
    let (name, source) = (matches.word(0), matches.word(1));
    check_new(cli, name)?;
    let bytes = facts::read_input(source)?;
    let mut meta = None;
    let mut tls = Tls::new();
    let mut archive = tar::Archive::new(bytes.as_slice());
    for entry in archive.entries()? {
        let mut entry = entry?;
        let path = entry.path()?.display().to_string();
        let mut content = Vec::new();
        entry.read_to_end(&mut content)?;
        let key = TLS_NAMES.iter().find(|file| path == format!("tls/docker/{file}"));
        match (path.as_str(), key) {
            ("meta.json", _) => {
                meta = Some(
                    serde_json::from_slice::<Json>(&content)
                        .map_err(|error| Failure::new(format!("invalid context: {error}")))?,
                );
            }
            (_, Some(key)) => tls.push(((*key).to_owned(), content)),
            _ if path.ends_with('/') => {}
            _ => return Err(Failure::new(format!("unexpected context file: {path}"))),
        }
    }
    let mut meta = meta.ok_or_else(|| Failure::new("invalid context: no metadata found"))?;
    meta["Name"] = name.into();
    store(cli).save(&meta, Some(&tls))?;
    cli.line(name)?;
    cli.complain(&format!("Successfully imported context \"{name}\""));
    Ok(0)
}

//! The command line of `rorqual registry`. Flags override the configuration file.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command line prints")]

use std::ffi::OsString;
use std::io::Read as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Arg, ArgAction, ArgMatches, Command};
use rorqual_core::{full_message, units};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::{Config, Proxy, Size, Span};
use crate::error::{Error, Result};
use crate::repository::Repositories;
use crate::{gc, serve, storage};

fn value(name: &'static str, kind: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).value_name(kind).help(help)
}

fn switch(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).action(ArgAction::SetTrue).help(help)
}

/// The flags that every command has: which registry it is about.
fn common(command: Command) -> Command {
    command
        .arg(value("config-file", "FILE", "Configuration file (JSON); flags override it"))
        .arg(value(
            "storage",
            "DIR|URL",
            "Directory, or s3://, gs://, az:// URL (credentials come from the environment)",
        ))
        .arg(value("gc-grace", "TIME", "Age below which nothing is collected [default: 2h]"))
        .arg(value(
            "gc-untagged",
            "TIME",
            "Collect manifests without a tag of this age [default: they stay]",
        ))
        .arg(value("gc-undo", "TIME", "How long what was deleted can be restored [default: 24h]"))
}

fn command() -> Command {
    let collect = common(Command::new("garbage-collect"))
        .about("Remove what nothing refers to; the registry may go on serving")
        .arg(switch("dry-run", "Only say what would go"));
    let restore = common(Command::new("restore"))
        .about("List what was deleted of a repository, or bring it back")
        .arg(Arg::new("repository").value_name("REPOSITORY").required(true))
        .arg(Arg::new("reference").value_name("TAG|DIGEST").help("What to bring back"));
    let hash = Command::new("hash-password")
        .about("Read a password from standard input and print a line for the password file")
        .arg(Arg::new("user").value_name("USER").required(true));
    let check = common(Command::new("check-config")).about("Check the configuration and end");
    serve_flags(common(Command::new("rorqual registry")))
        .about("Serve container images: an OCI registry")
        .override_usage("rorqual registry [OPTIONS]\n       rorqual registry COMMAND")
        .subcommand_negates_reqs(true)
        .args_conflicts_with_subcommands(true)
        .disable_help_subcommand(true)
        .subcommands([collect, restore, hash, check])
}

fn serve_flags(command: Command) -> Command {
    command
        .arg(value("listen", "ADDR", "Address to serve at: HOST:PORT or unix://PATH; may be repeated [default: 127.0.0.1:5000]").action(ArgAction::Append))
        .arg(value("debug-listen", "ADDR", "Address of /metrics and /debug/health [default: none]"))
        .arg(value("tls-cert", "FILE", "Certificate chain (PEM); read again on SIGHUP"))
        .arg(value("tls-key", "FILE", "Its key (PEM)"))
        .arg(value("tls-client-ca", "FILE", "Let only clients in with a certificate of this authority"))
        .arg(value("htpasswd", "FILE", "Users and their passwords (bcrypt only); read again when it changes"))
        .arg(value("policy", "FILE", "Rights per user and repository (JSON)"))
        .arg(value("token-key", "FILE", "Token mode with a service of its own; the key is made if it is missing"))
        .arg(value("token-realm", "URL", "Token mode: where clients get tokens [default: /token here]"))
        .arg(value("token-service", "NAME", "Name of this registry in tokens [default: rorqual-registry]"))
        .arg(value("token-issuer", "NAME", "Who signs tokens [default: rorqual-registry]"))
        .arg(value("token-public-keys", "FILE|URL", "Token mode with a foreign service: its keys (JWKS or PEM)"))
        .arg(value("token-public-keys-ca", "FILE", "Authority of the address of those keys (PEM)"))
        .arg(switch("read-only", "Refuse everything that changes something"))
        .arg(switch("delete", "Allow manifests, tags and blobs to be deleted"))
        .arg(value("max-manifest-size", "BYTES", "Largest manifest [default: 4m]"))
        .arg(value("max-blob-size", "BYTES", "Largest blob [default: 64g]"))
        .arg(value("max-uploads", "N", "Uploads under way at a time [default: 1000]"))
        .arg(value("max-upload-age", "TIME", "Age at which an abandoned upload is given up [default: 24h]"))
        .arg(value("max-connections", "N", "Connections at a time [default: 4096]"))
        .arg(value("rate-limit", "N", "Requests per second of one client address [default: any number]"))
        .arg(value("rate-burst", "N", "Requests of one client at once [default: 100]"))
        .arg(value("gc-interval", "TIME", "Time between collections; 0s: only by command [default: 6h]"))
        .arg(value("proxy", "URL", "Pull-through cache of this registry"))
        .arg(value("proxy-username", "USER", "User there"))
        .arg(value("proxy-password-file", "FILE", "File with the password there"))
        .arg(value("proxy-ca", "FILE", "Authority of its certificate (PEM), beside the system's"))
        .arg(value("proxy-refresh", "TIME", "How long a tag is believed [default: 1m]"))
        .arg(value("proxy-ttl", "TIME", "How long what nobody pulls is kept [default: 7d]"))
        .arg(value("proxy-budget", "N", "Requests to it per hour [default: any number]"))
        .arg(switch("no-web", "Serve no web pages"))
        .arg(switch("no-access-log", "Write no line per request"))
        .arg(value("log-level", "LEVEL", "error, warn, info, debug or trace [default: info]"))
        .arg(value("log-format", "FORMAT", "text or json [default: text]"))
        .arg(value("drain", "TIME", "Time for requests under way at the end [default: 30s]"))
}

/// Runs `rorqual registry` (`args` without the program's name).
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let name = OsString::from("rorqual registry");
    let matches = match command().try_get_matches_from(std::iter::once(name).chain(args)) {
        Ok(matches) => matches,
        Err(error) => {
            let code = if error.use_stderr() { 125 } else { 0 };
            error.print().ok();
            return ExitCode::from(code);
        }
    };
    match run(&matches) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("rorqual registry: {}", full_message(&error));
            ExitCode::FAILURE
        }
    }
}

fn run(matches: &ArgMatches) -> Result<()> {
    match matches.subcommand() {
        Some(("hash-password", matches)) => hash_password(matches),
        Some((command, matches)) => {
            let config = config(matches)?;
            start_log(&config)?;
            match command {
                "garbage-collect" => {
                    let dry_run = matches.get_flag("dry-run");
                    on_runtime(async move { garbage_collect(config, dry_run).await })
                }
                "restore" => {
                    let text = |name: &str| matches.get_one::<String>(name).cloned();
                    let (repository, reference) = (text("repository"), text("reference"));
                    let repository = repository.unwrap_or_default();
                    on_runtime(async move { restore(config, &repository, reference).await })
                }
                _ => {
                    config.check()?;
                    println!("configuration OK");
                    Ok(())
                }
            }
        }
        None => {
            let mut config = config(matches)?;
            if config.listen.is_empty() {
                config.listen.push("127.0.0.1:5000".to_owned());
            }
            start_log(&config)?;
            on_runtime(serve::run(config))
        }
    }
}

fn on_runtime(work: impl Future<Output = Result<()>>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        // LIMIT: threads that wait for disks; requests beyond wait for one.
        .max_blocking_threads(64)
        .thread_keep_alive(std::time::Duration::from_secs(10))
        .enable_all()
        .build()
        .map_err(|error| Error::Config(format!("cannot start: {error}")))?;
    runtime.block_on(work)
}

/// Sets `target` to a flag's value, if it was given.
fn set<T>(
    matches: &ArgMatches,
    name: &str,
    target: &mut T,
    read: impl FnOnce(&str) -> Result<T>,
) -> Result<()> {
    // Not every command has every flag.
    let given = matches.try_get_one::<String>(name).ok().flatten();
    if let Some(text) = given {
        *target = read(text).map_err(|error| Error::Config(format!("--{name}: {error}")))?;
    }
    Ok(())
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T> {
    text.parse().map_err(|_| Error::Config(format!("{text:?} is not a number")))
}

fn path(text: &str) -> Result<Option<PathBuf>> {
    Ok(Some(PathBuf::from(text)))
}

fn config(matches: &ArgMatches) -> Result<Config> {
    let mut config = match matches.get_one::<String>("config-file") {
        Some(path) => Config::load(path.as_ref())?,
        None => Config::default(),
    };
    let text = |text: &str| Ok(text.to_owned());
    if let Some(listen) = matches.try_get_many::<String>("listen").ok().flatten() {
        config.listen = listen.cloned().collect();
    }
    set(matches, "storage", &mut config.storage, text)?;
    set(matches, "debug-listen", &mut config.debug_listen, text)?;
    set(matches, "tls-cert", &mut config.tls.cert, path)?;
    set(matches, "tls-key", &mut config.tls.key, path)?;
    set(matches, "tls-client-ca", &mut config.tls.client_ca, path)?;
    set(matches, "drain", &mut config.drain, Span::parse)?;
    for (name, target) in [("read-only", &mut config.read_only), ("delete", &mut config.delete)] {
        *target |= is_on(matches, name);
    }
    config.web &= !is_on(matches, "no-web");
    config.log.access &= !is_on(matches, "no-access-log");
    set(matches, "log-level", &mut config.log.level, text)?;
    set(matches, "log-format", &mut config.log.json, |format| match format {
        "json" => Ok(true),
        "text" => Ok(false),
        other => Err(Error::Config(format!("{other:?} is neither text nor json"))),
    })?;
    limits(matches, &mut config)?;
    auth(matches, &mut config)?;
    proxy(matches, &mut config)?;
    Ok(config)
}

fn is_on(matches: &ArgMatches, name: &str) -> bool {
    matches.try_get_one::<bool>(name).ok().flatten().copied().unwrap_or_default()
}

fn limits(matches: &ArgMatches, config: &mut Config) -> Result<()> {
    let (limits, gc) = (&mut config.limits, &mut config.gc);
    set(matches, "max-manifest-size", &mut limits.manifest, Size::parse)?;
    set(matches, "max-blob-size", &mut limits.blob, Size::parse)?;
    set(matches, "max-uploads", &mut limits.uploads, number)?;
    set(matches, "max-upload-age", &mut limits.upload_age, Span::parse)?;
    set(matches, "max-connections", &mut limits.connections, number)?;
    set(matches, "rate-limit", &mut limits.rate, number)?;
    set(matches, "rate-burst", &mut limits.burst, number)?;
    set(matches, "gc-interval", &mut gc.interval, Span::parse)?;
    set(matches, "gc-grace", &mut gc.grace, Span::parse)?;
    set(matches, "gc-undo", &mut gc.undo, Span::parse)?;
    set(matches, "gc-untagged", &mut gc.untagged, |text| Span::parse(text).map(Some))
}

fn auth(matches: &ArgMatches, config: &mut Config) -> Result<()> {
    let auth = &mut config.auth;
    set(matches, "htpasswd", &mut auth.htpasswd, path)?;
    set(matches, "policy", &mut auth.policy, path)?;
    let names = ["key", "realm", "service", "issuer", "public-keys", "public-keys-ca"];
    let given = |name: &&str| {
        matches.try_get_one::<String>(&format!("token-{name}")).ok().flatten().is_some()
    };
    if !names.iter().any(given) {
        return Ok(());
    }
    let mut token = auth.token.take().unwrap_or_default();
    let text = |text: &str| Ok(text.to_owned());
    set(matches, "token-key", &mut token.key, path)?;
    set(matches, "token-public-keys", &mut token.public_keys, path)?;
    set(matches, "token-public-keys-ca", &mut token.public_keys_ca, path)?;
    set(matches, "token-realm", &mut token.realm, text)?;
    set(matches, "token-service", &mut token.service, text)?;
    set(matches, "token-issuer", &mut token.issuer, text)?;
    auth.token = Some(token);
    Ok(())
}

fn proxy(matches: &ArgMatches, config: &mut Config) -> Result<()> {
    if let Some(url) = matches.try_get_one::<String>("proxy").ok().flatten() {
        let minimal = serde_json::json!({"url": url});
        let made: Proxy = serde_json::from_value(minimal)
            .map_err(|error| Error::Config(format!("--proxy: {error}")))?;
        config.proxy = Some(made);
    }
    let Some(proxy) = &mut config.proxy else { return Ok(()) };
    set(matches, "proxy-username", &mut proxy.username, |text| Ok(Some(text.to_owned())))?;
    set(matches, "proxy-password-file", &mut proxy.password_file, path)?;
    set(matches, "proxy-ca", &mut proxy.ca, path)?;
    set(matches, "proxy-refresh", &mut proxy.refresh, Span::parse)?;
    set(matches, "proxy-ttl", &mut proxy.ttl, Span::parse)?;
    set(matches, "proxy-budget", &mut proxy.budget, number)
}

fn start_log(config: &Config) -> Result<()> {
    let level: tracing::Level = config.log.level.parse().map_err(|_| {
        let level = &config.log.level;
        Error::Config(format!("{level:?} is no log level: need error, warn, info, debug or trace"))
    })?;
    let filter = tracing::level_filters::LevelFilter::from_level(level);
    let registry = tracing_subscriber::registry().with(filter);
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    // A subscriber that is there already (in tests) stays.
    if config.log.json {
        registry.with(layer.json()).try_init().ok();
    } else {
        registry.with(layer.with_ansi(false)).try_init().ok();
    }
    Ok(())
}

async fn garbage_collect(config: Config, dry_run: bool) -> Result<()> {
    config.check()?;
    let storage = storage::open(&config.storage).await?;
    let repositories = Repositories::new(storage, Arc::new(config));
    let report = gc::collect(&repositories, dry_run, &|what| println!("{what}")).await?;
    let gc::Report { tags, manifests, links, blobs, bytes, uploads, trash } = report;
    println!(
        "{}{tags} tags, {manifests} manifests, {links} links, {blobs} blobs ({}), {uploads} uploads, {trash} entries of the trash",
        if dry_run { "would remove " } else { "removed " },
        units::human_size(bytes),
    );
    Ok(())
}

async fn restore(config: Config, repository: &str, reference: Option<String>) -> Result<()> {
    config.check()?;
    let name = repository.parse()?;
    let storage = storage::open(&config.storage).await?;
    let repositories = Repositories::new(storage, Arc::new(config));
    let Some(reference) = reference else {
        for entry in repositories.trashed(&name).await? {
            let deleted = entry.deleted;
            let what = if deleted.head.is_some() { "manifest" } else { "tag" };
            println!("{} {what} {} {}", deleted.at, deleted.digest, deleted.tags.join(" "));
        }
        return Ok(());
    };
    match repositories.restore(&name, &reference).await? {
        Some(deleted) => {
            println!("restored {} {}", deleted.digest, deleted.tags.join(" "));
            Ok(())
        }
        None => Err(Error::Config(format!(
            "nothing that was deleted of {repository} in the undo window is called {reference:?}"
        ))),
    }
}

// LIMIT: bcrypt's work factor; each step doubles the time of a verification.
const COST: u32 = 10;

fn hash_password(matches: &ArgMatches) -> Result<()> {
    let user = matches.get_one::<String>("user").map(String::as_str).unwrap_or_default();
    if user.is_empty() || user.contains([':', '\n']) {
        return Err(Error::Config(format!("{user:?} cannot be a user")));
    }
    let mut password = String::new();
    // LIMIT: bcrypt looks at 72 bytes only; a longer password would be cut without a word.
    let read = std::io::stdin().take(1024).read_to_string(&mut password);
    read.map_err(|error| Error::Config(format!("cannot read the password: {error}")))?;
    let password = password.trim_end_matches(['\r', '\n']);
    if password.is_empty() || password.len() > 72 {
        return Err(Error::Config("need a password of 1 to 72 bytes on standard input".to_owned()));
    }
    let hash = bcrypt::hash(password, COST)
        .map_err(|error| Error::Config(format!("cannot hash the password: {error}")))?;
    println!("{user}:{hash}");
    Ok(())
}

//! `build`: hands a directory and a Dockerfile to the daemon's builder and shows what it does.

mod bake;
mod caches;
mod context;
mod csv;
mod logins;
mod options;
mod outcome;
mod outputs;
mod progress;
mod secrets;
mod shell;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::StreamExt as _;
use rorqual_buildkit::{Client as Builder, Failure as BuildFailure, News, new_id};
use rorqual_client::{Client, Method, Request};

use super::task;
use crate::cli::{Cli, complain};
use crate::failure::{Failure, Outcome};
use crate::flag::{Args, Command, Flag, Kind, Matches};

pub(super) use bake::BAKE;
use options::Plan;
pub(super) use outcome::size;
use progress::{Mode, Screen};

const BUILD_FLAGS: &[Flag] = &[
    Flag::new(
        "add-host",
        Kind::List("strings"),
        "Add a name to the hosts files of steps (host:ip)",
    ),
    Flag::new(
        "allow",
        Kind::List("stringArray"),
        "Allow a privilege: network.host, security.insecure",
    ),
    Flag::new("annotation", Kind::List("stringArray"), "Add an annotation to the image"),
    Flag::new(
        "attest",
        Kind::List("stringArray"),
        "Attestation to make (type=sbom, type=provenance)",
    ),
    Flag::new("build-arg", Kind::List("stringArray"), "Set a variable of the Dockerfile"),
    Flag::new("build-context", Kind::List("stringArray"), "Further context (name=path)"),
    Flag::new("builder", Kind::Text("string"), "Name of the builder; there is one, \"default\""),
    Flag::new(
        "cache-from",
        Kind::List("stringArray"),
        "Where results may be taken from (user/app:cache, type=local,src=path/to/dir)",
    ),
    Flag::new(
        "cache-to",
        Kind::List("stringArray"),
        "Where results go (user/app:cache, type=local,dest=path/to/dir)",
    ),
    Flag::new("call", Kind::Text("string"), "What to do: build, check, outline, targets")
        .default("build"),
    Flag::new("cgroup-parent", Kind::Text("string"), "Parent control group of steps"),
    Flag::new("check", Kind::Bool, "Only check the Dockerfile (same as --call=check)"),
    Flag::new("file", Kind::Text("string"), "Name of the Dockerfile (default: PATH/Dockerfile)")
        .short('f'),
    Flag::new("iidfile", Kind::Text("string"), "Write the image's id to this file"),
    Flag::new("label", Kind::List("stringArray"), "Set a label of the image"),
    Flag::new("load", Kind::Bool, "Keep the image in the engine (same as --output=type=docker)"),
    Flag::new("metadata-file", Kind::Text("string"), "Write facts about the result to this file"),
    Flag::new("network", Kind::Text("string"), "Network of RUN: default, none, host")
        .default("default"),
    Flag::new("no-cache", Kind::Bool, "Build everything anew"),
    Flag::new("no-cache-filter", Kind::List("stringArray"), "Build these stages anew"),
    Flag::new(
        "on-fail",
        Kind::Text("string"),
        "What to do when a step fails: shell (opens one in the step; needs a terminal)",
    ),
    Flag::new("output", Kind::List("stringArray"), "Where the result goes (type=local,dest=path)")
        .short('o'),
    Flag::new("platform", Kind::List("stringArray"), "For which machines to build"),
    Flag::new(
        "progress",
        Kind::Text("string"),
        "How to show progress: auto, quiet, plain, tty, rawjson",
    )
    .default("auto"),
    Flag::new("provenance", Kind::Text("string"), "Short for --attest=type=provenance"),
    Flag::new("pull", Kind::Bool, "Look for newer base images"),
    Flag::new("push", Kind::Bool, "Push the image (same as --output=type=registry)"),
    Flag::new("quiet", Kind::Bool, "Print nothing but the image's id").short('q'),
    Flag::new("sbom", Kind::Text("string"), "Short for --attest=type=sbom"),
    Flag::new(
        "secret",
        Kind::List("stringArray"),
        "Lend a secret (id=mysecret[,src=/local/secret])",
    ),
    Flag::new("shm-size", Kind::Bytes, "Size of /dev/shm of steps"),
    Flag::new("ssh", Kind::List("stringArray"), "Lend an ssh agent (default|<id>[=<socket>])"),
    Flag::new("tag", Kind::List("stringArray"), "Name of the image (name[:tag])").short('t'),
    Flag::new("target", Kind::Text("string"), "Stage to build"),
    Flag::new("ulimit", Kind::List("ulimit"), "Limits of steps"),
    Flag::new("why", Kind::Bool, "Say for every step that runs why it was not cached"),
    // Of the classic builder; there is nothing that they could change.
    Flag::new("rm", Kind::Bool, "Remove intermediate containers").default("true").hidden(),
    Flag::new("force-rm", Kind::Bool, "Always remove intermediate containers").hidden(),
    Flag::new("compress", Kind::Bool, "Compress the context").hidden(),
    Flag::new("disable-content-trust", Kind::Bool, "Skip verification of images")
        .default("true")
        .hidden(),
];

/// `build`
pub(super) static BUILD: Command = Command {
    name: "build",
    aliases: &["b"],
    paths: &["image build", "build", "builder build"],
    usage: "[OPTIONS] PATH | URL | -",
    about: "Build an image",
    flags: &[BUILD_FLAGS],
    args: Args::Exactly(1),
    run: task!(build),
    ..Command::EMPTY
};

/// Opens a connection for calls of the builder.
pub(super) async fn connect(client: &Client) -> Result<Builder, Failure> {
    let mut request = Request::new(Method::POST, "/grpc");
    request.headers.push(("upgrade", "h2c".to_owned()));
    let (connection, _) = client.hijack(request).await?;
    let builder = Builder::new(connection).await;
    builder.map_err(|error| Failure::new(rorqual_core::full_message(&error)))
}

async fn build(cli: &Cli, matches: &Matches) -> Outcome {
    let mode = Mode::choose(matches)?;
    let wants_shell = shell::is_wanted(matches)?;
    let mut plan = options::plan(cli, matches)?;
    if wants_shell {
        plan.option("rorqual.keep-failed", "1");
    }
    let client = cli.client()?;
    let screen = Mutex::new(Screen::new(mode));
    lock(&screen).begin()?;
    let Performed { built, plan, connected } = perform(client, plan, (&screen, "")).await?;
    let mut screen = screen.into_inner().unwrap_or_else(PoisonError::into_inner);
    screen.end()?;
    match built {
        Ok(told) => outcome::finish(cli, matches, &plan.after, &told, &mut screen),
        Err(failure) => {
            screen.fail(&failure, cli.root.on("debug"))?;
            if wants_shell && !failure.is_cancelled {
                shell::enter(&connected, &screen.failed_step()).await?;
            }
            Err(Failure::new(format!(
                "ERROR: failed to build: failed to solve: {}",
                failure.message
            )))
        }
    }
}

type Told = std::collections::BTreeMap<String, String>;

/// The connections of a build; what the daemon keeps for it goes with them.
struct Connected {
    builder: Builder,
    /// Name of the session.
    session: String,
    lent: tokio::task::JoinHandle<()>,
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.lent.abort();
    }
}

/// A build that is over.
struct Performed {
    built: Result<Told, BuildFailure>,
    plan: Plan,
    connected: Connected,
}

fn lock(screen: &Mutex<Screen>) -> MutexGuard<'_, Screen> {
    screen.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs a build: session, calls, progress. Its steps carry its name where several builds share the screen.
async fn perform(
    client: &Client,
    plan: Plan,
    (screen, name): (&Mutex<Screen>, &str),
) -> Result<Performed, Failure> {
    let Plan { mut request, lending, shared_key, after, keep } = plan;
    let session = new_id();
    let mut open = Request::new(Method::POST, "/session");
    open.headers.push(("upgrade", "h2c".to_owned()));
    open.headers.extend(lending.headers(&session, &shared_key));
    let (connection, _) = client.hijack(open).await?;
    let lent = tokio::spawn(lending.serve(connection));
    let builder = connect(client).await?;
    let connected = Connected { builder, session: session.clone(), lent };
    let builder = &connected.builder;
    request.session = session;
    request.id = new_id();
    let id = request.id.clone();
    let watch = async {
        match builder.news(&id).await {
            Ok(news) => {
                follow(news.map(|batch| batch.map(|batch| named(batch, name))), screen).await
            }
            // What went wrong the build itself tells.
            Err(_) => Ok(()),
        }
    };
    let (built, shown) = tokio::join!(builder.build(request.clone()), watch);
    shown?;
    let plan =
        Plan { request, lending: rorqual_buildkit::Lending::default(), shared_key, after, keep };
    Ok(Performed { built, plan, connected })
}

/// Tells the steps of a build from those of others on the same screen.
fn named(mut news: News, name: &str) -> News {
    if name.is_empty() {
        return news;
    }
    let own = |digest: &mut String| {
        if !digest.is_empty() {
            *digest = format!("{name}:{digest}");
        }
    };
    for vertex in &mut news.vertices {
        own(&mut vertex.digest);
        vertex.inputs.iter_mut().for_each(own);
        // COMPAT: as buildx names the steps of several targets.
        vertex.name = match vertex.name.strip_prefix('[') {
            Some(rest) => format!("[{name} {rest}"),
            None => format!("[{name}] {}", vertex.name),
        };
    }
    news.statuses.iter_mut().for_each(|status| own(&mut status.vertex));
    news.logs.iter_mut().for_each(|log| own(&mut log.vertex));
    news.warnings.iter_mut().for_each(|warning| own(&mut warning.vertex));
    news
}

/// Shows news until there are none; on a terminal also the passing of time.
async fn follow(
    news: impl futures_util::Stream<Item = Result<News, BuildFailure>>,
    screen: &Mutex<Screen>,
) -> Result<(), Failure> {
    tokio::pin!(news);
    let mut clock = tokio::time::interval(std::time::Duration::from_millis(100));
    clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            batch = news.next() => match batch {
                Some(Ok(batch)) => lock(screen).take(&batch)?,
                Some(Err(_)) | None => return Ok(()),
            },
            _ = clock.tick() => lock(screen).tick()?,
        }
    }
}

/// Keeps what lives as long as the build: temporary directories.
type Keep = Vec<Arc<dyn std::any::Any + Send + Sync>>;

/// Warns about something that is not a failure.
fn warn(text: &str) {
    complain(&format!("WARNING: {text}"));
}

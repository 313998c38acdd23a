//! `exec`, `attach` and `start`: connecting to containers that exist.

use rorqual_client::{Client, Method, Request};
use serde_json::{Value as Json, json};

use super::create::{Streams, list_or_null, read_variables};
use super::session::{self, Signals};
use super::{run, task};
use crate::cli::{Cli, complain};
use crate::failure::{Failure, Outcome};
use crate::flag::{Args, Command, Completes, Flag, Kind, Matches};
use crate::output::text::{encoded, query};
use crate::stream::{self, Ended, Framing, Session};
use crate::terminal::{self, RawMode};

const DETACH_KEYS: Flag = Flag::new(
    "detach-keys",
    Kind::Text("string"),
    "Keys that detach from the container instead of the configured ones",
);

/// `exec`
pub(super) static EXEC: Command = Command {
    name: "exec",
    paths: &["container exec", "exec"],
    usage: "[OPTIONS] CONTAINER COMMAND [ARG...]",
    about: "Execute a command in a running container",
    flags: &[&[
        Flag::new("detach", Kind::Bool, "Leave the command in the background").short('d'),
        DETACH_KEYS,
        Flag::new("env", Kind::List("list"), "Set an environment variable").short('e'),
        Flag::new("env-file", Kind::List("list"), "Read environment variables from a file"),
        Flag::new("interactive", Kind::Bool, "Keep stdin open even when not attached").short('i'),
        Flag::new("privileged", Kind::Bool, "Give the command all privileges"),
        Flag::new("tty", Kind::Bool, "Give the command a terminal").short('t'),
        Flag::new(
            "user",
            Kind::Text("string"),
            "User name or UID (format: <name|uid>[:<group|gid>])",
        )
        .short('u'),
        Flag::new("workdir", Kind::Text("string"), "Directory the command starts in").short('w'),
    ]],
    args: Args::AtLeast(2),
    stops_at_word: true,
    run: task!(exec),
    completes: Completes::Containers,
    ..Command::EMPTY
};

/// `attach`
pub(super) static ATTACH: Command = Command {
    name: "attach",
    paths: &["container attach", "attach"],
    usage: "[OPTIONS] CONTAINER",
    about: "Connect stdin, stdout and stderr with a running container",
    flags: &[&[
        DETACH_KEYS,
        Flag::new("no-stdin", Kind::Bool, "Don't connect stdin"),
        Flag::new("sig-proxy", Kind::Bool, "Pass signals on to the container's process")
            .default("true"),
    ]],
    args: Args::Exactly(1),
    run: task!(attach),
    completes: Completes::Containers,
    ..Command::EMPTY
};

/// `start`
pub(super) static START: Command = Command {
    name: "start",
    paths: &["container start", "start"],
    usage: "[OPTIONS] CONTAINER [CONTAINER...]",
    about: "Start one or more stopped containers",
    flags: &[&[
        Flag::new("attach", Kind::Bool, "Connect stdout and stderr, and pass signals on")
            .short('a'),
        Flag::new("checkpoint", Kind::Text("string"), "Start from this checkpoint"),
        Flag::new("checkpoint-dir", Kind::Text("string"), "Where the checkpoint is"),
        DETACH_KEYS,
        Flag::new("interactive", Kind::Bool, "Connect stdin").short('i'),
    ]],
    args: Args::AtLeast(1),
    run: task!(start),
    completes: Completes::Containers,
    ..Command::EMPTY
};

async fn exec(cli: &Cli, matches: &Matches) -> Outcome {
    let own = |name: &str| std::env::var(name).ok().map(|value| format!("{name}={value}"));
    let env = read_variables(matches.list("env-file"), matches.list("env"), own)?;
    let (detached, tty) = (matches.on("detach"), matches.on("tty"));
    let client = cli.client()?;
    let name = encoded(matches.word(0));
    // COMPAT: docker's client looks first, so that a missing container is what is reported.
    client.get(format!("/containers/{name}/json")).await?;
    let interactive = matches.on("interactive") && !detached;
    if interactive && tty && !terminal::input_is_terminal() {
        return Err(Failure::new("the input device is not a TTY"));
    }
    let keys = session::keys(cli, matches.text("detach-keys"))?;
    let size = match (tty, terminal::size()) {
        (true, Some((rows, columns))) if !detached => json!([rows, columns]),
        _ => Json::Null,
    };
    let mut document = json!({
        "User": matches.text("user"),
        "Privileged": matches.on("privileged"),
        "Tty": tty,
        "ConsoleSize": size,
        "AttachStdin": interactive,
        "AttachStderr": !detached,
        "AttachStdout": !detached,
        "DetachKeys": session::keys_query(cli, matches.text("detach-keys")),
        "Env": list_or_null(&env),
        "WorkingDir": matches.text("workdir"),
        "Cmd": &matches.words[1..],
    });
    if size_is_absent(&document)
        && let Some(fields) = document.as_object_mut()
    {
        fields.shift_remove("ConsoleSize");
    }
    let answer = client.post(format!("/containers/{name}/exec"), document).await?;
    let id = answer["Id"].as_str().filter(|id| !id.is_empty());
    let id = id.ok_or_else(|| Failure::new("exec ID empty"))?;
    if detached {
        client.post(format!("/exec/{id}/start"), json!({ "Detach": true, "Tty": tty })).await?;
        return Ok(0);
    }
    attached_exec(client, id, tty, interactive, &keys).await
}

fn size_is_absent(document: &Json) -> bool {
    document["ConsoleSize"].is_null()
}

async fn attached_exec(
    client: &Client,
    id: &str,
    tty: bool,
    interactive: bool,
    keys: &[u8],
) -> Outcome {
    let body = rorqual_client::Body::from(json!({ "Detach": false, "Tty": tty }));
    let request = Request::new(Method::POST, format!("/exec/{id}/start")).with(body);
    let (connection, _) = client.hijack(request).await?;
    let raw = interactive && tty;
    let mode = if raw { RawMode::enter() } else { None };
    let session = Session {
        input: interactive,
        output: true,
        framing: if tty { Framing::Raw } else { Framing::Frames },
        detach: raw.then_some(keys),
    };
    let path = format!("/exec/{id}");
    let sized = tty && terminal::output_is_terminal();
    let ended = tokio::select! {
        ended = stream::carry(connection, session) => ended?,
        () = session::keep_size(client, &path), if sized => Ended::Closed,
    };
    drop(mode);
    if ended == Ended::Detached {
        // COMPAT: said, and yet no failure.
        complain("read escape sequence");
        return Ok(0);
    }
    let state = client.get(format!("/exec/{id}/json")).await?;
    Ok(state["ExitCode"].as_i64().unwrap_or(0) as u8)
}

async fn attach(cli: &Cli, matches: &Matches) -> Outcome {
    let client = cli.client()?;
    let name = encoded(matches.word(0));
    let state = client.get(format!("/containers/{name}/json")).await?;
    let flag = |key: &str| state["State"][key].as_bool().unwrap_or(false);
    let refusal = match (flag("Running"), flag("Paused"), flag("Restarting")) {
        (false, ..) => "You cannot attach to a stopped container, start it first",
        (_, true, _) => "You cannot attach to a paused container, unpause it first",
        (_, _, true) => "You cannot attach to a restarting container, wait until it is running",
        _ => "",
    };
    if !refusal.is_empty() {
        return Err(Failure::new(refusal));
    }
    let tty = state["Config"]["Tty"].as_bool().unwrap_or(false);
    let open = state["Config"]["OpenStdin"].as_bool().unwrap_or(false);
    let streams = Streams { input: open && !matches.on("no-stdin"), output: true, error: true };
    if streams.input && tty && !terminal::input_is_terminal() {
        return Err(Failure::new("the input device is not a TTY"));
    }
    let id = state["Id"].as_str().unwrap_or(&name).to_owned();
    let connected = Connected { cli, matches, id: &id, tty, streams };
    connected.carry(None).await
}

/// A container whose streams are to be connected with ours.
struct Connected<'a> {
    cli: &'a Cli,
    matches: &'a Matches,
    id: &'a str,
    tty: bool,
    streams: Streams,
}

impl Connected<'_> {
    /// Connects, perhaps starts, and ends as the container does.
    async fn carry(&self, start_query: Option<&str>) -> Outcome {
        let client = self.cli.client()?;
        let flag = self.matches.text("detach-keys");
        let keys = session::keys(self.cli, flag)?;
        let query = session::keys_query(self.cli, flag);
        let proxied = !self.tty && (start_query.is_some() || self.matches.on("sig-proxy"));
        let signals = proxied.then(Signals::catch);
        // ORDER: before the start, or output and the end would be missed.
        let (attached, waiting) = tokio::join!(
            run::attach(client, self.id, self.streams, &query),
            session::wait_for(
                client,
                self.id,
                if start_query.is_some() { "next-exit" } else { "not-running" }
            )
        );
        let (connection, _) = attached?;
        let waiting = waiting?;
        if let Some(query) = start_query {
            let path = format!("/containers/{}/start{query}", self.id);
            if let Err(error) = client.post(path, Json::Null).await {
                let text = error.to_string();
                return Err(Failure::new(text));
            }
        }
        let raw = self.streams.input && self.tty;
        let mode = if raw { RawMode::enter() } else { None };
        let session = Session {
            input: self.streams.input,
            output: true,
            framing: if self.tty { Framing::Raw } else { Framing::Frames },
            detach: raw.then_some(&keys),
        };
        let path = format!("/containers/{}", self.id);
        let sized = self.tty && terminal::output_is_terminal();
        let ended = tokio::select! {
            ended = stream::carry(connection, session) => ended?,
            () = session::keep_size(client, &path), if sized => Ended::Closed,
            () = session::forward(signals, client, self.id) => return Err(Failure::silent(1)),
        };
        drop(mode);
        if ended == Ended::Detached {
            // COMPAT: only `attach` says so.
            return if start_query.is_some() {
                Ok(0)
            } else {
                Err(Failure::new("read escape sequence"))
            };
        }
        Ok(waiting.code().await)
    }
}

async fn start(cli: &Cli, matches: &Matches) -> Outcome {
    let client = cli.client()?;
    let checkpoint = query(&[
        ("checkpoint", matches.text("checkpoint")),
        ("checkpoint-dir", matches.text("checkpoint-dir")),
    ]);
    let (attached, interactive) = (matches.on("attach"), matches.on("interactive"));
    if (attached || interactive) && matches.words.len() > 1 {
        return Err(Failure::new("you cannot start and attach multiple containers at once"));
    }
    if !attached && !interactive {
        return start_each(cli, client, matches, &checkpoint).await;
    }
    let name = encoded(matches.word(0));
    let state = client.get(format!("/containers/{name}/json")).await?;
    let tty = state["Config"]["Tty"].as_bool().unwrap_or(false);
    let open = state["Config"]["OpenStdin"].as_bool().unwrap_or(false);
    let streams = Streams { input: interactive && open, output: true, error: true };
    let id = state["Id"].as_str().unwrap_or(&name).to_owned();
    let connected = Connected { cli, matches, id: &id, tty, streams };
    connected.carry(Some(&checkpoint)).await
}

async fn start_each(cli: &Cli, client: &Client, matches: &Matches, query: &str) -> Outcome {
    let mut failed: Vec<&str> = Vec::new();
    for name in &matches.words {
        match client.post(format!("/containers/{}/start{query}", encoded(name)), Json::Null).await {
            Ok(_) => cli.line(name)?,
            Err(error) => {
                cli.complain(&error.to_string());
                failed.push(name);
            }
        }
    }
    match failed.is_empty() {
        true => Ok(0),
        false => {
            Err(Failure::new(format!("Error: failed to start containers: {}", failed.join(", "))))
        }
    }
}

//! `run`: create, connect, start, and end as the container does.

use rorqual_client::{Client, Connection, Method, Request};
use serde_json::{Value as Json, json};

use super::create::{self, CREATE_FLAGS, RUN_FLAGS, Streams};
use super::session::{self, Signals};
use super::task;
use crate::cli::Cli;
use crate::failure::{Failure, Outcome};
use crate::flag::{Args, Command, Completes, Matches};
use crate::output::text::{encoded, query};
use crate::stream::{self, Ended, Framing, Session};
use crate::terminal::{self, RawMode};

/// `run`
pub(super) static RUN: Command = Command {
    name: "run",
    paths: &["container run", "run"],
    usage: "[OPTIONS] IMAGE [COMMAND] [ARG...]",
    about: "Create and run a new container from an image",
    flags: &[CREATE_FLAGS, RUN_FLAGS],
    args: Args::AtLeast(1),
    stops_at_word: true,
    run: task!(run),
    completes: Completes::Images,
    ..Command::EMPTY
};

async fn run(cli: &Cli, matches: &Matches) -> Outcome {
    let detached = matches.on("detach");
    if detached && matches.given("attach") {
        return Err(Failure::new("conflicting options: cannot specify both --attach and --detach"));
    }
    let streams = match detached {
        true => Streams { input: false, output: false, error: false },
        false => Streams::of(matches)?,
    };
    let tty = matches.on("tty");
    if streams.input && tty && !terminal::input_is_terminal() {
        return Err(Failure::new("the input device is not a TTY"));
    }
    let ours = |failure: Failure| create::as_own_failure(matches, failure, 125);
    let keys = session::keys(cli, matches.text("detach-keys")).map_err(ours)?;
    let mut wanted = create::request(cli, matches).map_err(ours)?;
    attach_fields(&mut wanted.document, streams);
    if let (true, Some((rows, columns))) = (tty, terminal::size()) {
        wanted.document["HostConfig"]["ConsoleSize"] = json!([rows, columns]);
    }
    let id = create::new_container(cli, matches, wanted).await.map_err(|failure| {
        let code = session::start_failure_code(&failure.text);
        create::as_own_failure(matches, failure, code)
    })?;
    let client = cli.client()?;
    if detached {
        // COMPAT: told before the start, so that who asked knows what is there when that fails.
        cli.line(&id)?;
        start(client, matches, &id).await?;
        return Ok(0);
    }
    let foreground = Foreground { cli, matches, client, id: &id, streams, tty, keys: &keys };
    foreground.run().await
}

/// `--detach` leaves no stream connected.
fn attach_fields(document: &mut Json, streams: Streams) {
    document["AttachStdin"] = streams.input.into();
    document["AttachStdout"] = streams.output.into();
    document["AttachStderr"] = streams.error.into();
    let open = document["OpenStdin"].as_bool().unwrap_or(false);
    document["StdinOnce"] = (open && streams.input).into();
}

async fn start(client: &Client, matches: &Matches, id: &str) -> Result<(), Failure> {
    match client.post(format!("/containers/{id}/start"), Json::Null).await {
        Ok(_) => Ok(()),
        Err(error) => {
            let text = error.to_string();
            let code = session::start_failure_code(&text);
            Err(create::as_own_failure(matches, Failure::new(text), code))
        }
    }
}

/// Connects to a container's streams.
pub(super) async fn attach(
    client: &Client,
    id: &str,
    streams: Streams,
    keys: &str,
) -> Result<(Connection, Option<String>), Failure> {
    let on = |on: bool| if on { "1" } else { "" };
    let query = query(&[
        ("detachKeys", keys),
        ("stderr", on(streams.error)),
        ("stdin", on(streams.input)),
        ("stdout", on(streams.output)),
        ("stream", "1"),
    ]);
    let path = format!("/containers/{}/attach{query}", encoded(id));
    Ok(client.hijack(Request::new(Method::POST, path)).await?)
}

struct Foreground<'a> {
    cli: &'a Cli,
    matches: &'a Matches,
    client: &'a Client,
    id: &'a str,
    streams: Streams,
    tty: bool,
    keys: &'a [u8],
}

impl Foreground<'_> {
    async fn run(&self) -> Outcome {
        let ours = |failure: Failure| create::as_own_failure(self.matches, failure, 125);
        let (client, streams) = (self.client, self.streams);
        let keys = session::keys_query(self.cli, self.matches.text("detach-keys"));
        // COMPAT: with a terminal the container's own line discipline makes the signals.
        let signals = (self.matches.on("sig-proxy") && !self.tty).then(Signals::catch);
        let condition = if self.matches.on("rm") { "removed" } else { "next-exit" };
        // ORDER: both must be in place before the start, or output and the end would be missed.
        let (attached, waiting) = tokio::join!(
            attach(client, self.id, streams, &keys),
            session::wait_for(client, self.id, condition)
        );
        let (connection, _) = attached.map_err(ours)?;
        let waiting = waiting.map_err(ours)?;
        let raw = streams.input && self.tty;
        let _mode = if raw { RawMode::enter() } else { None };
        let session = Session {
            input: streams.input,
            output: streams.output || streams.error,
            framing: if self.tty { Framing::Raw } else { Framing::Frames },
            detach: (raw && terminal::input_is_terminal()).then_some(self.keys),
        };
        let io = stream::carry(connection, session);
        let rest = async {
            if let Err(failure) = start(client, self.matches, self.id).await {
                if condition == "removed" {
                    waiting.code().await;
                }
                return Err(failure);
            }
            Ok(waiting)
        };
        tokio::select! {
            ended = self.until_end(io, rest) => ended,
            () = session::forward(signals, client, self.id) => Err(Failure::silent(1)),
        }
    }

    /// Drives streams, start and resizing until the container ends or the user leaves.
    async fn until_end(
        &self,
        io: impl Future<Output = Result<Ended, Failure>>,
        start: impl Future<Output = Result<session::Waiting, Failure>>,
    ) -> Outcome {
        tokio::pin!(io);
        tokio::pin!(start);
        let mut ended = None;
        let path = format!("/containers/{}", self.id);
        let waiting = loop {
            tokio::select! {
                started = &mut start => break started?,
                result = &mut io, if ended.is_none() => ended = Some(result),
            }
        };
        let sized = self.tty && terminal::output_is_terminal();
        let end = async {
            let ended = match ended {
                Some(ended) => ended,
                None => io.await,
            };
            if let Ended::Detached = ended? {
                return Ok(0);
            }
            Ok(waiting.code().await)
        };
        tokio::select! {
            code = end => code,
            () = session::keep_size(self.client, &path), if sized => Err(Failure::silent(1)),
        }
    }
}

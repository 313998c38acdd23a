//! `load`: images from an archive.

use std::io::IsTerminal as _;

use futures_util::StreamExt as _;
use rorqual_client::{Body, Method, Request};
use tokio_util::io::ReaderStream;

use crate::cli::Cli;
use crate::command::task;
use crate::failure::{Failure, Outcome, open_failure};
use crate::flag::{Args, Command, Flag, Kind, Matches};
use crate::output::text::query;
use crate::progress::{self, Show};
use crate::terminal;

/// `load`
pub(in crate::command) static LOAD: Command = Command {
    name: "load",
    paths: &["image load", "load"],
    usage: "[OPTIONS]",
    about: "Load an image from a tar archive or STDIN",
    flags: &[&[
        Flag::new("input", Kind::Text("string"), "Read this file instead of stdin").short('i'),
        Flag::new(
            "platform",
            Kind::Text("string"),
            "Load this platform's variant only (os[/arch[/variant]])",
        ),
        Flag::new("quiet", Kind::Bool, "Don't show progress").short('q'),
    ]],
    args: Args::None,
    run: task!(load),
    ..Command::EMPTY
};

async fn load(cli: &Cli, matches: &Matches) -> Outcome {
    let body = input(matches.text("input")).await?;
    let quiet = matches.on("quiet") || !terminal::output_is_terminal();
    let platform = platform_document(matches.text("platform"))?;
    let query = query(&[("platform", &platform), ("quiet", if quiet { "1" } else { "0" })]);
    let request = Request::new(Method::POST, format!("/images/load{query}")).with(body);
    let answer = cli.client()?.send(request).await?;
    if answer.header("content-type").is_some_and(|media| media.starts_with("application/json")) {
        progress::show(answer, Show::Output).await?;
    } else {
        cli.print(&String::from_utf8_lossy(&answer.bytes().await?))?;
    }
    Ok(0)
}

/// Opens a file, or standard input where none is named.
async fn input(path: &str) -> Result<Body, Failure> {
    const MEDIA: &str = "application/x-tar";
    if path.is_empty() {
        if std::io::stdin().is_terminal() {
            return Err(Failure::new("requested load from stdin, but stdin is empty"));
        }
        let stream = ReaderStream::with_capacity(tokio::io::stdin(), 64 << 10);
        return Ok(Body::Stream(Box::new(stream.boxed()), MEDIA));
    }
    let file = tokio::fs::File::open(path).await.map_err(|error| open_failure(path, &error))?;
    let stream = ReaderStream::with_capacity(file, 256 << 10);
    Ok(Body::Stream(Box::new(stream.boxed()), MEDIA))
}

/// `linux/arm64` → the JSON document the API wants.
pub(in crate::command) fn platform_document(text: &str) -> Result<String, Failure> {
    if text.is_empty() {
        return Ok(String::new());
    }
    let platform: rorqual_core::Platform = text
        .parse()
        .map_err(|error| Failure::new(format!("invalid platform: {error}")))?;
    let mut document = serde_json::json!({ "architecture": platform.architecture, "os": platform.os });
    if !platform.variant.is_empty() {
        document["variant"] = platform.variant.into();
    }
    Ok(document.to_string())
}

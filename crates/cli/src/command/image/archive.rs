//! `load`, `save` and `import`: images from and to archives.

use std::io::IsTerminal as _;

use futures_util::StreamExt as _;
use rorqual_client::{Body, Method, Request};
use tokio_util::io::ReaderStream;

use crate::cli::Cli;
use crate::command::{facts, task};
use crate::failure::{Failure, Outcome, open_failure};
use crate::flag::{Args, Command, Completes, Flag, Kind, Matches};
use crate::output::text::{encoded, query};
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

/// `save`
pub(in crate::command) static SAVE: Command = Command {
    name: "save",
    paths: &["image save", "save"],
    usage: "[OPTIONS] IMAGE [IMAGE...]",
    about: "Write one or more images to a tar archive (stdout unless told otherwise)",
    flags: &[&[
        Flag::new("output", Kind::Text("string"), "Write to this file instead of stdout")
            .short('o'),
        Flag::new(
            "platform",
            Kind::Text("string"),
            "Save this platform's variant only (os[/arch[/variant]])",
        ),
    ]],
    args: Args::AtLeast(1),
    run: task!(save),
    completes: Completes::Images,
    ..Command::EMPTY
};

/// `import`
pub(in crate::command) static IMPORT: Command = Command {
    name: "import",
    paths: &["image import", "import"],
    usage: "[OPTIONS] file|URL|- [REPOSITORY[:TAG]]",
    about: "Make an image of the files in a tarball",
    flags: &[&[
        Flag::new("change", Kind::List("list"), "Apply a Dockerfile instruction to the image")
            .short('c'),
        Flag::new("message", Kind::Text("string"), "What the image is").short('m'),
        Flag::new("platform", Kind::Text("string"), "Platform of the files"),
    ]],
    args: Args::AtLeast(1),
    run: task!(import),
    ..Command::EMPTY
};

async fn save(cli: &Cli, matches: &Matches) -> Outcome {
    if matches.text("output").is_empty() && terminal::output_is_terminal() {
        return Err(Failure::new(
            "cowardly refusing to save to a terminal. Use the -o flag or redirect",
        ));
    }
    let platform = platform_document(matches.text("platform"))?;
    let names: Vec<String> =
        matches.words.iter().map(|name| format!("names={}", encoded(name))).collect();
    let mut path = format!("/images/get?{}", names.join("&"));
    if !platform.is_empty() {
        path.push_str(&format!("&platform={}", encoded(&platform)));
    }
    facts::download(cli, path, matches.text("output"), "failed to save image").await
}

async fn import(cli: &Cli, matches: &Matches) -> Outcome {
    let (source, name) = (matches.word(0), matches.word(1));
    if !name.is_empty() {
        super::check_reference(name)?;
    }
    let is_url = source.starts_with("http://") || source.starts_with("https://");
    let body = match source {
        "-" => input("").await?,
        _ if is_url => Body::Empty,
        path => input(path).await?,
    };
    let (repository, tag) = super::split_tag(name);
    let mut query = query(&[
        ("fromSrc", if is_url { source } else { "-" }),
        ("message", matches.text("message")),
        ("platform", matches.text("platform")),
        ("repo", repository),
        ("tag", tag),
    ]);
    for change in matches.list("change") {
        query.push_str(&format!("&changes={}", encoded(change)));
    }
    let request = Request::new(Method::POST, format!("/images/create{query}")).with(body);
    let answer = cli.client()?.send(request).await?;
    progress::show(answer, Show::Output).await?;
    Ok(0)
}

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
    input_as(path, "application/x-tar").await
}

/// Opens a file, or standard input where none is named, to be sent as something.
pub(in crate::command) async fn input_as(path: &str, media: &'static str) -> Result<Body, Failure> {
    if path.is_empty() {
        if std::io::stdin().is_terminal() {
            return Err(Failure::new("requested load from stdin, but stdin is empty"));
        }
        let stream = ReaderStream::with_capacity(tokio::io::stdin(), 64 << 10);
        return Ok(Body::Stream(Box::new(stream.boxed()), media));
    }
    let file = tokio::fs::File::open(path).await.map_err(|error| open_failure(path, &error))?;
    let stream = ReaderStream::with_capacity(file, 256 << 10);
    Ok(Body::Stream(Box::new(stream.boxed()), media))
}

/// `linux/arm64` → the JSON document the API wants.
pub(in crate::command) fn platform_document(text: &str) -> Result<String, Failure> {
    if text.is_empty() {
        return Ok(String::new());
    }
    let platform: rorqual_core::Platform =
        text.parse().map_err(|error| Failure::new(format!("invalid platform: {error}")))?;
    let mut document =
        serde_json::json!({ "architecture": platform.architecture, "os": platform.os });
    if !platform.variant.is_empty() {
        document["variant"] = platform.variant.into();
    }
    Ok(document.to_string())
}

//! Whole volumes: snapshot, clone, export, import. Beyond Docker's commands.

use rorqual_client::{Body, Method, Request};
use serde_json::{Value as Json, json};

use super::object;
use crate::cli::Cli;
use crate::command::image::archive::input_as;
use crate::command::{facts, task};
use crate::failure::{Failure, Outcome};
use crate::flag::{Args, Command, Completes, Flag, Kind, Matches};
use crate::output::text::{encoded, query};
use crate::progress::{self, Show};
use crate::terminal;

const MEDIA: &str = "application/vnd.rorqual.volume";

const COPY_FLAGS: &[Flag] = &[
    Flag::new("freeze", Kind::Bool, "Pause the containers that use the volume meanwhile"),
    Flag::new("label", Kind::List("list"), "Set a label, instead of those of the volume"),
    Flag::new("quiet", Kind::Bool, "Print only the name").short('q'),
];

pub(super) static SNAPSHOT: Command = Command {
    name: "snapshot",
    usage: "[OPTIONS] VOLUME [NAME]",
    about: "Make a volume that shows another one as it is now",
    flags: &[COPY_FLAGS],
    args: Args::Between(1, 2),
    run: task!(snapshot),
    completes: Completes::Volumes,
    ..Command::EMPTY
};

pub(super) static CLONE: Command = Command {
    name: "clone",
    usage: "[OPTIONS] VOLUME NAME",
    about: "Make a copy of a volume",
    flags: &[COPY_FLAGS],
    args: Args::Exactly(2),
    run: task!(clone),
    completes: Completes::Volumes,
    ..Command::EMPTY
};

pub(super) static EXPORT: Command = Command {
    name: "export",
    usage: "[OPTIONS] VOLUME",
    about: "Write a volume as an archive",
    flags: &[&[
        Flag::new(
            "have",
            Kind::Text("file"),
            "Leave out the chunks listed in a file (see \"chunks\")",
        ),
        Flag::new("output", Kind::Text("file"), "Write to a file, instead of STDOUT").short('o'),
        Flag::new(
            "since",
            Kind::List("volume"),
            "Leave out what a volume has that the receiver has, too",
        ),
    ]],
    args: Args::Exactly(1),
    run: task!(export),
    completes: Completes::Volumes,
    ..Command::EMPTY
};

pub(super) static IMPORT: Command = Command {
    name: "import",
    usage: "[OPTIONS] NAME [FILE|-]",
    about: "Make a volume of an archive",
    flags: &[&[
        Flag::new("base", Kind::Text("volume"), "The volume that has what the archive leaves out"),
        Flag::new("label", Kind::List("list"), "Set a label, instead of those in the archive"),
    ]],
    args: Args::Between(1, 2),
    run: task!(import),
    ..Command::EMPTY
};

pub(super) static CHUNKS: Command = Command {
    name: "chunks",
    usage: "VOLUME",
    about: "List the digests of a volume's chunks",
    args: Args::Exactly(1),
    run: task!(chunks),
    completes: Completes::Volumes,
    ..Command::EMPTY
};

async fn snapshot(cli: &Cli, matches: &Matches) -> Outcome {
    copy(cli, matches, "snapshot").await
}

async fn clone(cli: &Cli, matches: &Matches) -> Outcome {
    copy(cli, matches, "clone").await
}

async fn copy(cli: &Cli, matches: &Matches, verb: &str) -> Outcome {
    let mut document = json!({ "Name": matches.word(1), "Freeze": matches.on("freeze") });
    if !matches.list("label").is_empty() {
        document["Labels"] = object(matches.list("label"));
    }
    let path = format!("/rorqual/volumes/{}/{verb}", encoded(matches.word(0)));
    let request = Request::new(Method::POST, path).with(Body::from(document));
    let answer = cli.client()?.send(request).await?;
    let show = if matches.on("quiet") { Show::Nothing } else { Show::Error };
    let made = progress::last_aux(answer, show).await?;
    cli.line(made["Name"].as_str().unwrap_or_default())?;
    Ok(0)
}

async fn export(cli: &Cli, matches: &Matches) -> Outcome {
    let output = matches.text("output");
    if output.is_empty() && terminal::output_is_terminal() {
        return Err(Failure::new(
            "cowardly refusing to save to a terminal. Use the -o flag or redirect",
        ));
    }
    let since: Vec<String> =
        matches.list("since").iter().map(|volume| format!("since={}", encoded(volume))).collect();
    let mut path = format!("/rorqual/volumes/{}/export", encoded(matches.word(0)));
    if !since.is_empty() {
        path.push_str(&format!("?{}", since.join("&")));
    }
    let mut request = Request::new(Method::POST, path);
    if !matches.text("have").is_empty() {
        request = request.with(input_as(matches.text("have"), "text/plain").await?);
    }
    facts::download_of(cli, request, output, "failed to export the volume").await
}

async fn import(cli: &Cli, matches: &Matches) -> Outcome {
    let file = match matches.word(1) {
        "-" => "",
        file => file,
    };
    let labels = match matches.list("label") {
        [] => String::new(),
        pairs => object(pairs).to_string(),
    };
    let query =
        query(&[("base", matches.text("base")), ("labels", &labels), ("name", matches.word(0))]);
    let request = Request::new(Method::POST, format!("/rorqual/volumes/import{query}"));
    let request = request.with(input_as(file, MEDIA).await?);
    let made: Json = cli.client()?.send(request).await?.json().await?;
    cli.line(made["Name"].as_str().unwrap_or_default())?;
    Ok(0)
}

async fn chunks(cli: &Cli, matches: &Matches) -> Outcome {
    let path = format!("/rorqual/volumes/{}/chunks", encoded(matches.word(0)));
    let answer = cli.client()?.send(Request::new(Method::GET, path)).await?;
    cli.print(&String::from_utf8_lossy(&answer.bytes().await?))?;
    Ok(0)
}

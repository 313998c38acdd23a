//! `rmi`, `tag`, `history`, `prune`, `pull`, `push`.

use rorqual_client::{Method, Request};
use rorqual_core::units;
use serde_json::Value as Json;

use crate::cli::Cli;
use crate::command::lifecycle::prune_filters;
use crate::command::task;
use crate::failure::{Failure, Outcome, joined};
use crate::flag::{Args, Command, Completes, Flag, Kind, Matches};
use crate::output::Listing;
use crate::output::text::{ago, ellipsis, encoded, local_time_exact, query, short_id};
use crate::progress::{self, Show};
use crate::template::{Record, Value};

const IMAGE: Command = Command { completes: Completes::Images, ..Command::EMPTY };

const PLATFORM: Flag = Flag::new(
    "platform",
    Kind::Text("string"),
    "Take this platform's variant (os[/arch[/variant]])",
);

const TRUST: Flag =
    Flag::new("disable-content-trust", Kind::Bool, "Skip verification of the image")
        .default("true")
        .hidden();

const RM: Command = Command {
    name: "rm",
    aliases: &["remove"],
    paths: &["image rm", "image remove", "rmi"],
    usage: "[OPTIONS] IMAGE [IMAGE...]",
    about: "Remove one or more images",
    flags: &[&[
        Flag::new("force", Kind::Bool, "Remove it even if a container uses it").short('f'),
        Flag::new("no-prune", Kind::Bool, "Keep parents that have no name"),
        Flag::new("platform", Kind::Commas("strings"), "Remove this platform's variant only"),
    ]],
    args: Args::AtLeast(1),
    run: task!(remove),
    ..IMAGE
};

/// `image rm`
pub(in crate::command) static REMOVE: Command = RM;

/// `rmi`
pub(in crate::command) static RMI: Command = Command { name: "rmi", aliases: &[], ..RM };

/// `tag`
pub(in crate::command) static TAG: Command = Command {
    name: "tag",
    paths: &["image tag", "tag"],
    usage: "SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]",
    about: "Give an image one more name",
    args: Args::Exactly(2),
    run: task!(tag),
    ..IMAGE
};

/// `history`
pub(in crate::command) static HISTORY: Command = Command {
    name: "history",
    paths: &["image history", "history"],
    usage: "[OPTIONS] IMAGE",
    about: "Show how an image was made",
    flags: &[&[
        Flag::new(
            "format",
            Kind::Text("string"),
            "Form of the output:\n'table', 'table TEMPLATE', 'json' or a Go template",
        ),
        Flag::new("human", Kind::Bool, "Write sizes and dates for people")
            .short('H')
            .default("true"),
        Flag::new("no-trunc", Kind::Bool, "Don't shorten"),
        PLATFORM,
        Flag::new("quiet", Kind::Bool, "Show only IDs").short('q'),
    ]],
    args: Args::Exactly(1),
    run: task!(history),
    ..IMAGE
};

/// `image prune`
pub(in crate::command) static PRUNE: Command = Command {
    name: "prune",
    usage: "[OPTIONS]",
    about: "Remove unused images",
    flags: &[&[
        Flag::new(
            "all",
            Kind::Bool,
            "Remove all images no container uses, not only those without a name",
        )
        .short('a'),
        Flag::new(
            "filter",
            Kind::List("filter"),
            "Remove only what fits (e.g. \"until=<timestamp>\")",
        ),
        Flag::new("force", Kind::Bool, "Don't ask").short('f'),
    ]],
    args: Args::None,
    run: task!(prune),
    ..Command::EMPTY
};

/// `pull`
pub(in crate::command) static PULL: Command = Command {
    name: "pull",
    paths: &["image pull", "pull"],
    usage: "[OPTIONS] NAME[:TAG|@DIGEST]",
    about: "Fetch an image from a registry",
    flags: &[&[
        Flag::new("all-tags", Kind::Bool, "Fetch all tags of the repository").short('a'),
        TRUST,
        PLATFORM,
        Flag::new("quiet", Kind::Bool, "Don't show progress").short('q'),
    ]],
    args: Args::Exactly(1),
    run: task!(pull),
    ..IMAGE
};

/// `push`
pub(in crate::command) static PUSH: Command = Command {
    name: "push",
    paths: &["image push", "push"],
    usage: "[OPTIONS] NAME[:TAG]",
    about: "Upload an image to a registry",
    flags: &[&[
        Flag::new("all-tags", Kind::Bool, "Upload all tags of the repository").short('a'),
        TRUST,
        PLATFORM,
        Flag::new("quiet", Kind::Bool, "Don't show progress").short('q'),
    ]],
    args: Args::Exactly(1),
    run: task!(push),
    ..IMAGE
};

async fn remove(cli: &Cli, matches: &Matches) -> Outcome {
    let on = |flag| if matches.on(flag) { "1" } else { "" };
    let mut query = query(&[("force", on("force")), ("noprune", on("no-prune"))]);
    for platform in matches.list("platform") {
        let document = super::platform_document(platform)?;
        let sign = if query.is_empty() { '?' } else { '&' };
        query.push_str(&format!("{sign}platforms={}", encoded(&document)));
    }
    let client = cli.client()?;
    let (mut errors, mut fatal) = (Vec::new(), false);
    for name in &matches.words {
        match client.delete(format!("/images/{}{query}", encoded(name))).await {
            Ok(answer) => cli.print(&deleted(&answer))?,
            Err(error) => {
                fatal |= !error.is_not_found();
                errors.push(error.to_string());
            }
        }
    }
    // COMPAT: with --force, images that are not there are said but no failure.
    if !errors.is_empty() && matches.on("force") && !fatal {
        cli.complain(&errors.join("\n"));
        return Ok(0);
    }
    joined(&errors)
}

/// Lines on what a removal took away.
fn deleted(answer: &Json) -> String {
    let mut out = String::new();
    for one in answer.as_array().into_iter().flatten() {
        if let Some(id) = one["Deleted"].as_str().filter(|id| !id.is_empty()) {
            out.push_str(&format!("Deleted: {id}\n"));
        } else if let Some(name) = one["Untagged"].as_str() {
            out.push_str(&format!("Untagged: {name}\n"));
        }
    }
    out
}

async fn tag(cli: &Cli, matches: &Matches) -> Outcome {
    let (source, target) = (matches.word(0), matches.word(1));
    super::check_reference(target).map_err(|failure| {
        Failure::new(format!(
            "Error parsing reference: {target:?} is not a valid repository/tag: {}",
            failure.text
        ))
    })?;
    if target.contains('@') {
        // COMPAT: docker's text.
        return Err(Failure::new("refusing to create a tag with a digest reference"));
    }
    let (repository, tag) = super::split_tag(target);
    let tag = if tag.is_empty() { "latest" } else { tag };
    let query = query(&[("repo", repository), ("tag", tag)]);
    cli.post(format!("/images/{}/tag{query}", encoded(source)), Json::Null).await?;
    Ok(0)
}

const HISTORY_TABLE: &str = "{{.ID}}\t{{.CreatedSince}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}";
const HISTORY_PLAIN: &str = "{{.ID}}\t{{.CreatedAt}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}";

const HISTORY_HEADERS: &[(&str, &str)] = &[
    ("ID", "IMAGE"),
    ("CreatedSince", "CREATED"),
    ("CreatedAt", "CREATED AT"),
    ("CreatedBy", "CREATED BY"),
    ("Size", "SIZE"),
    ("Comment", "COMMENT"),
];

async fn history(cli: &Cli, matches: &Matches) -> Outcome {
    let platform = super::platform_document(matches.text("platform"))?;
    let path = format!(
        "/images/{}/history{}",
        encoded(matches.word(0)),
        query(&[("platform", &platform)])
    );
    let layers = cli.get(path).await?;
    let (whole, human) = (matches.on("no-trunc"), matches.on("human"));
    let row = |layer: &Json| {
        let text = |key: &str| layer[key].as_str().unwrap_or_default();
        let created = layer["Created"].as_i64().unwrap_or(0);
        let by = text("CreatedBy").replace('\t', " ");
        let size = layer["Size"].as_i64().unwrap_or(0);
        let date = local_time_exact(i128::from(created) * 1_000_000_000)
            .replace(".000000000", "")
            .replace("+00:00", "Z");
        let since = if created <= 0 { "N/A".to_owned() } else { ago(created) };
        let fields = vec![
            ("Comment", Value::from(text("Comment"))),
            ("CreatedAt", if created <= 0 { "N/A".to_owned() } else { date.clone() }.into()),
            ("CreatedBy", if whole { by } else { ellipsis(&by, 45) }.into()),
            ("CreatedSince", if human { since } else { date }.into()),
            ("ID", if whole { text("Id").to_owned() } else { short_id(text("Id")) }.into()),
            (
                "Size",
                if human { units::human_size_short(size.max(0) as u64) } else { size.to_string() }
                    .into(),
            ),
        ];
        Record::row("formatter.historyContext", fields)
    };
    let rows = layers.as_array().into_iter().flatten().map(row).collect();
    let format = if matches.on("quiet") { "{{.ID}}" } else { matches.text("format") };
    let table = if human { HISTORY_TABLE } else { HISTORY_PLAIN };
    Listing::new(table, HISTORY_HEADERS).show(cli, rows, format)?;
    Ok(0)
}

async fn prune(cli: &Cli, matches: &Matches) -> Outcome {
    let all = matches.on("all");
    let what = if all {
        "all images without at least one container associated to them"
    } else {
        "all dangling images"
    };
    let question = format!("WARNING! This will remove {what}.\nAre you sure you want to continue?");
    let filters = image_filters(cli, matches, all)?;
    if !matches.on("force") && !cli.confirm(&question)? {
        return Ok(0);
    }
    let answer =
        cli.post(format!("/images/prune{}", query(&[("filters", &filters)])), Json::Null).await?;
    cli.print(&pruned_lines(&answer))?;
    let space = answer["SpaceReclaimed"].as_u64().unwrap_or(0);
    cli.line(&format!("Total reclaimed space: {}", units::human_size(space)))?;
    Ok(0)
}

/// What a prune of images deleted.
pub(in crate::command) fn pruned_lines(answer: &Json) -> String {
    let lines = deleted(&answer["ImagesDeleted"]);
    let lines = lines.replace("Deleted: ", "deleted: ").replace("Untagged: ", "untagged: ");
    if lines.is_empty() { String::new() } else { format!("Deleted Images:\n{lines}\n") }
}

/// The filters of a prune of images, with `dangling` among them.
pub(in crate::command) fn image_filters(
    cli: &Cli,
    matches: &Matches,
    all: bool,
) -> Result<String, Failure> {
    let text = prune_filters(cli, matches)?;
    let mut document: Json = if text.is_empty() {
        serde_json::json!({})
    } else {
        serde_json::from_str(&text).unwrap_or_default()
    };
    document["dangling"] = serde_json::json!({ (if all { "false" } else { "true" }): true });
    Ok(document.to_string())
}

async fn pull(cli: &Cli, matches: &Matches) -> Outcome {
    let name = matches.word(0);
    super::check_reference(name)?;
    let (all, quiet) = (matches.on("all-tags"), matches.on("quiet"));
    let has_tag = !super::split_tag(name).1.is_empty();
    if all && has_tag {
        return Err(Failure::new("tag can't be used with --all-tags/-a"));
    }
    let full = if all { name.to_owned() } else { super::familiar_tagged(name) };
    if !all && !has_tag && !quiet {
        cli.line("Using default tag: latest")?;
    }
    let show = if quiet { Show::Nothing } else { Show::Output };
    super::fetch(cli, &full, matches.text("platform"), show).await?;
    cli.line(&super::canonical(&full))?;
    Ok(0)
}

async fn push(cli: &Cli, matches: &Matches) -> Outcome {
    let name = matches.word(0);
    super::check_reference(name)?;
    if name.contains('@') {
        // COMPAT: docker's text.
        return Err(Failure::new("cannot push a digest reference"));
    }
    let (repository, tag) = super::split_tag(name);
    if matches.on("all-tags") && !tag.is_empty() {
        return Err(Failure::new("tag can't be used with --all-tags/-a"));
    }
    let default = !matches.on("all-tags") && tag.is_empty();
    if default && !matches.on("quiet") {
        cli.line("Using default tag: latest")?;
    }
    let platform = super::platform_document(matches.text("platform"))?;
    let tag = if default { "latest" } else { tag };
    let query = query(&[("platform", &platform), ("tag", tag)]);
    let mut request =
        Request::new(Method::POST, format!("/images/{}/push{query}", encoded(repository)));
    request.headers.push(("x-registry-auth", "e30=".to_owned()));
    let answer = cli.client()?.send(request).await?;
    let show = if matches.on("quiet") { Show::Nothing } else { Show::Output };
    progress::show(answer, show).await?;
    if matches.on("quiet") {
        cli.line(&super::canonical(name))?;
    }
    Ok(0)
}

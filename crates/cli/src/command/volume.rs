//! Commands on volumes.

mod data;

use serde_json::{Value as Json, json};

use super::lifecycle::{prune_filters, pruned};
use super::{inspect, list, task};
use crate::cli::Cli;
use crate::failure::{Failure, Outcome, joined};
use crate::flag::{Args, Command, Completes, Flag, Kind, Matches};
use crate::output::text::{encoded, filters, query};
use crate::output::{Listing, chosen_format};
use crate::template::{Record, Value};

/// `volume`
pub(super) static GROUP: Command = Command {
    name: "volume",
    usage: "COMMAND",
    about: "Manage volumes",
    children: &[
        &data::CHUNKS,
        &data::CLONE,
        &CREATE,
        &data::EXPORT,
        &data::IMPORT,
        &inspect::VOLUME,
        &LS,
        &PRUNE,
        &RM,
        &data::SNAPSHOT,
        &UPDATE,
    ],
    ..Command::EMPTY
};

static CREATE: Command = Command {
    name: "create",
    usage: "[OPTIONS] [VOLUME]",
    about: "Create a volume",
    flags: &[&[
        Flag::new("driver", Kind::Text("string"), "Driver of the volume")
            .short('d')
            .default("local"),
        Flag::new("label", Kind::List("list"), "Set a label"),
        Flag::new("name", Kind::Text("string"), "Name of the volume").hidden(),
        Flag::new("opt", Kind::List("map"), "Option of the driver").short('o'),
    ]],
    args: Args::AtMost(1),
    run: task!(create),
    ..Command::EMPTY
};

static LS: Command = Command {
    name: "ls",
    aliases: &["list"],
    paths: &["volume ls", "volume list"],
    usage: "[OPTIONS]",
    about: "List volumes",
    flags: &[&[
        Flag::new("filter", Kind::List("filter"), "Show only what fits (e.g. \"dangling=true\")")
            .short('f'),
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

static PRUNE: Command = Command {
    name: "prune",
    usage: "[OPTIONS]",
    about: "Remove local volumes no container uses",
    flags: &[&[
        Flag::new("all", Kind::Bool, "Remove all of them, not only those without a name")
            .short('a'),
        Flag::new("filter", Kind::List("filter"), "Remove only what fits (e.g. \"label=<label>\")"),
        Flag::new("force", Kind::Bool, "Don't ask").short('f'),
    ]],
    args: Args::None,
    run: task!(prune),
    ..Command::EMPTY
};

static RM: Command = Command {
    name: "rm",
    aliases: &["remove"],
    paths: &["volume rm", "volume remove"],
    usage: "[OPTIONS] VOLUME [VOLUME...]",
    about: "Remove one or more volumes",
    flags: &[&[Flag::new("force", Kind::Bool, "Don't mind volumes that are not there").short('f')]],
    args: Args::AtLeast(1),
    run: task!(remove),
    completes: Completes::Volumes,
    ..Command::EMPTY
};

static UPDATE: Command = Command {
    name: "update",
    usage: "[OPTIONS] VOLUME",
    about: "Update a volume (cluster volumes only)",
    flags: &[&[Flag::new(
        "availability",
        Kind::Text("string"),
        "Cluster volume availability (\"active\", \"pause\", \"drain\")",
    )
    .default("active")]],
    args: Args::AtMost(1),
    run: task!(update),
    completes: Completes::Volumes,
    ..Command::EMPTY
};

async fn update(cli: &Cli, matches: &Matches) -> Outcome {
    let name = matches.word(0);
    let answer = cli.get(format!("/volumes/{}", encoded(name))).await?;
    // COMPAT: docker's text.
    if answer["ClusterVolume"].is_null() {
        return Err(Failure::new("can only update cluster volumes"));
    }
    let version = answer["ClusterVolume"]["Version"]["Index"].as_u64().unwrap_or_default();
    let mut spec = answer["ClusterVolume"]["Spec"].clone();
    spec["Availability"] = matches.text("availability").into();
    let path = format!("/volumes/{}?version={version}", encoded(name));
    let request = rorqual_client::Request::new(rorqual_client::Method::PUT, path);
    let request = request.with(rorqual_client::Body::from(json!({ "Spec": spec })));
    cli.client()?.send(request).await?;
    Ok(0)
}

/// `key=value` pairs as an object.
pub(super) fn object(pairs: &[String]) -> Json {
    let pair = |pair: &String| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (key.to_owned(), value.into())
    };
    Json::Object(pairs.iter().map(pair).collect())
}

async fn create(cli: &Cli, matches: &Matches) -> Outcome {
    let flag = matches.text("name");
    if !flag.is_empty() && !matches.words.is_empty() {
        return Err(Failure::new(
            "conflicting options: cannot specify a volume-name through both --name and as a positional arg",
        ));
    }
    let name = if flag.is_empty() { matches.word(0) } else { flag };
    let document = json!({
        "Driver": matches.text("driver"),
        "DriverOpts": object(matches.list("opt")),
        "Labels": object(matches.list("label")),
        "Name": name,
    });
    let answer = cli.post("/volumes/create", document).await?;
    cli.line(answer["Name"].as_str().unwrap_or_default())?;
    Ok(0)
}

const HEADERS: &[(&str, &str)] = &[
    ("Driver", "DRIVER"),
    ("Scope", "SCOPE"),
    ("Availability", "AVAILABILITY"),
    ("Mountpoint", "MOUNTPOINT"),
    ("Labels", "LABELS"),
    ("Links", "LINKS"),
    ("Name", "VOLUME NAME"),
    ("Group", "GROUP"),
    ("Size", "SIZE"),
    ("Status", "STATUS"),
];

/// Volumes in `system df -v`.
pub(super) const USAGE: Listing = Listing::new("{{.Name}}\t{{.Links}}\t{{.Size}}", HEADERS);

/// Makes a row of a volume.
pub(super) fn row(volume: &Json) -> Record {
    let text = |key: &str| Value::from(volume[key].as_str().unwrap_or_default());
    let usage = &volume["UsageData"];
    let links =
        usage["RefCount"].as_i64().map_or_else(|| "N/A".to_owned(), |count| count.to_string());
    let size = usage["Size"].as_i64().filter(|size| *size >= 0);
    let size = size.map_or_else(
        || "N/A".to_owned(),
        |size| rorqual_core::units::human_size_short(size as u64),
    );
    let fields = vec![
        ("Availability", Value::from("N/A")),
        ("Driver", text("Driver")),
        ("Group", "N/A".into()),
        ("Labels", list::labels(&volume["Labels"]).into()),
        ("Links", links.into()),
        ("Mountpoint", text("Mountpoint")),
        ("Name", text("Name")),
        ("Scope", text("Scope")),
        ("Size", size.into()),
        ("Status", "N/A".into()),
    ];
    Record::row("formatter.volumeContext", fields).with_labels(&volume["Labels"])
}

async fn ls(cli: &Cli, matches: &Matches) -> Outcome {
    let filters = filters(matches.list("filter")).map_err(Failure::new)?;
    let answer = cli.get(format!("/volumes{}", query(&[("filters", &filters)]))).await?;
    let mut volumes: Vec<&Json> = answer["Volumes"].as_array().into_iter().flatten().collect();
    volumes.sort_by_key(|volume| natural(volume["Name"].as_str().unwrap_or_default()));
    let quiet = matches.on("quiet");
    let mut format = chosen_format(cli, matches.text("format"), "volumesFormat", quiet);
    if quiet && matches.text("format").is_empty() {
        format = "{{.Name}}".to_owned();
    }
    let listing = Listing {
        raw: "name: {{.Name}}\\ndriver: {{.Driver}}\\n",
        ..Listing::new("{{.Driver}}\t{{.Name}}", HEADERS)
    };
    listing.show(cli, volumes.into_iter().map(row).collect(), &format)?;
    Ok(0)
}

/// A key that sorts `v2` before `v10`.
pub(super) fn natural(name: &str) -> Vec<(String, u64)> {
    let mut parts = Vec::new();
    let mut rest = name;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let (text, tail) = rest.split_at(digits);
        let end = tail.find(|c: char| !c.is_ascii_digit()).unwrap_or(tail.len());
        let (number, tail) = tail.split_at(end);
        parts.push((text.to_owned(), number.parse().unwrap_or(u64::MAX)));
        rest = tail;
    }
    parts
}

async fn prune(cli: &Cli, matches: &Matches) -> Outcome {
    let all = matches.on("all");
    let what = if all { "all local volumes" } else { "anonymous local volumes" };
    let question = format!(
        "WARNING! This will remove {what} not used by at least one container.\nAre you sure you want to continue?"
    );
    let text = prune_filters(cli, matches)?;
    let mut document: Json =
        if text.is_empty() { json!({}) } else { serde_json::from_str(&text).unwrap_or_default() };
    if all {
        if document.get("all").is_some() {
            return Err(Failure::new(
                "conflicting options: cannot specify both --all and --filter all=1",
            ));
        }
        document["all"] = json!({ "true": true });
    }
    if !matches.on("force") && !cli.confirm(&question)? {
        return Ok(0);
    }
    let filters = if document.as_object().is_some_and(serde_json::Map::is_empty) {
        String::new()
    } else {
        document.to_string()
    };
    let answer =
        cli.post(format!("/volumes/prune{}", query(&[("filters", &filters)])), Json::Null).await?;
    let (text, space) = pruned(&answer, "VolumesDeleted", "Deleted Volumes:");
    cli.print(&text)?;
    cli.line(&format!("Total reclaimed space: {}", rorqual_core::units::human_size(space)))?;
    Ok(0)
}

async fn remove(cli: &Cli, matches: &Matches) -> Outcome {
    let client = cli.client()?;
    let query = query(&[("force", if matches.on("force") { "1" } else { "" })]);
    let mut errors = Vec::new();
    for name in &matches.words {
        match client.delete(format!("/volumes/{}{query}", encoded(name))).await {
            Ok(_) => cli.line(name)?,
            Err(error) => errors.push(error.to_string()),
        }
    }
    joined(&errors)
}

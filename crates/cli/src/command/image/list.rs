//! `images`: the images in the daemon's store.

use rorqual_core::units;
use serde_json::Value as Json;

use crate::cli::Cli;
use crate::command::task;
use crate::failure::{Failure, Outcome};
use crate::flag::{Args, Command, Completes, Flag, Kind, Matches};
use crate::output::text::{ago, filters, local_time, query, short_id};
use crate::output::{Listing, chosen_format};
use crate::template::{Record, Value};

/// `images`
pub(in crate::command) static IMAGES: Command = Command { name: "images", aliases: &[], ..LS };

/// `image ls`
pub(in crate::command) static LIST: Command = LS;

const LS: Command = Command {
    name: "ls",
    aliases: &["list"],
    paths: &["image ls", "image list", "images"],
    usage: "[OPTIONS] [REPOSITORY[:TAG]]",
    about: "List images",
    flags: &[&[
        Flag::new("all", Kind::Bool, "Show intermediate images, too").short('a'),
        Flag::new("digests", Kind::Bool, "Show digests"),
        Flag::new("filter", Kind::List("filter"), "Show only what fits").short('f'),
        Flag::new(
            "format",
            Kind::Text("string"),
            "Form of the output:\n'table', 'table TEMPLATE', 'json' or a Go template",
        ),
        Flag::new("no-trunc", Kind::Bool, "Don't shorten"),
        Flag::new("quiet", Kind::Bool, "Show only IDs").short('q'),
        Flag::new("tree", Kind::Bool, "Show the platforms of each image below it"),
    ]],
    args: Args::AtMost(1),
    run: task!(images),
    completes: Completes::Images,
    ..Command::EMPTY
};

const TABLE: &str = "{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}";
const DIGESTS: &str =
    "{{.Repository}}\t{{.Tag}}\t{{.Digest}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}";

const HEADERS: &[(&str, &str)] = &[
    ("ID", "IMAGE ID"),
    ("Repository", "REPOSITORY"),
    ("Tag", "TAG"),
    ("Digest", "DIGEST"),
    ("CreatedSince", "CREATED"),
    ("CreatedAt", "CREATED AT"),
    ("Size", "SIZE"),
    ("Containers", "CONTAINERS"),
    ("VirtualSize", "SIZE"),
    ("SharedSize", "SHARED SIZE"),
    ("UniqueSize", "UNIQUE SIZE"),
];

const RAW: &str = "repository: {{.Repository}}\\ntag: {{.Tag}}\\nimage_id: {{.ID}}\\ncreated_at: {{.CreatedAt}}\\nvirtual_size: {{.Size}}\\n";

async fn images(cli: &Cli, matches: &Matches) -> Outcome {
    if matches.on("tree") {
        return tree(cli, matches).await;
    }
    let quiet = matches.on("quiet");
    let mut given = matches.list("filter").to_vec();
    if !matches.words.is_empty() {
        given.push(format!("reference={}", matches.word(0)));
    }
    let filters = filters(&given).map_err(Failure::new)?;
    let all = if matches.on("all") { "1" } else { "" };
    let digests = matches.on("digests");
    let images =
        cli.get(format!("/images/json{}", query(&[("all", all), ("filters", &filters)]))).await?;
    let whole = matches.on("no-trunc");
    let mut format = chosen_format(cli, matches.text("format"), "imagesFormat", quiet);
    if quiet {
        format = "{{.ID}}".to_owned();
    }
    let with_digest = digests || format.contains(".Digest");
    let rows = images
        .as_array()
        .into_iter()
        .flatten()
        .flat_map(|image| rows(image, whole, with_digest, quiet))
        .collect();
    let table = if digests { DIGESTS } else { TABLE };
    let listing = Listing { raw: RAW, ..Listing::new(table, HEADERS) };
    listing.show(cli, rows, &format)?;
    Ok(0)
}

/// One row for each name of an image.
fn rows(image: &Json, whole: bool, digests: bool, quiet: bool) -> Vec<Record> {
    let texts = |key: &str| -> Vec<&str> {
        image[key].as_array().into_iter().flatten().filter_map(Json::as_str).collect()
    };
    let named = |name: &&&str| !name.starts_with("<none>");
    let tags: Vec<&str> = texts("RepoTags").iter().filter(named).copied().collect();
    let names: Vec<&str> = texts("RepoDigests").iter().filter(named).copied().collect();
    let mut triples: Vec<(String, String, String)> = Vec::new();
    let digest_of = |repository: &str| {
        let found = names.iter().find_map(|name| {
            let (own, digest) = name.split_once('@')?;
            (own == repository).then(|| digest.to_owned())
        });
        found.unwrap_or_else(|| "<none>".to_owned())
    };
    for tag in &tags {
        let (repository, tag) = super::split_tag(tag);
        triples.push((repository.to_owned(), tag.to_owned(), digest_of(repository)));
    }
    let mut bare: Vec<&str> = Vec::new();
    for name in &names {
        let repository = name.split('@').next().unwrap_or(name);
        let is_tagged = tags.iter().any(|tag| super::split_tag(tag).0 == repository);
        if !is_tagged && (digests || !bare.contains(&repository)) {
            bare.push(repository);
            let digest = name.split_once('@').map_or("<none>", |(_, digest)| digest);
            triples.push((repository.to_owned(), "<none>".to_owned(), digest.to_owned()));
        }
    }
    if triples.is_empty() {
        let none = || "<none>".to_owned();
        triples.push((none(), none(), none()));
    }
    // One line per image is enough where only its id is shown.
    if quiet && tags.is_empty() {
        triples.truncate(1);
    }
    triples.into_iter().map(|names| row(image, names, whole)).collect()
}

fn row(image: &Json, names: (String, String, String), whole: bool) -> Record {
    let number = |key: &str| image[key].as_i64().unwrap_or(-1);
    let size = |bytes: i64| match bytes {
        -1 => "N/A".to_owned(),
        bytes => units::human_size_short(bytes.max(0) as u64),
    };
    let total = number("Size").max(0);
    let shared = number("SharedSize");
    let unique = if shared == -1 { -1 } else { total - shared };
    let id = image["Id"].as_str().unwrap_or_default();
    let created = image["Created"].as_i64().unwrap_or(0);
    let containers = number("Containers");
    let fields = vec![
        (
            "Containers",
            Value::from(if containers < 0 { "N/A".to_owned() } else { containers.to_string() }),
        ),
        ("CreatedAt", local_time(created).into()),
        ("CreatedSince", if created <= 0 { "N/A".to_owned() } else { ago(created) }.into()),
        ("Digest", names.2.into()),
        ("ID", if whole { id.to_owned() } else { short_id(id) }.into()),
        ("Repository", names.0.into()),
        ("SharedSize", size(shared).into()),
        ("Size", size(total).into()),
        ("Tag", names.1.into()),
        (
            "UniqueSize",
            if unique < 0 { "N/A".to_owned() } else { units::human_size(unique as u64) }.into(),
        ),
        ("VirtualSize", units::human_size(total as u64).into()),
    ];
    Record::row("formatter.imageContext", fields)
}

/// Images in `system df -v`.
pub(in crate::command) const USAGE: Listing = Listing::new(
    "{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}\t{{.SharedSize}}\t{{.UniqueSize}}\t{{.Containers}}",
    HEADERS,
);

/// Makes the rows of `system df -v`.
pub(in crate::command) fn usage_rows(image: &Json) -> Vec<Record> {
    rows(image, false, false, false)
}

/// `--tree`: images with the platforms their manifests are for.
async fn tree(cli: &Cli, matches: &Matches) -> Outcome {
    for flag in ["quiet", "no-trunc", "digests"] {
        if matches.on(flag) {
            return Err(Failure::new(format!("--{flag} is not yet supported with --tree")));
        }
    }
    if !matches.text("format").is_empty() {
        return Err(Failure::new("--format is not yet supported with --tree"));
    }
    let mut given = matches.list("filter").to_vec();
    if !matches.words.is_empty() {
        given.push(format!("reference={}", matches.word(0)));
    }
    let filters = filters(&given).map_err(Failure::new)?;
    let all = if matches.on("all") { "1" } else { "" };
    let query = query(&[("all", all), ("filters", &filters), ("manifests", "1")]);
    let images = cli.get(format!("/images/json{query}")).await?;
    let mut out = String::from("IMAGE\tID\tDISK USAGE\tCONTENT SIZE\n");
    let size = |bytes: &Json| units::human_size_short(bytes.as_i64().unwrap_or(0).max(0) as u64);
    for image in images.as_array().into_iter().flatten() {
        let tags = image["RepoTags"].as_array().into_iter().flatten().filter_map(Json::as_str);
        let names: Vec<&str> = tags.collect();
        let name = if names.is_empty() { "<untagged>".to_owned() } else { names.join(" ") };
        let id = short_id(image["Id"].as_str().unwrap_or_default());
        let total = size(&image["Size"]);
        out.push_str(&format!("{name}\t{id}\t{total}\t{total}\n"));
        let manifests = image["Manifests"].as_array().into_iter().flatten();
        let shown: Vec<&Json> = manifests.filter(|one| one["Kind"] == "image").collect();
        for (index, one) in shown.iter().enumerate() {
            let edge = if index + 1 == shown.len() { "└─" } else { "├─" };
            let platform = &one["ImageData"]["Platform"];
            let mut name = format!(
                "{}/{}",
                platform["os"].as_str().unwrap_or("unknown"),
                platform["architecture"].as_str().unwrap_or("unknown")
            );
            if let Some(variant) = platform["variant"].as_str().filter(|v| !v.is_empty()) {
                name = format!("{name}/{variant}");
            }
            let id = short_id(one["ID"].as_str().unwrap_or_default());
            let (total, content) = (size(&one["Size"]["Total"]), size(&one["Size"]["Content"]));
            out.push_str(&format!("{edge} {name}\t{id}\t{total}\t{content}\n"));
        }
    }
    cli.print(&crate::output::aligned(&out, 10, 3))?;
    Ok(0)
}

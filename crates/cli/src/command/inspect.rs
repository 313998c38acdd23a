//! `inspect`: everything the daemon knows of an object, as JSON or through a template.

use rorqual_client::Error;
use serde_json::Value as Json;

use super::task;
use crate::cli::Cli;
use crate::failure::{Failure, Outcome};
use crate::flag::{Args, Command, Completes, Flag, Kind, Matches};
use crate::output::text::{encoded, query};
use crate::output::unescaped;
use crate::template::{MissingKey, Mode, Template};

const FORMAT: Flag =
    Flag::new("format", Kind::Text("string"), "Form of the output: 'json' or a Go template")
        .short('f');

/// `inspect`
pub(super) static INSPECT: Command = Command {
    name: "inspect",
    usage: "[OPTIONS] NAME|ID [NAME|ID...]",
    about: "Show all about containers, images, networks or volumes",
    flags: &[&[
        FORMAT,
        Flag::new("size", Kind::Bool, "Show the sizes of containers").short('s'),
        Flag::new("type", Kind::Text("string"), "Look for objects of this type only"),
    ]],
    args: Args::AtLeast(1),
    run: task!(any),
    completes: Completes::Containers,
    ..Command::EMPTY
};

/// `container inspect`
pub(super) static CONTAINER: Command = Command {
    name: "inspect",
    usage: "[OPTIONS] CONTAINER [CONTAINER...]",
    about: "Show all about one or more containers",
    flags: &[&[FORMAT, Flag::new("size", Kind::Bool, "Show sizes").short('s')]],
    args: Args::AtLeast(1),
    run: task!(containers),
    completes: Completes::Containers,
    ..Command::EMPTY
};

/// `image inspect`
pub(super) static IMAGE: Command = Command {
    name: "inspect",
    usage: "[OPTIONS] IMAGE [IMAGE...]",
    about: "Show all about one or more images",
    flags: &[&[
        FORMAT,
        Flag::new(
            "platform",
            Kind::Text("string"),
            "Show this platform's variant (os[/arch[/variant]])",
        ),
    ]],
    args: Args::AtLeast(1),
    run: task!(images),
    completes: Completes::Images,
    ..Command::EMPTY
};

/// `network inspect`
pub(super) static NETWORK: Command = Command {
    name: "inspect",
    usage: "[OPTIONS] NETWORK [NETWORK...]",
    about: "Show all about one or more networks",
    flags: &[&[
        FORMAT,
        Flag::new("verbose", Kind::Bool, "Show more, for finding faults").short('v'),
    ]],
    args: Args::AtLeast(1),
    run: task!(networks),
    completes: Completes::Networks,
    ..Command::EMPTY
};

/// `volume inspect`
pub(super) static VOLUME: Command = Command {
    name: "inspect",
    usage: "[OPTIONS] VOLUME [VOLUME...]",
    about: "Show all about one or more volumes",
    flags: &[&[FORMAT]],
    args: Args::AtLeast(1),
    run: task!(volumes),
    completes: Completes::Volumes,
    ..Command::EMPTY
};

async fn containers(cli: &Cli, matches: &Matches) -> Outcome {
    let query = query(&[("size", if matches.on("size") { "1" } else { "" })]);
    one_type(cli, matches, "containers", &format!("/json{query}")).await
}

async fn images(cli: &Cli, matches: &Matches) -> Outcome {
    let platform = super::image::platform_document(matches.text("platform"))?;
    one_type(cli, matches, "images", &format!("/json{}", query(&[("platform", &platform)]))).await
}

async fn networks(cli: &Cli, matches: &Matches) -> Outcome {
    let query = query(&[("verbose", if matches.on("verbose") { "true" } else { "" })]);
    one_type(cli, matches, "networks", &query).await
}

async fn volumes(cli: &Cli, matches: &Matches) -> Outcome {
    one_type(cli, matches, "volumes", "").await
}

async fn one_type(cli: &Cli, matches: &Matches, kind: &str, tail: &str) -> Outcome {
    let client = cli.client()?;
    let (mut found, mut errors) = (Vec::new(), Vec::new());
    for name in &matches.words {
        match client.get(format!("/{kind}/{}{tail}", encoded(name))).await {
            Ok(document) => found.push(document),
            Err(error) => errors.push(error.to_string()),
        }
    }
    show(cli, matches.text("format"), &found, &errors)
}

/// Types in the order in which `inspect` looks for a name.
const TYPES: [(&str, &str, &str); 8] = [
    ("container", "containers", "/json"),
    ("image", "images", "/json"),
    ("network", "networks", ""),
    ("volume", "volumes", ""),
    ("service", "services", ""),
    ("task", "tasks", ""),
    ("node", "nodes", ""),
    ("plugin", "plugins", "/json"),
];

async fn any(cli: &Cli, matches: &Matches) -> Outcome {
    let kind = matches.text("type");
    let known =
        TYPES.iter().any(|(name, ..)| *name == kind) || matches!(kind, "" | "secret" | "config");
    if !known {
        return Err(Failure::new(format!(
            "unknown type: {kind:?}: must be one of \"config\", \"container\", \"image\", \"network\", \"node\", \"plugin\", \"secret\", \"service\", \"task\", \"volume\""
        )));
    }
    if matches.given("type") && kind.is_empty() {
        return Err(Failure::new(
            "type is empty: must be one of \"config\", \"container\", \"image\", \"network\", \"node\", \"plugin\", \"secret\", \"service\", \"task\", \"volume\"",
        ));
    }
    // A daemon that is not there is one error, not one for each name.
    cli.client()?;
    let (mut found, mut errors) = (Vec::new(), Vec::new());
    for name in &matches.words {
        match find(cli, (name, kind), matches.on("size")).await {
            Ok(document) => found.push(document),
            Err(text) => errors.push(text),
        }
    }
    show(cli, matches.text("format"), &found, &errors)
}

async fn find(cli: &Cli, (name, kind): (&str, &str), size: bool) -> Result<Json, String> {
    let client = cli.client().map_err(|failure| failure.text)?;
    if let "secret" | "config" = kind {
        let answer = client.get(format!("/{kind}s/{}", encoded(name))).await;
        return answer.map_err(|error| error.to_string());
    }
    for (own, path, tail) in TYPES {
        if !kind.is_empty() && kind != own {
            continue;
        }
        let query = if own == "container" && size { "?size=1" } else { "" };
        match client.get(format!("/{path}/{}{tail}{query}", encoded(name))).await {
            Ok(document) => {
                if size && own != "container" {
                    cli.complain(&format!("WARNING: --size ignored for {own}"));
                }
                return Ok(document);
            }
            Err(error) if kind.is_empty() && is_elsewhere(&error) => {}
            Err(error) => return Err(error.to_string()),
        }
    }
    Err(format!("Error: No such object: {name}"))
}

/// Tells whether an error only says that this type has no such object.
fn is_elsewhere(error: &Error) -> bool {
    let status = match error {
        Error::Daemon { status, .. } => *status,
        _ => return false,
    };
    let text = error.daemon_message().unwrap_or_default();
    matches!(status, 404 | 501)
        || text.contains("This node is not a swarm manager")
        || status == 400 && text.contains("invalid reference format")
        || status == 503
}

/// Prints what was found, in order; names what was not.
pub(super) fn show(cli: &Cli, format: &str, found: &[Json], errors: &[String]) -> Outcome {
    cli.print(&rendered(cli, format, found)?)?;
    if errors.is_empty() {
        return Ok(0);
    }
    Err(Failure::new(errors.join("\n")))
}

fn rendered(cli: &Cli, format: &str, found: &[Json]) -> Result<String, Failure> {
    match format {
        "" => Ok(format!("{}\n", indented(&Json::Array(found.to_vec())))),
        "json" => Ok(format!("{}\n", Json::Array(found.to_vec()))),
        format => {
            let mut template = Template::parse("", &unescaped(format)).map_err(|error| {
                Failure { code: 64, text: format!("template parsing error: {error}") }
            })?;
            template.missing = MissingKey::Error;
            let mut out = String::new();
            for one in found {
                let text = template.render(&super::typed::value(one), Mode::Rows);
                match text {
                    Ok(text) => out.push_str(&text),
                    Err(error) => {
                        // COMPAT: docker ends the line it could not write.
                        cli.print(&format!("{out}\n"))?;
                        return Err(Failure::new(format!("template parsing error: {error}")));
                    }
                }
                out.push('\n');
            }
            Ok(if found.is_empty() { "\n".to_owned() } else { out })
        }
    }
}

/// JSON with four blanks per level.
pub(super) fn indented(document: &Json) -> String {
    let mut bytes = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, formatter);
    match serde::Serialize::serialize(document, &mut serializer) {
        Ok(()) => String::from_utf8(bytes).unwrap_or_default(),
        Err(_) => document.to_string(),
    }
}

//! `ps`: the containers.

use rorqual_core::units;
use serde_json::Value as Json;

use super::task;
use crate::cli::Cli;
use crate::failure::{Failure, Outcome};
use crate::flag::{Args, Command, Flag, Kind, Matches};
use crate::output::text::{ago, ellipsis, filters, local_time, query, short_id};
use crate::output::{Listing, chosen_format};
use crate::template::{Mode, Record, Template, Value};

const FORMAT_HELP: &str = "Form of the output:\n'table', 'table TEMPLATE', 'json' or a Go template";

/// `ps`
pub(super) static PS: Command = Command { name: "ps", ..LS };

/// `container ls`
pub(super) static LIST: Command = LS;

const LS: Command = Command {
    name: "ls",
    aliases: &["ps", "list"],
    paths: &["container ls", "container list", "container ps", "ps"],
    usage: "[OPTIONS]",
    about: "List containers",
    flags: &[&[
        Flag::new("all", Kind::Bool, "Show containers that do not run, too").short('a'),
        Flag::new("filter", Kind::List("filter"), "Show only what fits").short('f'),
        Flag::new("format", Kind::Text("string"), FORMAT_HELP),
        Flag::new("last", Kind::Int, "Show the last containers that were created, in any state")
            .short('n')
            .default("-1"),
        Flag::new("latest", Kind::Bool, "Show the last container that was created, in any state")
            .short('l'),
        Flag::new("no-trunc", Kind::Bool, "Don't shorten"),
        Flag::new("quiet", Kind::Bool, "Show only IDs").short('q'),
        Flag::new("size", Kind::Bool, "Show how much disk is used").short('s'),
    ]],
    args: Args::None,
    run: task!(ps),
    ..Command::EMPTY
};

const TABLE: &str =
    "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}";

const HEADERS: &[(&str, &str)] = &[
    ("ID", "CONTAINER ID"),
    ("Names", "NAMES"),
    ("Image", "IMAGE"),
    ("Command", "COMMAND"),
    ("CreatedAt", "CREATED AT"),
    ("RunningFor", "CREATED"),
    ("Platform", "PLATFORM"),
    ("Ports", "PORTS"),
    ("State", "STATE"),
    ("Status", "STATUS"),
    ("HealthStatus", "HEALTH STATUS"),
    ("Size", "SIZE"),
    ("Labels", "LABELS"),
    ("Mounts", "MOUNTS"),
    ("LocalVolumes", "LOCAL VOLUMES"),
    ("Networks", "NETWORKS"),
];

const RAW: &str = "container_id: {{.ID}}\\nimage: {{.Image}}\\ncommand: {{.Command}}\\ncreated_at: {{.CreatedAt}}\\nstate: {{- pad .State 1 0}}\\nstatus: {{- pad .Status 1 0}}\\nnames: {{.Names}}\\nlabels: {{- pad .Labels 1 0}}\\nports: {{- pad .Ports 1 0}}\\n";

async fn ps(cli: &Cli, matches: &Matches) -> Outcome {
    let quiet = matches.on("quiet");
    let mut format = chosen_format(cli, matches.text("format"), "psFormat", quiet);
    if quiet && !matches.text("format").is_empty() {
        cli.complain("WARNING: Ignoring custom format, because both --format and --quiet are set.");
    }
    if quiet {
        format = "{{.ID}}".to_owned();
    }
    let size = matches.on("size") || needs_size(&format)?;
    let limit = if matches.on("latest") { 1 } else { matches.int("last") };
    let filters = filters(matches.list("filter")).map_err(Failure::new)?;
    let limit = if limit > 0 { limit.to_string() } else { String::new() };
    let on = |on: bool| if on { "1" } else { "" };
    let query = query(&[
        ("all", on(matches.on("all"))),
        ("filters", &filters),
        ("limit", &limit),
        ("size", on(size && !quiet)),
    ]);
    let containers = cli.get(format!("/containers/json{query}")).await?;
    let whole = matches.on("no-trunc");
    let rows = containers.as_array().into_iter().flatten().map(|one| row(one, whole)).collect();
    let sized = matches.on("size") && !quiet;
    if sized && matches!(format.as_str(), "table" | "") {
        format = format!("table {TABLE}\t{{{{.Size}}}}");
    }
    let raw = if sized {
        "container_id: {{.ID}}\\nimage: {{.Image}}\\ncommand: {{.Command}}\\ncreated_at: {{.CreatedAt}}\\nstate: {{- pad .State 1 0}}\\nstatus: {{- pad .Status 1 0}}\\nnames: {{.Names}}\\nlabels: {{- pad .Labels 1 0}}\\nports: {{- pad .Ports 1 0}}\\nsize: {{.Size}}\\n"
    } else {
        RAW
    };
    let listing = Listing { raw, ..Listing::new(TABLE, HEADERS) };
    listing.show(cli, rows, &format)?;
    Ok(0)
}

/// COMPAT: docker finds out by trying the template, which is also where its errors come from.
fn needs_size(format: &str) -> Result<bool, Failure> {
    if matches!(format, "table" | "json" | "raw" | "") {
        return Ok(false);
    }
    // COMPAT: of all lists this one alone is told so.
    let template = Template::parse("", format)
        .map_err(|error| Failure::new(format!("failed to parse template: {error}")))?;
    template
        .render(&row(&Json::Null, false).into(), Mode::Rows)
        .map_err(|error| Failure::new(format!("failed to execute template: {error}")))?;
    Ok(format.contains(".Size"))
}

fn row(one: &Json, whole: bool) -> Record {
    let text = |key: &str| one[key].as_str().unwrap_or_default();
    let names = names(one, whole);
    let id = if whole { text("Id").to_owned() } else { short_id(text("Id")) };
    let created = one["Created"].as_i64().unwrap_or(0);
    let command = if whole { text("Command").to_owned() } else { ellipsis(text("Command"), 20) };
    let mounts: Vec<String> = one["Mounts"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|mount| {
            let name = mount["Name"].as_str().filter(|name| !name.is_empty());
            let name = name.or_else(|| mount["Source"].as_str()).unwrap_or_default();
            if whole { name.to_owned() } else { ellipsis(name, 15) }
        })
        .collect();
    let is_local = |mount: &&Json| mount["Driver"] == "local";
    let local = one["Mounts"].as_array().into_iter().flatten().filter(is_local).count();
    let networks: Vec<&str> = one["NetworkSettings"]["Networks"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, _)| name.as_str())
        .collect();
    let fields = vec![
        ("Command", Value::from(go_quoted(&command))),
        ("CreatedAt", local_time(created).into()),
        ("HealthStatus", health(text("Status")).into()),
        ("ID", id.into()),
        ("Image", image(one, whole).into()),
        ("Labels", labels(&one["Labels"]).into()),
        ("LocalVolumes", local.to_string().into()),
        ("Mounts", mounts.join(",").into()),
        ("Names", names.into()),
        ("Networks", networks.join(",").into()),
        ("Platform", Value::Nil),
        ("Ports", ports(&one["Ports"]).into()),
        ("RunningFor", ago(created).into()),
        ("Size", size(one).into()),
        ("State", text("State").into()),
        ("Status", text("Status").into()),
    ];
    Record::row("formatter.ContainerContext", fields).with_labels(&one["Labels"])
}

/// Containers in `system df -v`.
pub(super) const USAGE: Listing = Listing::new(
    "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.LocalVolumes}}\t{{.Size}}\t{{.RunningFor}}\t{{.Status}}\t{{.Names}}",
    HEADERS,
);

/// Makes a row of `system df -v`: the size is the container's own.
pub(super) fn usage_row(one: &Json) -> Record {
    let mut own = one.clone();
    own["SizeRootFs"] = Json::Null;
    row(&own, false)
}

fn names(one: &Json, whole: bool) -> String {
    let all = one["Names"].as_array().into_iter().flatten().filter_map(Json::as_str);
    let bare = all.map(|name| name.strip_prefix('/').unwrap_or(name));
    // Names with a slash inside are links of other containers.
    let shown: Vec<&str> = bare.filter(|name| whole || !name.contains('/')).collect();
    shown.join(",")
}

fn image(one: &Json, whole: bool) -> String {
    let image = one["Image"].as_str().unwrap_or_default();
    if image.is_empty() {
        return "<no image>".to_owned();
    }
    if whole {
        return image.to_owned();
    }
    let id = one["ImageID"].as_str().unwrap_or_default();
    if short_id(id) == short_id(image) && !image.contains('/') {
        return short_id(image);
    }
    // A digest behind a name is left out, also one without its tag.
    image.split_once('@').map_or(image, |(name, _)| name).to_owned()
}

fn health(status: &str) -> &'static str {
    match status {
        status if status.ends_with("(health: starting)") => "starting",
        status if status.ends_with("(healthy)") => "healthy",
        status if status.ends_with("(unhealthy)") => "unhealthy",
        _ => "",
    }
}

fn size(one: &Json) -> String {
    let bytes = |key: &str| one[key].as_i64().unwrap_or(0).max(0) as u64;
    let own = units::human_size_short(bytes("SizeRw"));
    match bytes("SizeRootFs") {
        0 => own,
        all => format!("{own} (virtual {})", units::human_size_short(all)),
    }
}

/// `a=b,c=d`
pub(super) fn labels(labels: &Json) -> String {
    let pairs = labels.as_object().into_iter().flatten();
    let mut all: Vec<String> =
        pairs.map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default())).collect();
    all.sort();
    all.join(",")
}

/// A text in double quotes, as Go's `strconv.Quote`.
fn go_quoted(text: &str) -> String {
    let template = Template::parse("", "{{printf \"%q\" .}}");
    let quoted = template.and_then(|template| template.render(&Value::text(text), Mode::Rows));
    quoted.unwrap_or_else(|_| format!("{text:?}"))
}

/// One published or declared port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Port {
    inside: i64,
    ip: String,
    outside: i64,
    protocol: String,
}

/// `0.0.0.0:8080->80/tcp, 9000-9001/tcp`: runs of ports are drawn together.
pub(super) fn ports(ports: &Json) -> String {
    let mut all: Vec<Port> = ports
        .as_array()
        .into_iter()
        .flatten()
        .map(|port| Port {
            inside: port["PrivatePort"].as_i64().unwrap_or(0),
            ip: port["IP"].as_str().unwrap_or_default().to_owned(),
            outside: port["PublicPort"].as_i64().unwrap_or(0),
            protocol: port["Type"].as_str().unwrap_or_default().to_owned(),
        })
        .collect();
    all.sort_by(|a, b| {
        (a.inside, &a.ip, a.outside, &a.protocol).cmp(&(b.inside, &b.ip, b.outside, &b.protocol))
    });
    let mut runs: Vec<(Port, Port)> = Vec::new();
    let mut single = Vec::new();
    for port in all {
        // COMPAT: a port that is published at another number stands alone.
        if port.outside > 0 && port.outside != port.inside {
            let Port { inside, ip, outside, protocol } = &port;
            single.push(format!("{}->{inside}/{protocol}", address(ip, &outside.to_string())));
            continue;
        }
        let continued = runs.iter_mut().find(|(_, last)| {
            last.inside + 1 == port.inside
                && last.ip == port.ip
                && last.protocol == port.protocol
                && (last.outside > 0) == (port.outside > 0)
        });
        match continued {
            Some((_, last)) => *last = port,
            None => runs.push((port.clone(), port)),
        }
    }
    let mut shown: Vec<String> = runs.iter().map(|(first, last)| run(first, last)).collect();
    shown.append(&mut single);
    shown.join(", ")
}

fn address(ip: &str, port: &str) -> String {
    match ip {
        "" => port.to_owned(),
        ip if ip.contains(':') => format!("[{ip}]:{port}"),
        ip => format!("{ip}:{port}"),
    }
}

fn run(first: &Port, last: &Port) -> String {
    let numbers = match first.inside == last.inside {
        true => first.inside.to_string(),
        false => format!("{}-{}", first.inside, last.inside),
    };
    let protocol = &first.protocol;
    match first.outside {
        0 => format!("{numbers}/{protocol}"),
        _ => format!("{}->{numbers}/{protocol}", address(&first.ip, &numbers)),
    }
}

#[cfg(test)]
mod tests;

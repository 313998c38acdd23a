//! `system df`, `system prune`, `system dial-stdio`.

use std::rc::Rc;

use rorqual_client::dial;
use rorqual_core::units;
use serde_json::Value as Json;

use crate::cli::Cli;
use crate::command::lifecycle::{prune_filters, pruned};
use crate::command::{image, list, task, volume};
use crate::failure::{Failure, Outcome};
use crate::flag::{Args, Command, Flag, Kind, Matches};
use crate::output::Listing;
use crate::output::text::query;
use crate::template::{Record, Value};

/// `system df`
pub(in crate::command) static DF: Command = Command {
    name: "df",
    usage: "[OPTIONS]",
    about: "Show how much disk the daemon uses",
    flags: &[&[
        Flag::new(
            "format",
            Kind::Text("string"),
            "Form of the output:\n'table', 'table TEMPLATE', 'json' or a Go template",
        ),
        Flag::new("verbose", Kind::Bool, "Show each object").short('v'),
    ]],
    args: Args::None,
    run: task!(df),
    ..Command::EMPTY
};

/// `system prune`
pub(in crate::command) static PRUNE: Command = Command {
    name: "prune",
    usage: "[OPTIONS]",
    about: "Remove what is not used",
    flags: &[&[
        Flag::new("all", Kind::Bool, "Remove all unused images, not only those without a name")
            .short('a'),
        Flag::new(
            "filter",
            Kind::List("filter"),
            "Remove only what fits (e.g. \"label=<key>=<value>\")",
        ),
        Flag::new("force", Kind::Bool, "Don't ask").short('f'),
        Flag::new("volumes", Kind::Bool, "Remove anonymous volumes, too"),
    ]],
    args: Args::None,
    run: task!(prune),
    ..Command::EMPTY
};

/// `system dial-stdio`
pub(in crate::command) static DIAL: Command = Command {
    name: "dial-stdio",
    about: "Connect stdin and stdout with the daemon",
    args: Args::None,
    hidden: true,
    run: task!(dial_stdio),
    ..Command::EMPTY
};

const HEADERS: &[(&str, &str)] = &[
    ("Type", "TYPE"),
    ("TotalCount", "TOTAL"),
    ("Active", "ACTIVE"),
    ("Size", "SIZE"),
    ("Reclaimable", "RECLAIMABLE"),
];

/// What one kind of thing uses.
struct Use {
    kind: &'static str,
    total: usize,
    active: usize,
    size: i64,
    reclaimable: i64,
    share: bool,
}

impl Use {
    fn row(&self) -> Record {
        let size = |bytes: i64| units::human_size(bytes.max(0) as u64);
        let reclaimable = match self.size > 0 && self.share {
            true => format!("{} ({}%)", size(self.reclaimable), self.reclaimable * 100 / self.size),
            false => size(self.reclaimable),
        };
        let fields = vec![
            ("Active", Value::from(self.active.to_string())),
            ("Reclaimable", reclaimable.into()),
            ("Size", size(self.size).into()),
            ("TotalCount", self.total.to_string().into()),
            ("Type", self.kind.into()),
        ];
        Record::row("formatter.diskUsageContext", fields)
    }
}

fn items<'a>(usage: &'a Json, key: &str) -> Vec<&'a Json> {
    usage[key].as_array().into_iter().flatten().collect()
}

fn int(value: &Json) -> i64 {
    value.as_i64().unwrap_or(0)
}

fn uses(usage: &Json) -> [Use; 4] {
    let images = items(usage, "Images");
    let used: i64 = images
        .iter()
        .filter(|i| int(&i["Containers"]) > 0)
        .map(|i| int(&i["Size"]) - int(&i["SharedSize"]).max(0))
        .sum();
    let layers = int(&usage["LayersSize"]);
    let containers = items(usage, "Containers");
    let is_active =
        |one: &&&Json| matches!(one["State"].as_str(), Some("running" | "paused" | "restarting"));
    let container_size: i64 = containers.iter().map(|one| int(&one["SizeRw"])).sum();
    let idle: i64 =
        containers.iter().filter(|one| !is_active(one)).map(|one| int(&one["SizeRw"])).sum();
    let volumes = items(usage, "Volumes");
    let size = |one: &&Json| int(&one["UsageData"]["Size"]).max(0);
    let unused = |one: &&&Json| int(&one["UsageData"]["RefCount"]) == 0;
    let cache = items(usage, "BuildCache");
    let own = |one: &&&Json| one["Shared"] != true;
    [
        Use {
            kind: "Images",
            total: images.len(),
            active: images.iter().filter(|one| int(&one["Containers"]) > 0).count(),
            size: layers,
            reclaimable: layers - used,
            share: true,
        },
        Use {
            kind: "Containers",
            total: containers.len(),
            active: containers.iter().filter(is_active).count(),
            size: container_size,
            reclaimable: idle,
            share: true,
        },
        Use {
            kind: "Local Volumes",
            total: volumes.len(),
            active: volumes.iter().filter(|one| !unused(one)).count(),
            size: volumes.iter().map(size).sum(),
            reclaimable: volumes.iter().filter(unused).map(size).sum(),
            share: true,
        },
        Use {
            kind: "Build Cache",
            total: cache.len(),
            active: cache.iter().filter(|one| one["InUse"] == true).count(),
            size: cache.iter().filter(own).map(|one| int(&one["Size"])).sum(),
            reclaimable: cache
                .iter()
                .filter(own)
                .filter(|one| one["InUse"] != true)
                .map(|one| int(&one["Size"]))
                .sum(),
            share: false,
        },
    ]
}

async fn df(cli: &Cli, matches: &Matches) -> Outcome {
    let usage = cli.get("/system/df").await?;
    match (matches.on("verbose"), matches.text("format")) {
        (true, "" | "table") => return verbose(cli, &usage),
        (true, format) => return verbose_rows(cli, &usage, format),
        (false, _) => {}
    }
    let rows = uses(&usage).iter().map(Use::row).collect();
    let listing = Listing::new(
        "{{.Type}}\t{{.TotalCount}}\t{{.Active}}\t{{.Size}}\t{{.Reclaimable}}",
        HEADERS,
    );
    listing.show(cli, rows, matches.text("format"))?;
    Ok(0)
}

/// COMPAT: docker shows one name of each image here.
fn first_row(image: &Json) -> Option<Record> {
    image::usage_rows(image).into_iter().next()
}

/// All objects as one record with a list for each kind.
fn verbose_rows(cli: &Cli, usage: &Json, format: &str) -> Outcome {
    let images: Vec<_> = items(usage, "Images").into_iter().filter_map(first_row).collect();
    let containers: Vec<_> = items(usage, "Containers").into_iter().map(list::usage_row).collect();
    let volumes: Vec<_> = items(usage, "Volumes").into_iter().map(volume::row).collect();
    let cache: Vec<Value> = items(usage, "BuildCache").into_iter().map(Value::from).collect();
    let list =
        |rows: Vec<Record>| Value::List(Rc::new(rows.into_iter().map(Value::from).collect()));
    let all = vec![
        ("Images", list(images)),
        ("Containers", list(containers)),
        ("Volumes", list(volumes)),
        ("BuildCache", Value::List(Rc::new(cache))),
    ];
    let row = Record::row("formatter.diskUsageContext", all);
    Listing::new("", HEADERS).show(cli, vec![row], format)?;
    Ok(0)
}

fn verbose(cli: &Cli, usage: &Json) -> Outcome {
    cli.print("Images space usage:\n\n")?;
    let images = items(usage, "Images").into_iter().filter_map(first_row).collect();
    image::USAGE.show(cli, images, "")?;
    cli.print("\nContainers space usage:\n\n")?;
    let containers = items(usage, "Containers").into_iter().map(list::usage_row).collect();
    list::USAGE.show(cli, containers, "")?;
    cli.print("\nLocal Volumes space usage:\n\n")?;
    let volumes = items(usage, "Volumes").into_iter().map(volume::row).collect();
    volume::USAGE.show(cli, volumes, "")?;
    let cache: i64 = items(usage, "BuildCache").iter().map(|one| int(&one["Size"])).sum();
    let total = units::human_size_short(cache.max(0) as u64);
    cli.print(&format!("\nBuild cache usage: {total}\n\nCACHE ID   CACHE TYPE   SIZE      CREATED   LAST USED   USAGE     SHARED\n"))?;
    Ok(0)
}

async fn prune(cli: &Cli, matches: &Matches) -> Outcome {
    let (all, volumes) = (matches.on("all"), matches.on("volumes"));
    let until = matches.list("filter").iter().any(|filter| filter.starts_with("until="));
    if volumes && until {
        return Err(Failure::new(
            "ERROR: The \"until\" filter is not supported with \"--volumes\"",
        ));
    }
    if !matches.on("force") && !cli.confirm(&warning(matches))? {
        return Ok(0);
    }
    let filters = prune_filters(cli, matches)?;
    let plain = query(&[("filters", &filters)]);
    let image_query = query(&[("filters", &image::image_filters(cli, matches, all)?)]);
    let mut space = 0;
    let answer = cli.post(format!("/containers/prune{plain}"), Json::Null).await?;
    let (text, freed) = pruned(&answer, "ContainersDeleted", "Deleted Containers:");
    cli.print(&text)?;
    space += freed;
    let answer = cli.post(format!("/networks/prune{plain}"), Json::Null).await?;
    cli.print(&pruned(&answer, "NetworksDeleted", "Deleted Networks:").0)?;
    if volumes {
        let answer = cli.post(format!("/volumes/prune{plain}"), Json::Null).await?;
        let (text, freed) = pruned(&answer, "VolumesDeleted", "Deleted Volumes:");
        cli.print(&text)?;
        space += freed;
    }
    let answer = cli.post(format!("/images/prune{image_query}"), Json::Null).await?;
    cli.print(&image::pruned_lines(&answer))?;
    space += answer["SpaceReclaimed"].as_u64().unwrap_or(0);
    // A daemon without a builder has no cache to clear.
    let query = query(&[("all", if all { "1" } else { "" }), ("filters", &filters)]);
    match cli.client()?.post(format!("/build/prune{query}"), Json::Null).await {
        Ok(answer) => {
            cli.print(&pruned(&answer, "CachesDeleted", "Deleted build cache objects:").0)?;
            space += answer["SpaceReclaimed"].as_u64().unwrap_or(0);
        }
        Err(rorqual_client::Error::Daemon { status: 404 | 501, .. }) => {}
        Err(error) => return Err(error.into()),
    }
    cli.line(&format!("Total reclaimed space: {}", units::human_size(space)))?;
    Ok(0)
}

fn warning(matches: &Matches) -> String {
    let mut what =
        vec!["all stopped containers", "all networks not used by at least one container"];
    if matches.on("volumes") {
        what.push("all anonymous volumes not used by at least one container");
    }
    if matches.on("all") {
        what.extend([
            "all images without at least one container associated to them",
            "all build cache",
        ]);
    } else {
        what.extend(["all dangling images", "unused build cache"]);
    }
    let lines = what.iter().fold(String::new(), |all, line| all + "  - " + line + "\n");
    let mut text = format!("WARNING! This will remove:\n{lines}");
    if matches.given("filter") {
        text.push_str("\n  Items to be pruned will be filtered with:\n");
        for filter in matches.list("filter") {
            text.push_str(&format!("  - {filter}\n"));
        }
    }
    text.push_str("\nAre you sure you want to continue?");
    text
}

/// The far end of an `ssh://` connection.
async fn dial_stdio(cli: &Cli, _: &Matches) -> Outcome {
    let connection = dial(cli.client()?.host(), crate::cli::flag_tls(cli).as_ref()).await?;
    let (mut reader, mut writer) = tokio::io::split(connection);
    let (mut input, mut output) = (tokio::io::stdin(), tokio::io::stdout());
    let upstream = async {
        tokio::io::copy(&mut input, &mut writer).await?;
        tokio::io::AsyncWriteExt::shutdown(&mut writer).await
    };
    let downstream = async {
        tokio::io::copy(&mut reader, &mut output).await?;
        tokio::io::AsyncWriteExt::flush(&mut output).await
    };
    tokio::pin!(upstream, downstream);
    tokio::select! {
        // The daemon's side may still have something to say.
        sent = &mut upstream => { sent?; downstream.await?; }
        received = &mut downstream => received?,
    }
    Ok(0)
}

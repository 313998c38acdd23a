//! `builder`: the cache of builds, and builds that are over.

use rorqual_buildkit::{CacheRecord, PruneRequest};
use rorqual_core::units;

use super::{build, task};
use crate::cli::Cli;
use crate::failure::{Failure, Outcome};
use crate::flag::{Args, Command, Flag, Kind, Matches};
use crate::output::aligned;

/// `builder`
pub(super) static GROUP: Command = Command {
    name: "builder",
    usage: "COMMAND",
    about: "Manage builds",
    children: &[&build::BUILD, &USAGE, &HISTORY, &PRUNE],
    ..Command::EMPTY
};

/// `builder du`
static USAGE: Command = Command {
    name: "du",
    paths: &["builder du"],
    usage: "[OPTIONS]",
    about: "Show what the build cache holds",
    flags: &[&[
        Flag::new("filter", Kind::List("filter"), "Show only what matches (type=exec.cachemount)"),
        Flag::new("verbose", Kind::Bool, "Say all about each record"),
    ]],
    args: Args::None,
    run: task!(usage),
    ..Command::EMPTY
};

/// `builder history`
static HISTORY: Command = Command {
    name: "history",
    paths: &["builder history"],
    usage: "[OPTIONS]",
    about: "List builds that are over or going on",
    flags: &[&[Flag::new("quiet", Kind::Bool, "Show names only").short('q')]],
    args: Args::None,
    run: task!(history),
    ..Command::EMPTY
};

/// `builder prune`
static PRUNE: Command = Command {
    name: "prune",
    paths: &["builder prune"],
    usage: "[OPTIONS]",
    about: "Remove what the build cache holds",
    flags: &[&[
        Flag::new("all", Kind::Bool, "Also what images share").short('a'),
        Flag::new("filter", Kind::List("filter"), "Remove only what matches (until=24h)"),
        Flag::new("force", Kind::Bool, "Don't ask").short('f'),
        Flag::new("keep-storage", Kind::Bytes, "Keep this much").alias("reserved-space"),
        Flag::new("max-used-space", Kind::Bytes, "Go down to this much"),
        Flag::new("min-free-space", Kind::Bytes, "Until this much of the disk is free"),
        Flag::new("reserved-space", Kind::Bytes, "Keep this much in any case"),
        Flag::new("verbose", Kind::Bool, "Say all about each record"),
    ]],
    args: Args::None,
    run: task!(prune),
    ..Command::EMPTY
};

/// `type=x` → `type==x`, as the builder reads filters.
fn filters(matches: &Matches) -> Vec<String> {
    let spelled = |filter: &String| match filter.split_once('=') {
        Some((name, value)) if !value.starts_with('=') && !name.ends_with(['!', '~']) => {
            format!("{name}=={value}")
        }
        _ => filter.clone(),
    };
    matches.list("filter").iter().map(spelled).collect()
}

fn failed(failure: rorqual_buildkit::Failure) -> Failure {
    Failure::new(format!("ERROR: {}", failure.message))
}

async fn usage(cli: &Cli, matches: &Matches) -> Outcome {
    let builder = build::connect(cli.client()?).await?;
    let records = builder.usage(filters(matches)).await.map_err(failed)?;
    if matches.on("verbose") {
        for record in &records {
            cli.line(&details(record))?;
        }
    } else {
        cli.print(&table(&records))?;
    }
    let sum = |records: &mut dyn Iterator<Item = &CacheRecord>| {
        units::human_size(records.map(|record| record.size).sum())
    };
    let reclaimable = sum(&mut records.iter().filter(|record| !record.is_in_use));
    let shared = sum(&mut records.iter().filter(|record| record.is_shared));
    let private = sum(&mut records.iter().filter(|record| !record.is_shared));
    if records.iter().any(|record| record.is_shared) {
        cli.line(&format!("Shared:\t\t{shared}\nPrivate:\t{private}"))?;
    }
    let all = sum(&mut records.iter());
    cli.line(&format!("Reclaimable:\t{reclaimable}\nTotal:\t\t{all}"))?;
    Ok(0)
}

fn table(records: &[CacheRecord]) -> String {
    let ago = |time: Option<std::time::SystemTime>| {
        let since = time.and_then(|time| time.elapsed().ok());
        since
            .map_or_else(|| "-".to_owned(), |since| format!("{} ago", units::human_duration(since)))
    };
    let mut rows = vec![["ID", "RECLAIMABLE", "SIZE", "LAST ACCESSED"].map(str::to_owned).to_vec()];
    rows.extend(records.iter().map(|record| {
        let mark = if record.is_mutable { "*" } else { "" };
        vec![
            format!("{}{mark}", record.id),
            (!record.is_in_use).to_string(),
            units::human_size(record.size),
            ago(record.used),
        ]
    }));
    lines(&rows)
}

fn details(record: &CacheRecord) -> String {
    let flag = |is: bool| is.to_string();
    let parents = record.parents.join(", ");
    let size = units::human_size(record.size);
    let rows = [
        ("ID:", record.id.clone()),
        ("Parents:", parents),
        ("Mutable:", flag(record.is_mutable)),
        ("Reclaimable:", flag(!record.is_in_use)),
        ("Shared:", flag(record.is_shared)),
        ("Size:", size),
        ("Description:", record.description.clone()),
        ("Usage count:", record.uses.to_string()),
        ("Type:", record.kind.clone()),
    ];
    let shown = rows.into_iter().filter(|(_, value)| !value.is_empty());
    shown.fold(String::new(), |text, (name, value)| text + &format!("{name:<16}{value}\n"))
}

fn lines(rows: &[Vec<String>]) -> String {
    let text: String = rows.iter().map(|row| row.join("\t") + "\n").collect();
    aligned(&text, 0, 3)
}

async fn history(cli: &Cli, matches: &Matches) -> Outcome {
    let builder = build::connect(cli.client()?).await?;
    let mut builds = builder.history().await.map_err(failed)?;
    builds.reverse();
    if matches.on("quiet") {
        for build in &builds {
            cli.line(&build.id)?;
        }
        return Ok(0);
    }
    let mut rows =
        vec![["BUILD ID", "TARGET", "STATUS", "STEPS", "DURATION"].map(str::to_owned).to_vec()];
    rows.extend(builds.into_iter().map(|build| {
        let status = match (&build.completed, &build.error) {
            (None, _) => "Running",
            (Some(_), None) => "Completed",
            (Some(_), Some(error)) if error.contains("cancel") => "Canceled",
            (Some(_), Some(_)) => "Error",
        };
        let duration = match (build.created, build.completed) {
            (Some(created), Some(completed)) => {
                let took = completed.duration_since(created).unwrap_or_default();
                format!("{:.1}s", took.as_secs_f64())
            }
            _ => "-".to_owned(),
        };
        let (all, cached) = build.steps;
        let target = build.options.get("target").cloned().unwrap_or_default();
        vec![build.id, target, status.to_owned(), format!("{all} ({cached} cached)"), duration]
    }));
    cli.print(&lines(&rows))?;
    Ok(0)
}

async fn prune(cli: &Cli, matches: &Matches) -> Outcome {
    let question = if matches.on("all") {
        "WARNING! This will remove all build cache. Are you sure you want to continue?"
    } else {
        "WARNING! This will remove all dangling build cache. Are you sure you want to continue?"
    };
    if !matches.on("force") && !cli.confirm(question)? {
        return Ok(0);
    }
    let bytes = |name: &str| u64::try_from(matches.bytes(name)).unwrap_or_default();
    let (mut seconds, mut filters) = (0, filters(matches));
    filters.retain(|filter| match filter.strip_prefix("until==").map(units::parse_duration) {
        Some(Ok(until)) => {
            seconds = until.as_secs();
            false
        }
        _ => true,
    });
    let request = PruneRequest {
        filters,
        all: matches.on("all"),
        keep_seconds: seconds,
        reserved: bytes("reserved-space"),
        max_used: bytes("max-used-space"),
        min_free: bytes("min-free-space"),
    };
    let builder = build::connect(cli.client()?).await?;
    let removed = builder.prune(request).await.map_err(failed)?;
    if matches.on("verbose") {
        for record in &removed {
            cli.line(&details(record))?;
        }
    } else if !removed.is_empty() {
        cli.print(&table(&removed))?;
    }
    let size = removed.iter().map(|record| record.size).sum();
    cli.line(&format!("Total:\t{}", units::human_size(size)))?;
    Ok(0)
}

//! Commands that move containers from one state to another.

use serde_json::{Map, Value as Json, json};

use super::container::each_post;
use super::create::{cpus, restart_policy};
use super::task;
use crate::cli::Cli;
use crate::failure::{Failure, Outcome, joined};
use crate::flag::{Args, Command, Completes, Flag, Kind, Matches};
use crate::output::text::{encoded, filters, query};

const NAMES: Command = Command {
    usage: "CONTAINER [CONTAINER...]",
    args: Args::AtLeast(1),
    completes: Completes::Containers,
    ..Command::EMPTY
};

const STOP_FLAGS: &[Flag] = &[
    Flag::new("signal", Kind::Text("string"), "Signal that asks the process to end").short('s'),
    Flag::new("timeout", Kind::Int, "Seconds until the process is killed (-1 for never)")
        .short('t'),
    Flag::new("time", Kind::Int, "").alias("timeout").deprecated("use --timeout instead"),
];

/// `stop`
pub(super) static STOP: Command = Command {
    name: "stop",
    paths: &["container stop", "stop"],
    usage: "[OPTIONS] CONTAINER [CONTAINER...]",
    about: "Stop one or more running containers",
    flags: &[STOP_FLAGS],
    run: task!(stop),
    ..NAMES
};

/// `restart`
pub(super) static RESTART: Command = Command {
    name: "restart",
    paths: &["container restart", "restart"],
    usage: "[OPTIONS] CONTAINER [CONTAINER...]",
    about: "Restart one or more containers",
    flags: &[STOP_FLAGS],
    run: task!(restart),
    ..NAMES
};

/// `kill`
pub(super) static KILL: Command = Command {
    name: "kill",
    paths: &["container kill", "kill"],
    usage: "[OPTIONS] CONTAINER [CONTAINER...]",
    about: "Kill one or more running containers",
    flags: &[&[Flag::new("signal", Kind::Text("string"), "Signal to send").short('s')]],
    run: task!(kill),
    ..NAMES
};

/// `pause`
pub(super) static PAUSE: Command = Command {
    name: "pause",
    paths: &["container pause", "pause"],
    about: "Pause all processes within one or more containers",
    run: task!(pause),
    ..NAMES
};

/// `unpause`
pub(super) static UNPAUSE: Command = Command {
    name: "unpause",
    paths: &["container unpause", "unpause"],
    about: "Unpause all processes within one or more containers",
    run: task!(unpause),
    ..NAMES
};

/// `wait`
pub(super) static WAIT: Command = Command {
    name: "wait",
    paths: &["container wait", "wait"],
    about: "Wait until one or more containers stop, then print their exit codes",
    run: task!(wait),
    ..NAMES
};

/// `rename`
pub(super) static RENAME: Command = Command {
    name: "rename",
    paths: &["container rename", "rename"],
    usage: "CONTAINER NEW_NAME",
    about: "Rename a container",
    args: Args::Exactly(2),
    run: task!(rename),
    ..NAMES
};

/// `update`
pub(super) static UPDATE: Command = Command {
    name: "update",
    paths: &["container update", "update"],
    usage: "[OPTIONS] CONTAINER [CONTAINER...]",
    about: "Change limits and restart policy of one or more containers",
    flags: &[&[
        Flag::new(
            "blkio-weight",
            Kind::Uint16,
            "Relative weight of disk I/O: 10 to 1000, 0 for none",
        )
        .default("0"),
        Flag::new("cpu-period", Kind::Int, "Period of the CPU quota in microseconds"),
        Flag::new("cpu-quota", Kind::Int, "CPU time per period in microseconds"),
        Flag::new("cpu-rt-period", Kind::Int, "Period of the real-time quota in microseconds"),
        Flag::new("cpu-rt-runtime", Kind::Int, "Real-time CPU time per period in microseconds"),
        Flag::new("cpu-shares", Kind::Int, "Relative weight of CPU time").short('c'),
        Flag::new("cpus", Kind::Cpus, "How many CPUs may be used"),
        Flag::new("cpuset-cpus", Kind::Text("string"), "Which CPUs may be used (0-3, 0,1)"),
        Flag::new("cpuset-mems", Kind::Text("string"), "Which memory nodes may be used (0-3, 0,1)"),
        Flag::new("kernel-memory", Kind::Bytes, "Limit of kernel memory")
            .deprecated("and no longer supported by the kernel"),
        Flag::new("memory", Kind::Bytes, "Limit of memory").short('m').default("0"),
        Flag::new("memory-reservation", Kind::Bytes, "Soft limit of memory").default("0"),
        Flag::new(
            "memory-swap",
            Kind::SwapBytes,
            "Limit of memory and swap together: -1 for unlimited swap",
        )
        .default("0"),
        Flag::new("pids-limit", Kind::Int, "Limit of processes (-1 for none)").default("0"),
        Flag::new("restart", Kind::Text("string"), "When to restart the container after it exited"),
    ]],
    run: task!(update),
    ..NAMES
};

/// `container prune`
pub(super) static PRUNE: Command = Command {
    name: "prune",
    usage: "[OPTIONS]",
    about: "Remove all stopped containers",
    flags: &[&[
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

fn stop_query(matches: &Matches) -> String {
    let timeout = if matches.given("timeout") { matches.text("timeout") } else { "" };
    query(&[("signal", matches.text("signal")), ("t", timeout)])
}

/// Asks for all containers at once, as each may take its time; tells in the order they were named.
async fn all_at_once(cli: &Cli, matches: &Matches, action: &str) -> Outcome {
    let client = cli.client()?;
    client.version().await?;
    let asked = matches.words.iter().map(|name| async move {
        client.post(format!("/containers/{}/{action}", encoded(name)), Json::Null).await
    });
    let mut errors = Vec::new();
    for (name, answer) in matches.words.iter().zip(futures_util::future::join_all(asked).await) {
        match answer {
            Ok(_) => cli.line(name)?,
            Err(error) => errors.push(error.to_string()),
        }
    }
    joined(&errors)
}

async fn stop(cli: &Cli, matches: &Matches) -> Outcome {
    all_at_once(cli, matches, &format!("stop{}", stop_query(matches))).await
}

async fn restart(cli: &Cli, matches: &Matches) -> Outcome {
    each_post(cli, matches, &format!("restart{}", stop_query(matches))).await?;
    Ok(0)
}

async fn kill(cli: &Cli, matches: &Matches) -> Outcome {
    let query = query(&[("signal", matches.text("signal"))]);
    all_at_once(cli, matches, &format!("kill{query}")).await
}

async fn pause(cli: &Cli, matches: &Matches) -> Outcome {
    all_at_once(cli, matches, "pause").await
}

async fn unpause(cli: &Cli, matches: &Matches) -> Outcome {
    all_at_once(cli, matches, "unpause").await
}

async fn wait(cli: &Cli, matches: &Matches) -> Outcome {
    let client = cli.client()?;
    let mut errors = Vec::new();
    for name in &matches.words {
        match client.post(format!("/containers/{}/wait", encoded(name)), Json::Null).await {
            Ok(answer) => match answer["Error"]["Message"].as_str() {
                Some(text) if !text.is_empty() => errors.push(text.to_owned()),
                _ => cli.line(&answer["StatusCode"].as_i64().unwrap_or(0).to_string())?,
            },
            Err(error) => errors.push(error.to_string()),
        }
    }
    joined(&errors)
}

async fn rename(cli: &Cli, matches: &Matches) -> Outcome {
    let (old, new) = (matches.word(0).trim(), matches.word(1).trim());
    if old.is_empty() || new.is_empty() {
        return Err(Failure::new("Error: Neither old nor new names may be empty"));
    }
    let query = query(&[("name", new)]);
    cli.post(format!("/containers/{}/rename{query}", encoded(old)), Json::Null).await.map_err(
        |failure| Failure {
            text: format!("{}\nError: failed to rename container named {old}", failure.text),
            ..failure
        },
    )?;
    Ok(0)
}

async fn update(cli: &Cli, matches: &Matches) -> Outcome {
    let flags: Vec<_> = matches.command.flags().filter(|flag| matches.given(flag.name)).collect();
    if flags.is_empty() {
        return Err(Failure::new("you must provide one or more flags when using this command"));
    }
    let document = update_document(matches)?;
    let client = cli.client()?;
    let (mut errors, mut warnings) = (Vec::new(), Vec::new());
    for name in &matches.words {
        match client.post(format!("/containers/{}/update", encoded(name)), document.clone()).await {
            Ok(answer) => {
                let all = answer["Warnings"].as_array().into_iter().flatten();
                warnings.extend(all.filter_map(|text| text.as_str().map(str::to_owned)));
                cli.line(name)?;
            }
            Err(error) => errors.push(error.to_string()),
        }
    }
    if !warnings.is_empty() {
        // COMPAT: docker's client prints them like results.
        cli.line(&warnings.join("\n"))?;
    }
    joined(&errors)
}

fn update_document(matches: &Matches) -> Result<Json, Failure> {
    let restart = match matches.text("restart") {
        "" => json!({ "Name": "", "MaximumRetryCount": 0 }),
        policy => restart_policy(policy)?,
    };
    let mut document = Map::new();
    for (key, flag) in [
        ("CpuShares", "cpu-shares"),
        ("BlkioWeight", "blkio-weight"),
        ("CpuPeriod", "cpu-period"),
        ("CpuQuota", "cpu-quota"),
        ("CpuRealtimePeriod", "cpu-rt-period"),
        ("CpuRealtimeRuntime", "cpu-rt-runtime"),
    ] {
        document.insert(key.to_owned(), matches.int(flag).into());
    }
    for (key, flag) in [
        ("Memory", "memory"),
        ("MemoryReservation", "memory-reservation"),
        ("MemorySwap", "memory-swap"),
    ] {
        document.insert(key.to_owned(), matches.bytes(flag).into());
    }
    document.insert("NanoCpus".to_owned(), cpus(matches)?.into());
    document.insert("CpusetCpus".to_owned(), matches.text("cpuset-cpus").into());
    document.insert("CpusetMems".to_owned(), matches.text("cpuset-mems").into());
    let pids =
        if matches.given("pids-limit") { json!(matches.int("pids-limit")) } else { Json::Null };
    document.insert("PidsLimit".to_owned(), pids);
    document.insert("RestartPolicy".to_owned(), restart);
    Ok(Json::Object(document))
}

async fn prune(cli: &Cli, matches: &Matches) -> Outcome {
    let question =
        "WARNING! This will remove all stopped containers.\nAre you sure you want to continue?";
    let filters = prune_filters(cli, matches)?;
    if !matches.on("force") && !cli.confirm(question)? {
        return Ok(0);
    }
    let answer = cli
        .post(format!("/containers/prune{}", query(&[("filters", &filters)])), Json::Null)
        .await?;
    let (text, space) = pruned(&answer, "ContainersDeleted", "Deleted Containers:");
    cli.print(&text)?;
    cli.line(&format!("Total reclaimed space: {}", rorqual_core::units::human_size(space)))?;
    Ok(0)
}

/// Filters of a prune: those of the settings, then the flag's.
pub(super) fn prune_filters(cli: &Cli, matches: &Matches) -> Result<String, Failure> {
    let given = matches.list("filter");
    let keys: Vec<&str> = given.iter().filter_map(|text| text.split('=').next()).collect();
    let mut all: Vec<String> = cli.config.prune_filters();
    // A setting yields to a flag that says the opposite.
    all.retain(|setting| {
        let key = setting.split('=').next().unwrap_or_default();
        let opposite = key.strip_suffix('!').map_or_else(|| format!("{key}!"), str::to_owned);
        !keys.contains(&opposite.as_str())
    });
    all.extend_from_slice(given);
    filters(&all).map_err(Failure::new)
}

/// Returns the names a prune deleted under a title, and the bytes it freed.
pub(super) fn pruned(answer: &Json, key: &str, title: &str) -> (String, u64) {
    let names: Vec<&str> =
        answer[key].as_array().into_iter().flatten().filter_map(Json::as_str).collect();
    let text =
        if names.is_empty() { String::new() } else { format!("{title}\n{}\n\n", names.join("\n")) };
    (text, answer["SpaceReclaimed"].as_u64().unwrap_or(0))
}

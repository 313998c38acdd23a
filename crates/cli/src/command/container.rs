//! The group of container commands, and those that only name containers.

use serde_json::Value as Json;

use super::{copy, create, exec, facts, inspect, lifecycle, list, logs, run, stats, task};
use crate::cli::Cli;
use crate::failure::{Failure, Outcome, joined};
use crate::flag::{Args, Command, Completes, Flag, Kind, Matches};
use crate::output::text::{encoded, query};

/// `container`
pub(super) static GROUP: Command = Command {
    name: "container",
    usage: "COMMAND",
    about: "Manage containers",
    children: &[
        &exec::ATTACH,
        &facts::COMMIT,
        &copy::CP,
        &create::CREATE,
        &facts::DIFF,
        &exec::EXEC,
        &facts::EXPORT,
        &inspect::CONTAINER,
        &lifecycle::KILL,
        &logs::LOGS,
        &list::LIST,
        &lifecycle::PAUSE,
        &facts::PORT,
        &lifecycle::PRUNE,
        &lifecycle::RENAME,
        &lifecycle::RESTART,
        &RM,
        &run::RUN,
        &exec::START,
        &stats::STATS,
        &lifecycle::STOP,
        &facts::TOP,
        &lifecycle::UNPAUSE,
        &lifecycle::UPDATE,
        &lifecycle::WAIT,
    ],
    ..Command::EMPTY
};

/// `rm`
pub(super) static RM: Command = Command {
    name: "rm",
    aliases: &["remove"],
    paths: &["container rm", "container remove", "rm"],
    usage: "[OPTIONS] CONTAINER [CONTAINER...]",
    about: "Remove one or more containers",
    flags: &[&[
        Flag::new("force", Kind::Bool, "Kill a running container first").short('f'),
        Flag::new("link", Kind::Bool, "Remove a link, not a container").short('l'),
        Flag::new("volumes", Kind::Bool, "Remove its anonymous volumes, too").short('v'),
    ]],
    args: Args::AtLeast(1),
    run: task!(remove),
    completes: Completes::Containers,
    ..Command::EMPTY
};

async fn remove(cli: &Cli, matches: &Matches) -> Outcome {
    let on = |flag| if matches.on(flag) { "1" } else { "" };
    let query = query(&[("force", on("force")), ("link", on("link")), ("v", on("volumes"))]);
    let client = cli.client()?;
    let (mut errors, mut serious) = (Vec::new(), false);
    for name in &matches.words {
        let bare = name.trim_matches('/');
        if bare.is_empty() {
            errors.push("container name cannot be empty".to_owned());
            serious = true;
            continue;
        }
        match client.delete(format!("/containers/{}{query}", encoded(bare))).await {
            Ok(_) => cli.line(name)?,
            Err(error) => {
                // COMPAT: with --force, what is not there is said but no failure.
                serious |= !(matches.on("force") && error.is_not_found());
                errors.push(error.to_string());
            }
        }
    }
    if serious {
        return joined(&errors);
    }
    for error in &errors {
        cli.complain(error);
    }
    Ok(0)
}

/// Asks `POST /containers/{name}/{action}` for each name; prints those that went well.
pub(super) async fn each_post(cli: &Cli, matches: &Matches, action: &str) -> Result<(), Failure> {
    let client = cli.client()?;
    let mut errors = Vec::new();
    for name in &matches.words {
        match client.post(format!("/containers/{}/{action}", encoded(name)), Json::Null).await {
            Ok(_) => cli.line(name)?,
            Err(error) => errors.push(error.to_string()),
        }
    }
    joined(&errors).map(drop)
}

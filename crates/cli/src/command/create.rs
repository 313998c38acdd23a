//! `create`: the flags of a new container, and asking the daemon for it.

mod flags;
mod mounts;
mod network;
mod ports;
mod request;
mod values;

use std::io::Write as _;

use rorqual_core::{InvalidReference, Platform, Reference};
use serde_json::{Value as Json, json};

use super::{image, task};
use crate::cli::Cli;
use crate::failure::{Failure, Outcome, system_text};
use crate::flag::{Args, Command, Completes, Matches};
use crate::output::text::query;

pub(super) use flags::{CREATE_FLAGS, RUN_FLAGS};
pub(super) use request::{NewContainer, Streams, cpus, request, restart_policy};
pub(super) use values::read_variables;

/// `create`
pub(super) static CREATE: Command = Command {
    name: "create",
    paths: &["container create", "create"],
    usage: "[OPTIONS] IMAGE [COMMAND] [ARG...]",
    about: "Create a new container",
    flags: &[CREATE_FLAGS],
    args: Args::AtLeast(1),
    stops_at_word: true,
    run: task!(create),
    completes: Completes::Images,
    ..Command::EMPTY
};

async fn create(cli: &Cli, matches: &Matches) -> Outcome {
    let wanted = check_pull(matches)
        .and_then(|()| request(cli, matches))
        .map_err(|failure| as_own_failure(matches, failure, 125))?;
    // COMPAT: unlike `run`, what the daemon refuses is told as it is, with the code of all other commands.
    let id = new_container(cli, matches, wanted).await?;
    cli.line(&id)?;
    Ok(0)
}

/// COMPAT: `run`, and `create` where its flags are wrong, put the program's name in front and point to their help.
pub(super) fn as_own_failure(matches: &Matches, failure: Failure, code: u8) -> Failure {
    let (program, path) = (matches.path.split(' ').next().unwrap_or("docker"), &matches.path);
    if failure.text.is_empty() {
        return failure;
    }
    let text = format!("{program}: {}\n\nRun '{path} --help' for more information", failure.text);
    Failure { code, text }
}

fn check_pull(matches: &Matches) -> Result<(), Failure> {
    match matches.text("pull") {
        "always" | "missing" | "never" => Ok(()),
        policy => Err(Failure::new(format!(
            "invalid pull option: '{policy}': must be one of \"always\", \"missing\" or \"never\""
        ))),
    }
}

fn check_platform(text: &str) -> Result<(), Failure> {
    match text.parse::<Platform>() {
        Err(error) if !text.is_empty() => {
            Err(Failure::new(format!("error parsing specified platform: {error}")))
        }
        _ => Ok(()),
    }
}

/// Creates a container, fetching its image first when `--pull` says so; returns its id.
pub(super) async fn new_container(
    cli: &Cli,
    matches: &Matches,
    request: NewContainer,
) -> Result<String, Failure> {
    check_pull(matches)?;
    let policy = matches.text("pull");
    let reference = request.document["Image"].as_str().unwrap_or_default().to_owned();
    if let Err(error @ InvalidReference::Uppercase(_)) = reference.parse::<Reference>() {
        return Err(Failure::new(error.to_string()));
    }
    let cid_file = matches.text("cidfile");
    if !cid_file.is_empty() && std::fs::exists(cid_file).unwrap_or(false) {
        return Err(Failure::new(format!(
            "container ID file found, make sure the other container isn't running or delete {cid_file}"
        )));
    }
    let platform = matches.text("platform");
    check_platform(platform)?;
    let quiet = matches.on("quiet");
    if policy == "always" {
        image::pull_for_run(cli, &reference, platform, quiet).await?;
    }
    let path = format!(
        "/containers/create{}",
        query(&[("name", matches.text("name")), ("platform", platform)])
    );
    let client = cli.client()?;
    let body = || request.text().map(|text| rorqual_client::Body::Json(text.into()));
    let answer = match client.post(path.as_str(), body()?).await {
        Err(error) if error.is_not_found() && policy == "missing" => {
            let named = image::familiar_tagged(&reference);
            if !quiet {
                cli.complain(&format!("Unable to find image '{named}' locally"));
            }
            image::pull_for_run(cli, &reference, platform, quiet).await?;
            client.post(path, body()?).await?
        }
        other => other?,
    };
    for warning in answer["Warnings"].as_array().into_iter().flatten() {
        cli.complain(&format!("WARNING: {}", warning.as_str().unwrap_or_default()));
    }
    let id = answer["Id"].as_str().unwrap_or_default().to_owned();
    if !cid_file.is_empty() {
        write_new(cid_file, &id)?;
    }
    Ok(id)
}

fn write_new(path: &str, text: &str) -> Result<(), Failure> {
    let write = || {
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).open(path)?;
        file.write_all(text.as_bytes())
    };
    write().map_err(|error| {
        let reason = system_text(&error);
        Failure::new(format!("failed to create the container ID file: open {path}: {reason}"))
    })
}

/// A null for an empty list, as Go writes a slice nobody made.
pub(super) fn list_or_null(values: &[String]) -> Json {
    if values.is_empty() { Json::Null } else { json!(values) }
}

#[cfg(test)]
mod tests;

//! Images: the commands on them, and what other commands need to know of their names.

pub(super) mod archive;
mod list;
mod manage;

use rorqual_client::{Method, Request};
use rorqual_core::Reference;

use crate::cli::Cli;
use crate::failure::Failure;
use crate::output::text::query;
use crate::progress::{self, Show};

pub(super) use archive::{IMPORT, LOAD, SAVE, platform_document};
pub(super) use list::{IMAGES, USAGE, usage_rows};
pub(super) use manage::{HISTORY, PULL, PUSH, RMI, TAG, image_filters, pruned_lines};

use super::inspect;
use crate::flag::Command;

/// `image`
pub(super) static GROUP: Command = Command {
    name: "image",
    usage: "COMMAND",
    about: "Manage images",
    children: &[
        &HISTORY,
        &IMPORT,
        &inspect::IMAGE,
        &LOAD,
        &list::LIST,
        &manage::PRUNE,
        &PULL,
        &PUSH,
        &manage::REMOVE,
        &SAVE,
        &TAG,
    ],
    ..Command::EMPTY
};

/// Completes a name with `latest` as messages show it.
pub(super) fn familiar_tagged(name: &str) -> String {
    match name.parse::<Reference>() {
        Ok(reference) if reference.tag().is_none() && reference.digest().is_none() => {
            format!("{name}:latest")
        }
        _ => name.to_owned(),
    }
}

/// Fetches an image that `run` or `create` needs; progress goes to standard error.
pub(super) async fn pull_for_run(
    cli: &Cli,
    name: &str,
    platform: &str,
    quiet: bool,
) -> Result<(), Failure> {
    let show = if quiet { Show::Nothing } else { Show::Error };
    fetch(cli, &familiar_tagged(name), platform, show).await
}

/// `POST /images/create` for a registry's image.
pub(super) async fn fetch(
    cli: &Cli,
    name: &str,
    platform: &str,
    show: Show,
) -> Result<(), Failure> {
    let (repository, tag) = split_tag(name);
    let query = query(&[("fromImage", repository), ("platform", platform), ("tag", tag)]);
    let mut request = Request::new(Method::POST, format!("/images/create{query}"));
    // An empty set of credentials, which daemons expect to be there.
    request.headers.push(("x-registry-auth", "e30=".to_owned()));
    let answer = cli.client()?.send(request).await?;
    progress::show(answer, show).await
}

/// `repo:tag` and `repo@digest` → the two parts.
pub(super) fn split_tag(name: &str) -> (&str, &str) {
    if let Some((repository, digest)) = name.split_once('@') {
        return (repository, digest);
    }
    match name.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => (repository, tag),
        _ => (name, ""),
    }
}

/// Checks a name of an image; the text is the daemon's.
pub(super) fn check_reference(name: &str) -> Result<(), Failure> {
    name.parse::<Reference>().map(drop).map_err(|error| Failure::new(error.to_string()))
}

/// `alpine:3` → `docker.io/library/alpine:3`
pub(super) fn canonical(name: &str) -> String {
    let tagged = familiar_tagged(name);
    let first = tagged.split('/').next().unwrap_or_default();
    let has_host = tagged.contains('/') && (first.contains(['.', ':']) || first == "localhost");
    match (has_host, tagged.contains('/')) {
        (true, _) => tagged,
        (false, true) => format!("docker.io/{tagged}"),
        (false, false) => format!("docker.io/library/{tagged}"),
    }
}

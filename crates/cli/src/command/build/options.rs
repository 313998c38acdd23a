//! From flags to a request of the builder.

use std::sync::Arc;

use rorqual_buildkit::{BuildRequest, Lending};

use super::logins::Logins;
use super::{Keep, caches, context, csv, outputs, secrets, warn};
use crate::cli::Cli;
use crate::command::image::check_reference;
use crate::failure::Failure;
use crate::flag::Matches;

/// A build, ready to run.
pub(super) struct Plan {
    /// What is asked.
    pub(super) request: BuildRequest,
    /// What is lent to it.
    pub(super) lending: Lending,
    /// Tells the daemon which directories are the same as last time.
    pub(super) shared_key: String,
    /// What is done with the answer.
    pub(super) after: After,
    /// What has to live as long as the build.
    pub(super) keep: Keep,
}

/// What is done with the answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct After {
    /// A question instead of a build: `check`, `outline`, `targets`; with the form of the answer.
    pub(super) question: Option<(String, String)>,
    /// Directories that list the cache that was written to them.
    pub(super) caches: Vec<caches::Place>,
    /// Directories that list the image that was written to them.
    pub(super) layouts: Vec<caches::Place>,
}

impl Plan {
    /// Sets an option of the front end.
    pub(super) fn option(&mut self, name: &str, value: &str) {
        self.request.options.insert(name.to_owned(), value.to_owned());
    }
}

fn wrong(text: String) -> Failure {
    Failure::new(format!("ERROR: {text}"))
}

/// Makes a plan of flags.
pub(super) fn plan(cli: &Cli, matches: &Matches) -> Result<Plan, Failure> {
    let mut plan = Plan {
        request: BuildRequest::default(),
        lending: Lending::default(),
        shared_key: String::new(),
        after: After::default(),
        keep: Keep::new(),
    };
    let builder = matches.text("builder");
    if !matches!(builder, "" | "default") {
        return Err(wrong(format!("no builder {builder:?} found: there is one, \"default\"")));
    }
    context::add(&mut plan, matches.word(0), matches.text("file"))?;
    if !plan.lending.directories.contains_key("dockerfile")
        && !plan.request.options.contains_key("filename")
    {
        plan.option("filename", "Dockerfile");
    }
    named_contexts(&mut plan, matches)?;
    variables(cli, &mut plan, matches);
    steps(&mut plan, matches)?;
    images(&mut plan, matches)?;
    caches::add(&mut plan, matches)?;
    secrets::add(&mut plan, matches)?;
    plan.lending.credentials = Some(Arc::new(Logins(cli.config.clone())));
    question(&mut plan, matches)?;
    if plan.after.question.is_none() {
        outputs::add(&mut plan, matches)?;
    }
    Ok(plan)
}

fn named_contexts(plan: &mut Plan, matches: &Matches) -> Result<(), Failure> {
    for text in matches.list("build-context") {
        let Some((name, value)) = text.split_once('=').filter(|(name, _)| !name.is_empty()) else {
            return Err(wrong(format!("invalid context value: {text}, expected key=value")));
        };
        let is_remote = context::is_remote(value) || value.starts_with("docker-image://");
        let value = if is_remote {
            value.to_owned()
        } else if let Some(path) = value.strip_prefix("oci-layout://") {
            caches::layout(plan, path)?
        } else {
            if !std::path::Path::new(value).is_dir() {
                return Err(wrong(format!(
                    "failed to get build context {name}: {value:?} is not a directory"
                )));
            }
            plan.lending.directories.insert(name.to_owned(), value.into());
            format!("local:{name}")
        };
        plan.option(&format!("context:{name}"), &value);
    }
    Ok(())
}

fn variables(cli: &Cli, plan: &mut Plan, matches: &Matches) {
    for (name, value) in cli.config.proxy_variables("default") {
        plan.option(&format!("build-arg:{name}"), &value);
    }
    for argument in matches.list("build-arg") {
        match argument.split_once('=') {
            Some((name, value)) => plan.option(&format!("build-arg:{name}"), value),
            // Without a value it is that of our own environment, if there is one.
            None => {
                if let Ok(value) = std::env::var(argument) {
                    plan.option(&format!("build-arg:{argument}"), &value);
                }
            }
        }
    }
    for label in matches.list("label") {
        let (name, value) = label.split_once('=').unwrap_or((label, ""));
        plan.option(&format!("label:{name}"), value);
    }
}

fn steps(plan: &mut Plan, matches: &Matches) -> Result<(), Failure> {
    match matches.text("network") {
        "" | "default" => {}
        network @ ("host" | "none") => {
            plan.option("force-network-mode", network);
            if network == "host" {
                plan.request.entitlements.push("network.host".to_owned());
            }
        }
        other => {
            return Err(wrong(format!(
                "network mode {other:?} not supported by the builder: default, none, host"
            )));
        }
    }
    let hosts = matches.list("add-host").iter().map(|host| match host.split_once(':') {
        // Both spellings mean the same.
        None => host.split_once('=').map(|(name, ip)| format!("{name}={ip}")),
        Some((name, ip)) => Some(format!("{name}={ip}")),
    });
    let hosts: Option<Vec<String>> = hosts.collect();
    let hosts = hosts.ok_or_else(|| wrong("invalid --add-host: expected host:ip".to_owned()))?;
    if !hosts.is_empty() {
        plan.option("add-hosts", &hosts.join(","));
    }
    if matches.given("shm-size") {
        plan.option("shm-size", &matches.bytes("shm-size").to_string());
    }
    if !matches.list("ulimit").is_empty() {
        plan.option("ulimit", &matches.list("ulimit").join(","));
    }
    if matches.given("cgroup-parent") {
        plan.option("cgroup-parent", matches.text("cgroup-parent"));
    }
    for allowed in matches.list("allow") {
        plan.request.entitlements.push(allowed.clone());
    }
    if matches.on("why") {
        plan.option("rorqual.why", "1");
    }
    Ok(())
}

fn images(plan: &mut Plan, matches: &Matches) -> Result<(), Failure> {
    for tag in matches.list("tag") {
        check_reference(tag)
            .map_err(|failure| wrong(format!("invalid tag {tag:?}: {}", failure.text)))?;
    }
    if !matches.text("target").is_empty() {
        plan.option("target", matches.text("target"));
    }
    let platforms: Vec<&str> =
        matches.list("platform").iter().flat_map(|platform| platform.split(',')).collect();
    if !platforms.is_empty() {
        plan.option("platform", &platforms.join(","));
    }
    let mode = if matches.on("pull") { "pull" } else { "local" };
    plan.option("image-resolve-mode", mode);
    if matches.on("no-cache") {
        plan.option("no-cache", "");
    } else if !matches.list("no-cache-filter").is_empty() {
        let stages = matches.list("no-cache-filter").join(",");
        plan.option("no-cache", &stages);
    }
    attestations(plan, matches)
}

fn attestations(plan: &mut Plan, matches: &Matches) -> Result<(), Failure> {
    let mut add = |kind: &str, value: String| plan.option(&format!("attest:{kind}"), &value);
    for text in matches.list("attest") {
        let mut pairs = csv::pairs(text).map_err(wrong)?;
        let Some(at) = pairs.iter().position(|(name, _)| name == "type") else {
            return Err(wrong(format!("attestation {text:?} has no type")));
        };
        let (_, kind) = pairs.remove(at);
        if pairs.iter().any(|(name, value)| name == "disabled" && value == "true") {
            continue;
        }
        let rest: Vec<String> =
            pairs.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
        add(&kind, rest.join(","));
    }
    for kind in ["provenance", "sbom"] {
        match matches.text(kind) {
            "" | "false" => {}
            "true" => add(kind, String::new()),
            value => add(kind, value.to_owned()),
        }
    }
    Ok(())
}

fn question(plan: &mut Plan, matches: &Matches) -> Result<(), Failure> {
    let call = if matches.on("check") { "check" } else { matches.text("call") };
    let fields = csv::fields(call).map_err(wrong)?;
    let (name, rest) = fields.split_first().map_or(("build", &[][..]), |(n, r)| (n.as_str(), r));
    let name = name.strip_prefix("frontend.").unwrap_or(name);
    let format = rest.iter().find_map(|field| field.strip_prefix("format="));
    let request = match name {
        "" | "build" => return Ok(()),
        "check" | "lint" => "frontend.lint",
        "outline" => "frontend.outline",
        "targets" => "frontend.targets",
        "subrequests.describe" => "frontend.subrequests.describe",
        other => {
            return Err(wrong(format!("unknown call {other:?}: build, check, outline, targets")));
        }
    };
    if !matches.list("output").is_empty() || matches.on("push") || matches.on("load") {
        warn("outputs are ignored with --call");
    }
    plan.option("requestid", request);
    plan.option("frontend.caps", "moby.buildkit.frontend.subrequests+forward");
    plan.request.is_internal = true;
    plan.after.question = Some((name.to_owned(), format.unwrap_or("text").to_owned()));
    Ok(())
}

//! `bake`: several builds that files describe, each as `build` would do it; what one takes of another is built before.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rorqual_bake::{File, Plan, Request, Target};

use super::{BUILD, build, context};
use crate::cli::Cli;
use crate::command::task;
use crate::failure::{Failure, Outcome, open_failure};
use crate::flag::{self, Args, Command, Flag, Kind, Matches, UsageError};

const BAKE_FLAGS: &[Flag] = &[
    Flag::new("call", Kind::Text("string"), "What to do: build, check, outline, targets"),
    Flag::new("check", Kind::Bool, "Only check the Dockerfiles (same as --call=check)"),
    Flag::new("file", Kind::List("stringArray"), "File that describes the builds").short('f'),
    Flag::new("load", Kind::Bool, "Keep the images in the engine (same as --set=*.load=true)"),
    Flag::new("no-cache", Kind::Bool, "Build everything anew"),
    Flag::new("print", Kind::Bool, "Print the builds instead of running them"),
    Flag::new(
        "progress",
        Kind::Text("string"),
        "How to show progress: auto, quiet, plain, tty, rawjson",
    )
    .default("auto"),
    Flag::new("pull", Kind::Bool, "Look for newer base images"),
    Flag::new("push", Kind::Bool, "Push the images (same as --set=*.push=true)"),
    Flag::new("set", Kind::List("stringArray"), "Change a value (target.key=value)"),
    Flag::new("var", Kind::List("stringArray"), "Set a variable (name=value)"),
];

/// `bake`
pub(in crate::command) static BAKE: Command = Command {
    name: "bake",
    paths: &["bake"],
    usage: "[OPTIONS] [TARGET...]",
    about: "Build what files describe",
    flags: &[BAKE_FLAGS],
    args: Args::Any,
    run: task!(bake),
    ..Command::EMPTY
};

/// Files that are read when none is named, in this order.
const DEFAULT_FILES: [&str; 8] = [
    "compose.yaml",
    "compose.yml",
    "docker-compose.yml",
    "docker-compose.yaml",
    "docker-bake.json",
    "docker-bake.hcl",
    "docker-bake.override.json",
    "docker-bake.override.hcl",
];

/// LIMIT: bytes of a file; real ones have a few kilobytes.
const LARGEST_FILE: u64 = 4 << 20;

async fn bake(cli: &Cli, matches: &Matches) -> Outcome {
    let files = files(matches)?;
    let plan = rorqual_bake::plan(&files, &request(matches)).map_err(|error| wrong(&error))?;
    if matches.on("print") {
        cli.line(&plan.json())?;
        return Ok(0);
    }
    let id = rorqual_buildkit::new_id();
    let mut names = BTreeMap::new();
    for (number, name) in plan.targets.keys().enumerate() {
        if plan.targets.values().any(|target| target.links().iter().any(|(_, link)| link == name)) {
            names.insert(name.clone(), format!("rorqual-bake/{number}:{id}"));
        }
    }
    let done = build_all(cli, matches, &plan, &names).await;
    // The images stay; only the names under which the builds found each other go.
    for name in names.values() {
        let removed = cli.client()?.delete(format!("/images/{name}?noprune=1")).await;
        // A build that failed has left none.
        drop(removed);
    }
    done
}

fn wrong(error: &dyn std::fmt::Display) -> Failure {
    Failure::new(format!("ERROR: {error}"))
}

fn files(matches: &Matches) -> Result<Vec<File>, Failure> {
    let named = matches.list("file");
    let chosen: Vec<String> = match named.is_empty() {
        false => named.to_vec(),
        true => {
            let there = DEFAULT_FILES.iter().filter(|name| Path::new(name).exists());
            there.map(|name| (*name).to_owned()).collect()
        }
    };
    if chosen.is_empty() {
        let known = DEFAULT_FILES.join(", ");
        return Err(wrong(&format!("couldn't find a bake definition: none of {known}")));
    }
    chosen.into_iter().map(read).collect()
}

fn read(name: String) -> Result<File, Failure> {
    use std::io::Read as _;
    let source: Box<dyn std::io::Read> = match &*name {
        "-" => Box::new(std::io::stdin()),
        path => Box::new(std::fs::File::open(path).map_err(|error| open_failure(path, &error))?),
    };
    let mut text = String::new();
    source.take(LARGEST_FILE + 1).read_to_string(&mut text)?;
    if text.len() as u64 > LARGEST_FILE {
        return Err(wrong(&format!("{name} is larger than {LARGEST_FILE} bytes")));
    }
    Ok(File { name, text })
}

fn request(matches: &Matches) -> Request {
    let mut environment: BTreeMap<String, String> = std::env::vars().collect();
    let given = matches.list("var").iter().filter_map(|text| text.split_once('='));
    environment.extend(given.map(|(name, value)| (name.to_owned(), value.to_owned())));
    let mut overrides = matches.list("set").to_vec();
    for flag in ["push", "load", "no-cache", "pull"] {
        if matches.given(flag) {
            overrides.push(format!("*.{flag}={}", matches.on(flag)));
        }
    }
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Request {
        targets: matches.words.clone(),
        overrides,
        environment,
        local_platform: rorqual_core::Platform::host().to_string(),
        now: now.as_secs(),
    }
}

/// Builds all, each after those that it takes something of.
async fn build_all(
    cli: &Cli,
    matches: &Matches,
    plan: &Plan,
    names: &BTreeMap<String, String>,
) -> Outcome {
    let mut open: Vec<(&String, &Target)> = plan.targets.iter().collect();
    let mut code = 0;
    while !open.is_empty() {
        let waits = |target: &Target| {
            target.links().iter().any(|(_, link)| open.iter().any(|(name, _)| name == link))
        };
        // The plan has no cycles, so one never waits.
        let next = open.iter().position(|(_, target)| !waits(target)).unwrap_or(0);
        let (name, target) = open.remove(next);
        code = code.max(build_one(cli, matches, (name, target), names).await?);
    }
    Ok(code)
}

async fn build_one(
    cli: &Cli,
    matches: &Matches,
    (name, target): (&String, &Target),
    names: &BTreeMap<String, String>,
) -> Outcome {
    let (words, _inline) = words(matches, target, names.get(name).map(String::as_str), names)?;
    let built =
        flag::parse(&BUILD, "rorqual build".to_owned(), &words).map_err(|usage| match usage {
            UsageError::Flag(text) | UsageError::Count(text) => {
                wrong(&format!("target {name}: {text}"))
            }
            UsageError::Help => wrong(&format!("target {name}: --help is no option of a target")),
        })?;
    // The future of a build is large.
    let outcome = Box::pin(build(cli, &built)).await;
    outcome.map_err(|failure| Failure::new(format!("target {name}: {}", failure.text)))
}

/// A Dockerfile that stands in the bake file, while it is needed as a file.
struct Inline(PathBuf);

impl Drop for Inline {
    fn drop(&mut self) {
        // It is in the system's directory for such; what stays is swept there.
        std::fs::remove_file(&self.0).ok();
    }
}

/// The command line of `build` that makes a target.
fn words(
    matches: &Matches,
    target: &Target,
    name: Option<&str>,
    names: &BTreeMap<String, String>,
) -> Result<(Vec<String>, Option<Inline>), Failure> {
    let mut words = target.build_flags();
    let mut add = |flag: &str, value: &str| words.extend([format!("--{flag}"), value.to_owned()]);
    add("progress", matches.text("progress"));
    if !matches.text("call").is_empty() || matches.on("check") {
        add("call", if matches.on("check") { "check" } else { matches.text("call") });
    }
    if let Some(name) = name {
        // Others start from it: it has to be an image, also when nobody wants one.
        add("tag", name);
        add("output", "type=image");
    }
    for (key, value) in target.map("contexts") {
        let value = match value.strip_prefix("target:").and_then(|link| names.get(link)) {
            Some(image) => format!("docker-image://{image}"),
            None => value.to_owned(),
        };
        add("build-context", &format!("{key}={value}"));
    }
    let context = target.text("context").unwrap_or(".");
    let context = context.strip_prefix("cwd://").unwrap_or(context);
    let context = if context.is_empty() { "." } else { context };
    let file = target.text("dockerfile").unwrap_or("Dockerfile");
    let mut inline = None;
    if let Some(text) = target.text("dockerfile-inline") {
        let file =
            std::env::temp_dir().join(format!("rorqual-bake-{}", rorqual_buildkit::new_id()));
        let mut options = std::fs::OpenOptions::new();
        std::os::unix::fs::OpenOptionsExt::mode(options.write(true).create_new(true), 0o600);
        std::io::Write::write_all(&mut options.open(&file)?, text.as_bytes())?;
        add("file", &file.to_string_lossy());
        inline = Some(Inline(file));
    } else if context::is_remote(context) {
        add("file", file);
    } else {
        add("file", &Path::new(context).join(file).to_string_lossy());
    }
    words.extend(["--".to_owned(), context.to_owned()]);
    Ok((words, inline))
}

#[cfg(test)]
mod tests;

//! `bake`: several builds that files describe, each as `build` would do it, side by side; what one takes of another is built
//! before.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use rorqual_bake::{File, Plan, Request, Target};
use serde_json::{Map, Value as Json, json};

use super::options::{self, After};
use super::outcome::{self, Answer};
use super::progress::{Mode, Screen};
use super::{BUILD, BuildFailure, Performed, Told, context, csv, lock, perform};
use crate::cli::Cli;
use crate::command::task;
use crate::failure::{Failure, Outcome, open_failure};
use crate::flag::{self, Args, Command, Flag, Kind, Matches, UsageError};
use crate::output::tabbed;

const BAKE_FLAGS: &[Flag] = &[
    Flag::new(
        "allow",
        Kind::List("stringArray"),
        "Allow a privilege; what files ask for is theirs without it",
    ),
    Flag::new("call", Kind::Text("string"), "What to do: build, check, outline, targets"),
    Flag::new("check", Kind::Bool, "Only check the Dockerfiles (same as --call=check)"),
    Flag::new("file", Kind::List("stringArray"), "File that describes the builds").short('f'),
    Flag::new(
        "list",
        Kind::Text("string"),
        "List targets or variables ([type=]targets[,format=json])",
    ),
    Flag::new("load", Kind::Bool, "Keep the images in the engine (same as --set=*.load=true)"),
    Flag::new("metadata-file", Kind::Text("string"), "Write facts about the results to this file"),
    Flag::new("no-cache", Kind::Bool, "Build everything anew"),
    Flag::new("print", Kind::Bool, "Print the builds instead of running them"),
    Flag::new(
        "progress",
        Kind::Text("string"),
        "How to show progress: auto, quiet, plain, tty, rawjson",
    )
    .default("auto"),
    Flag::new("provenance", Kind::Text("string"), "Short for --set=*.attest=type=provenance"),
    Flag::new("pull", Kind::Bool, "Look for newer base images"),
    Flag::new("push", Kind::Bool, "Push the images (same as --set=*.push=true)"),
    Flag::new("sbom", Kind::Text("string"), "Short for --set=*.attest=type=sbom"),
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
    if !matches.text("list").is_empty() {
        return list(cli, matches.text("list"), &files, &request(matches)?);
    }
    let plan = rorqual_bake::plan(&files, &request(matches)?).map_err(|error| wrong(&error))?;
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
    let done = done.and_then(|built| finish(cli, (matches, &plan), built));
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

fn request(matches: &Matches) -> Result<Request, Failure> {
    let mut environment: BTreeMap<String, String> = std::env::vars().collect();
    let given = matches.list("var").iter().filter_map(|text| text.split_once('='));
    environment.extend(given.map(|(name, value)| (name.to_owned(), value.to_owned())));
    let mut overrides = matches.list("set").to_vec();
    for flag in ["push", "load", "no-cache", "pull"] {
        if matches.given(flag) {
            overrides.push(format!("*.{flag}={}", matches.on(flag)));
        }
    }
    for kind in ["sbom", "provenance"] {
        if matches.given(kind) {
            let rest = match matches.text(kind) {
                "" | "true" => String::new(),
                "false" => ",disabled=true".to_owned(),
                value => format!(",{value}"),
            };
            overrides.push(format!("*.attest=type={kind}{rest}"));
        }
    }
    if let Some((name, _)) = question(matches)? {
        overrides.push(format!("*.call={name}"));
    }
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Ok(Request {
        targets: matches.words.clone(),
        overrides,
        environment,
        local_platform: rorqual_core::Platform::host().to_string(),
        now: now.as_secs(),
    })
}

/// What is asked instead of a build, by the name that bake files have for it, and the words that were used.
fn question(matches: &Matches) -> Result<Option<(String, String)>, Failure> {
    let asked = if matches.on("check") { "check" } else { matches.text("call") };
    let name = csv::fields(asked).map_err(|why| wrong(&why))?.into_iter().next();
    Ok(match name.as_deref() {
        None | Some("" | "build") => None,
        Some("check") => Some(("lint".to_owned(), asked.to_owned())),
        Some(name) => Some((name.to_owned(), asked.to_owned())),
    })
}

/// Lists what the files offer.
fn list(cli: &Cli, wanted: &str, files: &[File], request: &Request) -> Outcome {
    let (mut kind, mut format) = (String::new(), "table".to_owned());
    for field in csv::fields(wanted).map_err(|why| wrong(&why))? {
        match field.split_once('=') {
            None => kind = field,
            Some(("type", value)) => kind = value.to_owned(),
            Some(("format", value)) => format = value.to_owned(),
            Some((name, _)) => return Err(wrong(&format!("invalid list value {name:?}"))),
        }
    }
    let is_json = match &*format {
        "json" => true,
        "table" => false,
        other => return Err(wrong(&format!("invalid list format {other:?}"))),
    };
    let (document, table) = match &*kind {
        "targets" => {
            let all = rorqual_bake::list_targets(files, request).map_err(|error| wrong(&error))?;
            let rows = all.iter().map(|one| format!("{}\t{}\n", one.name, one.description));
            let rows: String = rows.collect();
            (serde_json::to_string_pretty(&all), format!("TARGET\tDESCRIPTION\n{rows}"))
        }
        "variables" => {
            let all =
                rorqual_bake::list_variables(files, request).map_err(|error| wrong(&error))?;
            let rows = all.iter().map(|one| {
                let value = one.value.as_deref().unwrap_or("<null>");
                format!("{}\t{}\t{value}\t{}\n", one.name, one.kind, one.description)
            });
            let rows: String = rows.collect();
            let head = "VARIABLE\tTYPE\tVALUE\tDESCRIPTION\n";
            (serde_json::to_string_pretty(&all), format!("{head}{rows}"))
        }
        other => return Err(wrong(&format!("invalid list type {other:?}"))),
    };
    if is_json {
        cli.line(&document.map_err(|error| wrong(&error))?)?;
    } else {
        cli.print(&tabbed(&table))?;
    }
    Ok(0)
}

/// LIMIT: targets that are built at a time; the daemon bounds their steps.
const AT_A_TIME: usize = 8;

/// A target that is built.
struct Built {
    matches: Matches,
    after: After,
    told: Result<Told, BuildFailure>,
}

/// Builds all, those side by side of which none takes something of another; ends the rest when one fails.
async fn build_all(
    cli: &Cli,
    matches: &Matches,
    plan: &Plan,
    names: &BTreeMap<String, String>,
) -> Result<(Screen, BTreeMap<String, Built>), Failure> {
    let screen = Mutex::new(Screen::new(Mode::of_progress(matches)?));
    lock(&screen).begin()?;
    let mut waiting: Vec<(&String, &Target)> = plan.targets.iter().collect();
    let mut built: BTreeMap<String, Built> = BTreeMap::new();
    let mut going = FuturesUnordered::new();
    loop {
        while going.len() < AT_A_TIME
            && let Some(next) = waiting.iter().position(|(_, target)| {
                target.links().iter().all(|(_, link)| built.contains_key(*link))
            })
        {
            let (name, target) = waiting.remove(next);
            // Where there is one, its steps need no name.
            let shown = if plan.targets.len() == 1 { "" } else { name.as_str() };
            going.push(build_one(cli, (matches, &screen, shown), (name, target), names));
        }
        let Some((name, one)) = going.next().await else { break };
        let one =
            one.map_err(|failure| Failure::new(format!("target {name}: {}", failure.text)))?;
        let has_failed = one.told.is_err();
        built.insert(name, one);
        if has_failed {
            break;
        }
    }
    drop(going);
    let mut screen = screen.into_inner().unwrap_or_else(PoisonError::into_inner);
    screen.end()?;
    Ok((screen, built))
}

/// Prints what was answered about each target.
fn answer(
    cli: &Cli,
    plan: &Plan,
    (question, format): &(String, String),
    built: &BTreeMap<String, Built>,
) -> Outcome {
    // COMPAT: by the names that buildx has for the parts of the document.
    let part = if question == "lint" { "check" } else { question };
    let mut document: Json = serde_json::from_str(&plan.json()).unwrap_or_default();
    let mut code = 0;
    for (number, (name, one)) in built.iter().enumerate() {
        let Ok(told) = &one.told else { continue };
        let mut answer = Answer::read(question, told)?;
        code = code.max(answer.code);
        if format == "json" {
            if let Some(error) = answer.error {
                answer.document["error"] = error.into();
            }
            let build = document["target"][name].take();
            document["target"][name] = json!({ "build": build, part: answer.document });
            continue;
        }
        let gap = if number == 0 { "" } else { "\n" };
        let description = plan.targets.get(name).and_then(|target| target.text("description"));
        let description = description.map_or_else(String::new, |text| format!("{text}\n"));
        let error = answer.error.map_or_else(String::new, |why| format!("\nerror: {why}\n"));
        cli.print(&format!("{gap}{name}\n{description}\n{}{error}", answer.text))?;
    }
    if format == "json" {
        cli.line(&format!("{document:#}"))?;
    }
    Ok(code)
}

/// Tells what came of the targets.
fn finish(
    cli: &Cli,
    (matches, plan): (&Matches, &Plan),
    (mut screen, built): (Screen, BTreeMap<String, Built>),
) -> Outcome {
    for (name, one) in &built {
        let Err(failure) = &one.told else { continue };
        screen.fail(failure, cli.root.on("debug"))?;
        return Err(wrong(&format!("target {name}: failed to solve: {}", failure.message)));
    }
    if let Some(question) = built.values().find_map(|one| one.after.question.clone()) {
        return answer(cli, plan, &question, &built);
    }
    let mut code = 0;
    let mut facts = Map::new();
    for (name, one) in &built {
        let Ok(told) = &one.told else { continue };
        facts.insert(name.clone(), outcome::metadata(told));
        code = code.max(outcome::finish(cli, &one.matches, &one.after, told, &mut screen)?);
    }
    if !matches.text("metadata-file").is_empty() {
        let path = matches.text("metadata-file");
        let text = format!("{:#}\n", Json::Object(facts));
        std::fs::write(path, text).map_err(|error| open_failure(path, &error))?;
    }
    Ok(code)
}

async fn build_one(
    cli: &Cli,
    (matches, screen, shown): (&Matches, &Mutex<Screen>, &str),
    (name, target): (&String, &Target),
    names: &BTreeMap<String, String>,
) -> (String, Result<Built, Failure>) {
    let one = async {
        let (words, _inline) = words(matches, target, names.get(name).map(String::as_str), names)?;
        let parsed = flag::parse(&BUILD, "rorqual build".to_owned(), &words);
        let built = parsed.map_err(|usage| match usage {
            UsageError::Flag(text) | UsageError::Count(text) => Failure::new(text),
            UsageError::Help => Failure::new("--help is no option of a target"),
        })?;
        let ready = options::plan(cli, &built)?;
        // The future of a build is large.
        let performed = Box::pin(perform(cli.client()?, ready, (screen, shown))).await?;
        let Performed { built: told, plan, .. } = performed;
        Ok(Built { matches: built, after: plan.after, told })
    };
    (name.clone(), one.await)
}

/// The directory of a Dockerfile that stands in the bake file, while it is needed as a file.
struct Inline(PathBuf);

impl Drop for Inline {
    fn drop(&mut self) {
        // It is in the system's directory for such; what stays is swept there.
        std::fs::remove_dir_all(&self.0).ok();
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
    if let Some((_, asked)) = question(matches)? {
        add("call", &asked);
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
        let home =
            std::env::temp_dir().join(format!("rorqual-bake-{}", rorqual_buildkit::new_id()));
        std::os::unix::fs::DirBuilderExt::mode(&mut std::fs::DirBuilder::new(), 0o700)
            .create(&home)?;
        // COMPAT: what messages call it.
        let file = home.join("inline");
        inline = Some(Inline(home));
        std::fs::write(&file, text)?;
        add("file", &file.to_string_lossy());
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

//! Lines become instructions: number of arguments, flags, and the checks that need nothing but the line.

use rorqual_content::HealthConfig;
use rorqual_core::units;

use super::{
    ArgDefinition, Command, CommandLine, CopyInstruction, Document, Instruction, KEYWORDS, Pair,
    RunInstruction, Stage, mount_from,
};
use crate::dockerfile::fault::{at, did_you_mean, invalid};
use crate::dockerfile::flags::{Flags, Kind};
use crate::dockerfile::heredoc::Heredoc;
use crate::dockerfile::lines::Node;
use crate::dockerfile::lint::{LintConfig, Linter, Rule};
use crate::{Error, Location};

/// Most stages of a Dockerfile.
///
/// LIMIT: real files have tens.
const MAX_STAGES: usize = 1000;

/// Reads all instructions of a Dockerfile.
pub(in crate::dockerfile) fn read_all(
    nodes: &[Node],
    linter: &mut Linter,
) -> Result<Document, Error> {
    let mut document = Document::default();
    for node in nodes {
        let place = node.place();
        let fail = |why: String| {
            let line = place.first_line;
            at(invalid(format!("dockerfile parse error on line {line}: {why}")), &place)
        };
        if node.name.eq_ignore_ascii_case("from") {
            let stage = stage(node, linter).map_err(fail)?;
            if document.stages.len() >= MAX_STAGES {
                return Err(fail(format!("more than {MAX_STAGES} stages")));
            }
            document.stages.push(stage);
            continue;
        }
        let command = command(node, linter).map_err(fail)?;
        match (document.stages.last_mut(), command) {
            (Some(stage), command) => stage.commands.push(command),
            (None, Command { instruction: Instruction::Arg(args), location, .. }) => {
                document.global_args.push((args, location));
            }
            (None, _) => return Err(at(invalid("no build stage in current context"), &place)),
        }
    }
    if document.stages.is_empty() {
        return Err(invalid("dockerfile contains no stages to build"));
    }
    check_names_and_casing(&document, linter);
    Ok(document)
}

/// Reads the instruction of a trigger.
pub(in crate::dockerfile) fn read_one(node: &Node, linter: &mut Linter) -> Result<Command, Error> {
    let place = node.place();
    command(node, linter).map_err(|why| at(invalid(why), &place))
}

fn stage(node: &Node, linter: &mut Linter) -> Result<Stage, String> {
    let scope = linter.config.scoped(&node.comments);
    let place = node.place();
    let args = &node.args;
    if let [_, keyword, name] = &args[..] {
        if *name != name.to_lowercase() {
            let message = format!("Stage name '{name}' should be lowercase");
            linter.report(&scope, Rule::StageNameCasing, &place, message);
        }
        let (from, lower, upper) =
            (&*node.name, node.name.to_lowercase(), node.name.to_uppercase());
        let agrees = (from == lower && *keyword == keyword.to_lowercase())
            || (from == upper && *keyword == keyword.to_uppercase())
            || (from != lower && from != upper);
        if !agrees {
            let message = format!("'{keyword}' and '{from}' keywords' casing do not match");
            linter.report(&scope, Rule::FromAsCasing, &place, message);
        }
    }
    let name = match &args[..] {
        [_] => String::new(),
        [_, keyword, name] if keyword.eq_ignore_ascii_case("as") => stage_name(name)?,
        _ => return Err("FROM requires either one or three arguments".to_owned()),
    };
    let flags = Flags::read(&node.flags, &[("platform", Kind::One)])?;
    if !name.is_empty() {
        check_description("FROM", &[&name], node, (linter, &scope));
    }
    Ok(Stage {
        description: description(&node.comments, &name),
        name,
        base: args[0].clone(),
        platform: flags.text("platform"),
        keyword: node.name.clone(),
        code: node.original.trim().to_owned(),
        comments: node.comments.clone(),
        location: place,
        commands: Vec::new(),
    })
}

fn stage_name(text: &str) -> Result<String, String> {
    let name = text.to_lowercase();
    let valid = name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.".contains(c));
    match valid {
        true => Ok(name),
        false => Err(format!(
            "invalid name for build stage: {text:?}, name can't start with a number or contain symbols"
        )),
    }
}

/// What a comment `# NAME text` above a definition says.
fn description(comments: &[String], name: &str) -> String {
    let mut said = comments.iter().filter(|_| !name.is_empty());
    let said = said.find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    said.unwrap_or_default().to_owned()
}

fn check_description(
    keyword: &str,
    names: &[&str],
    node: &Node,
    (linter, scope): (&mut Linter, &LintConfig),
) {
    let (Some(comment), Some(first)) = (node.comments.last(), names.first()) else { return };
    if names.contains(&comment.split(' ').next().unwrap_or_default()) {
        return;
    }
    let example = if names.len() > 1 { "<arg_key>" } else { first };
    let message =
        format!("Comment for {keyword} should follow the format: `# {example} <description>`");
    linter.report(scope, Rule::InvalidDefinitionDescription, &node.place(), message);
}

fn command(node: &Node, linter: &mut Linter) -> Result<Command, String> {
    Ok(Command {
        instruction: instruction(node, linter)?,
        keyword: node.name.clone(),
        code: node.original.trim().to_owned(),
        comments: node.comments.clone(),
        location: node.place(),
    })
}

fn instruction(node: &Node, linter: &mut Linter) -> Result<Instruction, String> {
    let scope = linter.config.scoped(&node.comments);
    let no_flags = || Flags::read(&node.flags, &[]).map(drop);
    let keyword = node.name.to_ascii_uppercase();
    let one = || match &node.args[..] {
        [one] => Ok(one.clone()),
        _ => Err(format!("{keyword} requires exactly one argument")),
    };
    let some = || match node.args.is_empty() {
        true => Err(format!("{keyword} requires at least one argument")),
        false => Ok(()),
    };
    match &*keyword {
        "ENV" => no_flags().and_then(|()| pairs(node, "ENV")).map(Instruction::Env),
        "LABEL" => no_flags().and_then(|()| pairs(node, "LABEL")).map(Instruction::Label),
        "MAINTAINER" => {
            let message = "Maintainer instruction is deprecated in favor of using label".to_owned();
            linter.report(&scope, Rule::MaintainerDeprecated, &node.place(), message);
            let author = one()?;
            no_flags().map(|()| Instruction::Maintainer(author))
        }
        "ADD" => copy(node, "ADD", ADD_FLAGS).map(Instruction::Add),
        "COPY" => copy(node, "COPY", COPY_FLAGS).map(Instruction::Copy),
        "ONBUILD" => on_build(node),
        "WORKDIR" => one().and_then(|path| no_flags().map(|()| Instruction::Workdir(path))),
        "RUN" => run(node),
        "CMD" => no_flags().map(|()| Instruction::Cmd(command_line(node))),
        "ENTRYPOINT" => no_flags().map(|()| Instruction::Entrypoint(command_line(node))),
        "HEALTHCHECK" => some().and_then(|()| healthcheck(node)).map(Instruction::Healthcheck),
        "EXPOSE" => {
            some()?;
            let mut ports = node.args.clone();
            ports.sort();
            no_flags().map(|()| Instruction::Expose(ports))
        }
        "USER" => one().and_then(|user| no_flags().map(|()| Instruction::User(user))),
        "VOLUME" => {
            some()?;
            no_flags()?;
            let paths: Vec<String> = node.args.iter().map(|path| path.trim().to_owned()).collect();
            match paths.iter().any(String::is_empty) {
                true => Err("VOLUME specified can not be an empty string".to_owned()),
                false => Ok(Instruction::Volume(paths)),
            }
        }
        "STOPSIGNAL" => one().map(Instruction::StopSignal),
        "ARG" => {
            some()?;
            let args = args(node)?;
            let names: Vec<&str> = args.iter().map(|arg| &*arg.name).collect();
            check_description("ARG", &names, node, (linter, &scope));
            Ok(Instruction::Arg(args))
        }
        "SHELL" => shell(node),
        _ => {
            let hint = did_you_mean(&node.name, KEYWORDS, true);
            Err(format!("unknown instruction: {}{hint}", node.name))
        }
    }
}

fn pairs(node: &Node, keyword: &str) -> Result<Vec<Pair>, String> {
    if node.args.is_empty() {
        return Err(format!("{keyword} requires at least one argument"));
    }
    node.args
        .chunks_exact(3)
        .map(|triple| match triple {
            [name, ..] if name.is_empty() => Err(format!("{keyword} names can not be blank")),
            [name, value, separator] => {
                Ok(Pair { name: name.clone(), value: value.clone(), legacy: separator.is_empty() })
            }
            _ => Err(format!("Bad input to {keyword}, too many arguments")),
        })
        .collect()
}

fn args(node: &Node) -> Result<Vec<ArgDefinition>, String> {
    let definition = |text: &String| {
        let (name, value) = match text.split_once('=') {
            Some(("", _)) => return Err("ARG names can not be blank".to_owned()),
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (&**text, None),
        };
        let description = description(&node.comments, name);
        Ok(ArgDefinition { name: name.to_owned(), value, description })
    };
    node.args.iter().map(definition).collect()
}

const ADD_FLAGS: &[(&str, Kind)] = &[
    ("chown", Kind::One),
    ("chmod", Kind::One),
    ("link", Kind::Switch),
    ("keep-git-dir", Kind::Switch),
    ("checksum", Kind::One),
    ("unpack", Kind::Switch),
    ("exclude", Kind::Many),
];

const COPY_FLAGS: &[(&str, Kind)] = &[
    ("chown", Kind::One),
    ("from", Kind::One),
    ("chmod", Kind::One),
    ("link", Kind::Switch),
    ("exclude", Kind::Many),
    ("parents", Kind::Switch),
];

fn copy(node: &Node, keyword: &str, known: &[(&str, Kind)]) -> Result<CopyInstruction, String> {
    let [sources @ .., target] = &node.args[..] else { return Err(no_target(keyword)) };
    if sources.is_empty() {
        return Err(no_target(keyword));
    }
    let flags = Flags::read(&node.flags, known)?;
    if Heredoc::parse(target).is_some() {
        return Err(format!("{keyword} cannot accept a heredoc as a destination"));
    }
    let mut copy = CopyInstruction {
        target: target.clone(),
        from: flags.text("from"),
        chown: flags.text("chown"),
        chmod: flags.text("chmod"),
        link: flags.switch("link") == Some(true),
        parents: flags.switch("parents") == Some(true),
        exclude: flags.many("exclude"),
        keep_git_dir: flags.switch("keep-git-dir"),
        checksum: flags.text("checksum"),
        unpack: flags.switch("unpack"),
        ..CopyInstruction::default()
    };
    for source in sources {
        match Heredoc::parse(source).filter(|_| !node.json) {
            None => copy.sources.push(source.clone()),
            Some(mark) => {
                let mut same = node.heredocs.iter().rev();
                let body = same.find(|heredoc| heredoc.name == mark.name).cloned();
                copy.contents.push(body.unwrap_or(mark));
            }
        }
    }
    Ok(copy)
}

fn no_target(keyword: &str) -> String {
    format!(
        "{keyword} requires at least two arguments, but only one was provided. Destination could not be determined"
    )
}

fn on_build(node: &Node) -> Result<Instruction, String> {
    let Some(trigger) = node.args.first() else {
        return Err("ONBUILD requires at least one argument".to_owned());
    };
    Flags::read(&node.flags, &[])?;
    match &*trigger.split_whitespace().next().unwrap_or_default().to_uppercase() {
        "ONBUILD" => {
            return Err("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed".to_owned());
        }
        keyword @ ("MAINTAINER" | "FROM") => {
            return Err(format!("{keyword} isn't allowed as an ONBUILD trigger"));
        }
        _ => {}
    }
    let mut text = node.original.trim_start()[node.name.len()..].trim_start().to_owned();
    for heredoc in &node.heredocs {
        text.push('\n');
        text.push_str(&heredoc.content);
        text.push_str(&heredoc.name);
    }
    Ok(Instruction::OnBuild(text))
}

fn command_line(node: &Node) -> CommandLine {
    CommandLine { args: joined(&node.args, node.json), shell: !node.json }
}

fn joined(args: &[String], json: bool) -> Vec<String> {
    if json || args.is_empty() { args.to_vec() } else { vec![args.join(" ")] }
}

fn run(node: &Node) -> Result<Instruction, String> {
    let flags = Flags::read(
        &node.flags,
        &[
            ("mount", Kind::Many),
            ("network", Kind::One),
            ("security", Kind::One),
            ("device", Kind::Many),
        ],
    )?;
    let choice = |name: &str, known: [&str; 3], default: &str| {
        let value = flags.one(name).unwrap_or(default).to_lowercase();
        match known.contains(&&*value) && !value.is_empty() {
            true => Ok(value),
            false => {
                let hint = did_you_mean(&value, known, true);
                Err(match name {
                    "network" => format!("invalid network mode {value:?}{hint}"),
                    _ => format!("{name} {value:?} is not valid{hint}"),
                })
            }
        }
    };
    let mounts = flags.many("mount");
    mounts.iter().try_for_each(|mount| mount_from(mount).map(drop))?;
    Ok(Instruction::Run(RunInstruction {
        line: command_line(node),
        heredocs: node.heredocs.clone(),
        mounts,
        network: choice("network", ["default", "none", "host"], "default")?,
        security: choice("security", ["sandbox", "insecure", ""], "sandbox")?,
        devices: flags.many("device"),
    }))
}

fn healthcheck(node: &Node) -> Result<HealthConfig, String> {
    let kind = node.args[0].to_uppercase();
    let command = joined(&node.args[1..], node.json);
    if kind == "NONE" {
        return match command.is_empty() {
            true => Ok(HealthConfig { test: vec![kind], ..HealthConfig::default() }),
            false => Err("HEALTHCHECK NONE takes no arguments".to_owned()),
        };
    }
    let names = ["interval", "timeout", "start-period", "start-interval", "retries"];
    let flags = Flags::read(&node.flags, &names.map(|name| (name, Kind::One)))?;
    if kind != "CMD" {
        return Err(format!("Unknown type {kind:?} in HEALTHCHECK (try CMD)"));
    }
    if command.is_empty() {
        return Err("Missing command after HEALTHCHECK CMD".to_owned());
    }
    let first = if node.json { "CMD" } else { "CMD-SHELL" };
    Ok(HealthConfig {
        test: std::iter::once(first.to_owned()).chain(command).collect(),
        interval: interval(&flags, "interval")?,
        timeout: interval(&flags, "timeout")?,
        start_period: interval(&flags, "start-period")?,
        start_interval: interval(&flags, "start-interval")?,
        retries: retries(flags.one("retries").unwrap_or_default())?,
    })
}

/// A duration of at least a millisecond, or nothing; in nanoseconds.
fn interval(flags: &Flags, name: &str) -> Result<i64, String> {
    let text = flags.one(name).unwrap_or_default();
    if text.is_empty() || text == "0" {
        return Ok(0);
    }
    if text.starts_with('-') {
        return Err(format!("Interval {name:?} cannot be less than 1ms"));
    }
    let duration =
        units::parse_duration(text).map_err(|_| format!("time: invalid duration {text:?}"))?;
    match i64::try_from(duration.as_nanos()) {
        Ok(0) => Ok(0),
        Ok(nanos) if nanos < 1_000_000 => Err(format!("Interval {name:?} cannot be less than 1ms")),
        Ok(nanos) => Ok(nanos),
        Err(_) => Err(format!("time: invalid duration {text:?}")),
    }
}

fn retries(text: &str) -> Result<i64, String> {
    if text.is_empty() {
        return Ok(0);
    }
    let number = text
        .parse::<i32>()
        .map_err(|_| format!("strconv.ParseInt: parsing {text:?}: invalid syntax"))?;
    match number < 0 {
        true => Err(format!("--retries cannot be negative ({number})")),
        false => Ok(number.into()),
    }
}

fn shell(node: &Node) -> Result<Instruction, String> {
    Flags::read(&node.flags, &[])?;
    if node.args.is_empty() {
        return Err("SHELL requires at least one argument".to_owned());
    }
    if !node.json {
        return Err("SHELL requires the arguments to be in JSON form".to_owned());
    }
    Ok(Instruction::Shell(node.args.clone()))
}

fn check_names_and_casing(document: &Document, linter: &mut Linter) {
    let config = linter.config.clone();
    let mut seen: Vec<&str> = Vec::new();
    for stage in document.stages.iter().filter(|stage| !stage.name.is_empty()) {
        let (name, place) = (&*stage.name, &stage.location);
        if matches!(name, "context" | "scratch") {
            let message =
                format!("Stage name should not use the same name as reserved stage {name:?}");
            linter.report(&config, Rule::ReservedStageName, place, message);
        }
        if seen.contains(&name) {
            let message = format!("Duplicate stage name {name:?}, stage names should be unique");
            linter.report(&config, Rule::DuplicateStageName, place, message);
        }
        seen.push(name);
    }
    let keywords: Vec<(&str, &Location)> = document
        .stages
        .iter()
        .flat_map(|stage| {
            let commands = stage.commands.iter();
            std::iter::once((&*stage.keyword, &stage.location))
                .chain(commands.map(|command| (&*command.keyword, &command.location)))
        })
        .collect();
    let lower = keywords.iter().filter(|(word, _)| *word == word.to_lowercase()).count();
    let upper = keywords.iter().filter(|(word, _)| *word == word.to_uppercase()).count();
    let (right, shown): (fn(&str) -> String, _) = if lower > upper {
        (str::to_lowercase, "lowercase")
    } else {
        (str::to_uppercase, "uppercase")
    };
    for (word, place) in keywords.into_iter().filter(|(word, _)| *word != right(word)) {
        let message =
            format!("Command '{word}' should match the case of the command majority ({shown})");
        linter.report(&config, Rule::ConsistentInstructionCasing, place, message);
    }
}

//! Why a step runs: what changed of it since a step of the same name ran last.

use std::collections::BTreeMap;

use super::cache::Reasons;
use super::flight::Audience;
use super::key::Keyed;
use super::walk::{Keys, Walk};
use crate::Error;
use crate::contract::LogStream;
use crate::graph::{Graph, Input, Op, Vertex, VertexId};

/// LIMIT: changed entries that are told one by one.
const MAX_TOLD: usize = 20;

/// What the state is called in which a step works.
pub(crate) const BASE: &str = "the base";

/// Names the state in which a step works by what made it.
pub(crate) fn base(graph: &Graph, vertex: &Vertex) -> String {
    let input = match &vertex.op {
        Op::Exec(exec) => {
            exec.mounts.iter().find(|mount| mount.target == "/").and_then(|mount| mount.input)
        }
        Op::File(file) => Some(file.base),
        _ => None,
    };
    let Some(Input::Output(output)) = input else { return BASE.to_owned() };
    match graph.vertex(output.vertex) {
        Some(Vertex { op: Op::Image(image), .. }) => format!("{BASE} image {}", image.reference),
        Some(made) => format!("{BASE} ({})", uncounted(&made.name)),
        None => BASE.to_owned(),
    }
}

/// The ids of what is known of a step: by its name, and for a program by its command, as the name shows values of
/// variables and those may be what changed. Of steps that are alike each has its own, in the order of the graph.
pub(crate) fn ids(graph: &Graph, own: VertexId, vertex: &Vertex) -> (String, Option<String>) {
    let name = uncounted(&vertex.name);
    let platform = vertex.platform.to_string();
    let before = graph.vertices().take(own.0 as usize);
    let before = before.map(|(_, other)| other).filter(|other| other.platform == vertex.platform);
    let alike = before.filter(|other| uncounted(&other.name) == name).count();
    let id = |kind: &str, texts: &[&str]| {
        let mut key = texts.iter().fold(Keyed::new(kind), |key, text| key.with(text.as_bytes()));
        if alike > 0 {
            key = key.with(&(alike as u64).to_le_bytes());
        }
        key.with(platform.as_bytes()).digest().hex().to_owned()
    };
    let other = match &vertex.op {
        Op::Exec(exec) => {
            let stage = name.split_once(']').map_or("", |(stage, _)| stage);
            Some(id("reasons of a command", &[stage, &exec.args.join("\0")]))
        }
        _ => None,
    };
    (id("reasons", &[&name]), other)
}

/// `[build 2/5] RUN make` without its place: steps before it may come and go.
fn uncounted(name: &str) -> String {
    let is_place = |word: &str| {
        word.split_once('/').is_some_and(|(done, total)| {
            [done, total].iter().all(|number| number.trim().parse::<u32>().is_ok())
        })
    };
    match name.strip_prefix('[').and_then(|rest| rest.split_once("] ")) {
        Some((words, text)) => {
            let words: Vec<&str> =
                words.split_whitespace().filter(|word| !is_place(word)).collect();
            if words.is_empty() { text.to_owned() } else { format!("[{}] {text}", words.join(" ")) }
        }
        None => name.to_owned(),
    }
}

/// Writes an operation as fields, one a line, so that those that changed can be told apart.
pub(crate) fn fields(vertex: &Vertex) -> String {
    let mut lines = Vec::new();
    match &vertex.op {
        Op::Exec(exec) => {
            lines.push(format!("command: {}", exec.args.join(" ")));
            lines.extend(exec.env.iter().map(|variable| format!("variable {variable}")));
            lines.push(format!("user: {}", exec.user));
            lines.push(format!("working directory: {}", exec.cwd));
            for mount in &exec.mounts {
                let kind = format!("{:?} {} {}", mount.kind, mount.selector, mount.readonly);
                lines.push(format!("mount {}: {kind}", mount.target));
            }
            lines.push(format!("network: {:?}", exec.network));
            lines.push(format!("security: {:?}", exec.security));
            lines.push(format!("hosts: {:?}", exec.extra_hosts));
        }
        op => lines.push(format!("operation: {}", super::key::describe(op, &vertex.platform))),
    }
    lines.join("\n")
}

/// Tells a build why one of its steps runs.
pub(crate) async fn tell(
    walk: &Walk,
    vertex: &Vertex,
    keys: &Keys,
    audience: &Audience,
) -> Result<(), Error> {
    let why = if vertex.ignore_cache {
        vec!["the cache was not to be used".to_owned()]
    } else {
        let cache = &walk.inner.parts.cache;
        let mut last = cache.reasons(&keys.reasons.id).await?;
        if let (None, Some(other)) = (&last, &keys.other) {
            last = cache.reasons(other).await?;
        }
        match last {
            None => vec!["no step of this name ran before".to_owned()],
            Some(last) => compare(&last, &keys.reasons),
        }
    };
    for line in why {
        audience.log(LogStream::Stderr, format!("why: {line}\n").as_bytes());
    }
    Ok(())
}

/// Compares what a step is made of with what it was made of.
pub(crate) fn compare(last: &Reasons, now: &Reasons) -> Vec<String> {
    let mut why = Vec::new();
    changed_fields(&last.op, &now.op, &mut why);
    for (number, (name, content, entries)) in now.inputs.iter().enumerate() {
        match last.inputs.get(number) {
            None => why.push(format!("{name} is new")),
            Some((_, before, _)) if before == content => {}
            Some((_, _, before)) => changed_entries(name, before, entries, &mut why),
        }
    }
    if why.is_empty() {
        why.push("nothing changed, but what it made is no longer in the cache".to_owned());
    }
    why
}

fn split(line: &str) -> (&str, &str) {
    line.split_once(": ").or_else(|| line.split_once('=')).unwrap_or((line, ""))
}

fn changed_fields(last: &str, now: &str, why: &mut Vec<String>) {
    let before = last.lines().map(split).collect::<BTreeMap<_, _>>();
    let after = now.lines().map(split).collect::<BTreeMap<_, _>>();
    for (name, value) in &after {
        match before.get(name) {
            Some(old) if old == value => {}
            Some(old) => why.push(format!("{name} changed from {old:?} to {value:?}")),
            None => why.push(format!("{name} is new")),
        }
    }
    let gone = before.keys().filter(|name| !after.contains_key(*name));
    why.extend(gone.map(|name| format!("{name} is gone")));
}

fn changed_entries(
    name: &str,
    before: &[(String, u64)],
    after: &[(String, u64)],
    why: &mut Vec<String>,
) {
    if before.is_empty() || after.is_empty() {
        why.push(format!("{name} changed"));
        return;
    }
    let before = before.iter().cloned().collect::<BTreeMap<_, _>>();
    let after = after.iter().cloned().collect::<BTreeMap<_, _>>();
    let mut told = Vec::new();
    for (path, digest) in &after {
        match before.get(path) {
            Some(old) if old == digest => {}
            Some(_) => told.push(format!("{path} changed")),
            None => told.push(format!("{path} is new")),
        }
    }
    told.extend(
        before
            .keys()
            .filter(|path| !after.contains_key(*path))
            .map(|path| format!("{path} is gone")),
    );
    if told.is_empty() {
        told.push(format!("{name} changed"));
    }
    let more = told.len().saturating_sub(MAX_TOLD);
    why.extend(told.into_iter().take(MAX_TOLD));
    if more > 0 {
        why.push(format!("and {more} more"));
    }
}

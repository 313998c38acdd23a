//! Questions about a Dockerfile that are answered without building: checks, parameters, targets.
//!
//! Answers come as documents in BuildKit's form (`result.json`) and as text for people (`result.txt`).

use std::collections::BTreeSet;

use base64::Engine as _;
use serde::Serialize;
use serde_json::{Value, json};

use super::convert::{ArgRecord, Need, Reach, StageState, walk};
use super::instruction::read_all;
use super::lint::Linter;
use super::source::excerpt;
use super::{FrontendRequest, Resolver, SourceFile, Warning, lines};
use crate::{Error, Location};

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The document.
    pub json: String,
    /// For people.
    pub text: String,
    /// Exit code of checks: 1 when something was found.
    pub status: Option<i32>,
}

/// Version of all answers.
pub const ANSWER_VERSION: &str = "1.0.0";

/// Lists the questions that this front end answers. COMPAT: checks are not in the list.
pub fn describe() -> Answer {
    let target = json!([{"name": "target", "description": "Target build stage"}]);
    let described = [
        ("frontend.outline", "List all parameters current build target supports", target),
        ("frontend.targets", "List all targets current build supports", json!([])),
        ("frontend.subrequests.describe", "List available subrequest types", Value::Null),
    ];
    let mut rows = vec![vec!["NAME".to_owned(), "VERSION".to_owned(), "DESCRIPTION".to_owned()]];
    let mut documents = Vec::new();
    for (name, description, opts) in described {
        let metadata =
            ["result.json", "result.txt"].map(|name| json!({"name": name, "description": ""}));
        documents.push(json!({
            "name": name, "version": ANSWER_VERSION, "type": "rpc", "description": description,
            "opts": opts, "inputs": null, "metadata": metadata, "refs": null,
        }));
        let short = name.trim_start_matches("frontend.").to_owned();
        rows.push(vec![short, ANSWER_VERSION.to_owned(), description.to_owned()]);
    }
    Answer { json: pretty(&documents), text: table(&rows, 1), status: None }
}

/// Lists the stages of a Dockerfile.
pub fn targets(source: &SourceFile) -> Result<Answer, Error> {
    let parsed = lines::parse(source)?;
    let document = read_all(&parsed.nodes, &mut Linter::default())?;
    let last = document.stages.len() - 1;
    let mut rows = vec![vec!["TARGET".to_owned(), "DESCRIPTION".to_owned()]];
    let mut list = Vec::new();
    for (number, stage) in document.stages.iter().enumerate() {
        let is_default = number == last;
        let shown = match (&*stage.name, is_default) {
            ("", true) => "(default)".to_owned(),
            (name, true) => format!("{name} (default)"),
            (name, false) => name.to_owned(),
        };
        rows.push(vec![shown, stage.description.clone()]);
        list.push(Target {
            name: &stage.name,
            default: is_default,
            description: &stage.description,
            base: &stage.base,
            platform: &stage.platform,
            location: ranges(&stage.location),
        });
    }
    let document = json!({"targets": list, "sources": [encoded(source)]});
    Ok(Answer { json: pretty(&document), text: table(&rows, 1), status: None })
}

#[derive(Serialize)]
struct Target<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    name: &'a str,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    default: bool,
    #[serde(skip_serializing_if = "str::is_empty")]
    description: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    base: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    platform: &'a str,
    location: Value,
}

/// Lists arguments, secrets and agents that the target asks for.
pub async fn outline(request: &FrontendRequest, resolver: &dyn Resolver) -> Result<Answer, Error> {
    let mut linter = Linter::default();
    let mut walked = walk(request, resolver, Reach::Target, &mut linter).await?;
    let platform = walked.platforms.swap_remove(0);
    let gathered = Gathered::of(&platform.stages, platform.target);
    let target = &platform.stages[platform.target].stage;
    Ok(Answer {
        json: pretty(&gathered.document(&target.name, &target.description, &request.source)),
        text: gathered.text(&target.name, &target.description),
        status: None,
    })
}

/// What a target and all that it needs ask for.
struct Gathered {
    args: Vec<ArgRecord>,
    secrets: Vec<(String, Need)>,
    ssh: Vec<(String, Need)>,
}

impl Gathered {
    fn of(stages: &[StageState], target: usize) -> Self {
        let mut gathered = Self { args: Vec::new(), secrets: Vec::new(), ssh: Vec::new() };
        let mut seen = BTreeSet::new();
        let mut open = vec![target];
        while let Some(number) = open.pop() {
            if seen.insert(number) {
                let state = &stages[number];
                gathered.add(state);
                open.extend(state.needs.iter().map(|(need, _)| *need).chain(state.base));
            }
        }
        gathered.args.sort_by_key(|arg| arg.location.first_line);
        gathered.secrets.sort_by_key(|(_, need)| need.location.first_line);
        gathered.ssh.sort_by_key(|(_, need)| need.location.first_line);
        gathered
    }

    fn add(&mut self, state: &StageState) {
        let outline = &state.outline;
        // An argument in whose default another one stands needs that one, too.
        let mut used = BTreeSet::new();
        let mut open: Vec<&String> = outline.used.iter().collect();
        while let Some(name) = open.pop() {
            if used.insert(name) {
                open.extend(outline.args.get(name).into_iter().flat_map(|arg| &arg.needs));
            }
        }
        for record in used.into_iter().filter_map(|name| outline.args.get(name)) {
            if !self.args.iter().any(|known| known.definition.name == record.definition.name) {
                self.args.push(record.clone());
            }
        }
        for (list, found) in [(&mut self.secrets, &outline.secrets), (&mut self.ssh, &outline.ssh)]
        {
            for (name, need) in found {
                if !list.iter().any(|(known, _)| known == name) {
                    list.push((name.clone(), need.clone()));
                }
            }
        }
    }

    fn document(&self, name: &str, description: &str, source: &SourceFile) -> Value {
        let mut document = serde_json::Map::new();
        let mut put = |key: &str, value: Value| {
            let empty = value.as_str() == Some("") || value.as_array().is_some_and(Vec::is_empty);
            if !empty {
                document.insert(key.to_owned(), value);
            }
        };
        put("name", json!(name));
        put("description", json!(description));
        let args = self.args.iter().map(|arg| {
            let mut one = serde_json::Map::new();
            one.insert("name".to_owned(), json!(arg.definition.name));
            for (key, text) in [("description", &arg.definition.description), ("value", &arg.value)]
            {
                if !text.is_empty() {
                    one.insert(key.to_owned(), json!(text));
                }
            }
            one.insert("location".to_owned(), ranges(&arg.location));
            Value::Object(one)
        });
        put("args", Value::Array(args.collect()));
        let needs = |list: &[(String, Need)]| {
            let each = list.iter().map(|(name, need)| {
                let mut one = serde_json::Map::new();
                one.insert("name".to_owned(), json!(name));
                if need.required {
                    one.insert("required".to_owned(), json!(true));
                }
                one.insert("location".to_owned(), ranges(&need.location));
                Value::Object(one)
            });
            Value::Array(each.collect())
        };
        put("secrets", needs(&self.secrets));
        put("ssh", needs(&self.ssh));
        put("sources", json!([encoded(source)]));
        Value::Object(document)
    }

    fn text(&self, name: &str, description: &str) -> String {
        let mut text = String::new();
        let row = |cells: &[&str]| cells.iter().map(|&cell| cell.to_owned()).collect::<Vec<_>>();
        if !name.is_empty() || !description.is_empty() {
            let shown = if name.is_empty() { "(default)" } else { name };
            let mut rows = vec![row(&["TARGET:", shown])];
            if !description.is_empty() {
                rows.push(row(&["DESCRIPTION:", description]));
            }
            text.push_str(&table(&rows, 1));
            text.push('\n');
        }
        if !self.args.is_empty() {
            let args = self.args.iter();
            let mut rows = vec![row(&["BUILD ARG", "VALUE", "DESCRIPTION"])];
            rows.extend(
                args.map(|arg| {
                    row(&[&arg.definition.name, &arg.value, &arg.definition.description])
                }),
            );
            text.push_str(&table(&rows, 3));
            text.push('\n');
        }
        for (title, list) in [("SECRET", &self.secrets), ("SSH", &self.ssh)] {
            if !list.is_empty() {
                let mut rows = vec![row(&[title, "REQUIRED"])];
                rows.extend(
                    list.iter()
                        .map(|(name, need)| row(&[name, if need.required { "true" } else { "" }])),
                );
                text.push_str(&table(&rows, 3));
                text.push('\n');
            }
        }
        text
    }
}

/// Checks a Dockerfile: all its stages, or those that the target needs when one is named.
///
/// A mistake that would fail the build is part of the answer, with what was found before it.
pub async fn lint(request: &FrontendRequest, resolver: &dyn Resolver) -> Result<Answer, Error> {
    let mut linter = Linter::default();
    let reach = if request.options.target.is_empty() { Reach::All } else { Reach::Target };
    let failed = match walk(request, resolver, reach, &mut linter).await {
        Ok(_) => linter.verdict().err().map(|message| (message, None)),
        Err(Error::Cancelled) => return Err(Error::Cancelled),
        Err(error) => {
            let place = error.location().cloned();
            Some((rorqual_core::full_message(&error), place))
        }
    };
    let mut found = linter.found;
    found.sort_by_key(|warning| warning.location.as_ref().map(|place| place.first_line));
    let source = &request.source;
    let warnings: Vec<Value> = found.iter().map(warning_document).collect();
    let mut document = serde_json::Map::new();
    let warnings = if warnings.is_empty() { Value::Null } else { Value::Array(warnings) };
    document.insert("warnings".to_owned(), warnings);
    let file = json!({"filename": source.name, "data": encoded(source), "language": "Dockerfile"});
    document.insert("sources".to_owned(), json!([file]));
    if let Some((message, place)) = &failed {
        let location = place.as_ref().map_or_else(|| json!({}), ranges);
        document.insert("buildError".to_owned(), json!({"message": message, "location": location}));
    }
    let status = i32::from(failed.is_some() || !found.is_empty());
    let text = found.iter().map(|warning| warning_text(warning, source)).collect();
    Ok(Answer { json: pretty(&document), text, status: Some(status) })
}

fn warning_document(warning: &Warning) -> Value {
    let mut one = serde_json::Map::new();
    one.insert("ruleName".to_owned(), json!(warning.rule));
    one.insert("description".to_owned(), json!(warning.description));
    if !warning.url.is_empty() {
        one.insert("url".to_owned(), json!(warning.url));
    }
    one.insert("detail".to_owned(), json!(warning.message));
    if let Some(place) = &warning.location {
        one.insert("location".to_owned(), ranges(place));
    }
    Value::Object(one)
}

fn warning_text(warning: &Warning, source: &SourceFile) -> String {
    let url = match &*warning.url {
        "" => String::new(),
        url => format!(" - {url}"),
    };
    let place = warning.location.as_ref().map(|place| excerpt(source, place));
    format!("\nWARNING: {}{url}\n{}\n{}", warning.rule, warning.message, place.unwrap_or_default())
}

/// A place as BuildKit writes it: one range per line.
fn ranges(place: &Location) -> Value {
    let line = |line: u32| json!({"start": {"line": line}, "end": {"line": line}});
    let lines: Vec<Value> = (place.first_line..=place.last_line).map(line).collect();
    json!({ "ranges": lines })
}

fn encoded(source: &SourceFile) -> String {
    base64::engine::general_purpose::STANDARD.encode(&source.text)
}

fn pretty(document: &impl Serialize) -> String {
    serde_json::to_string_pretty(document).unwrap_or_default()
}

/// Columns as wide as their widest cell and `padding` more; the last one is not padded.
fn table(rows: &[Vec<String>], padding: usize) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0) + padding
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        for (column, cell) in row.iter().enumerate() {
            let last = column + 1 == row.len();
            let fill = if last { 0 } else { widths[column] - cell.chars().count() };
            text.push_str(cell);
            text.push_str(&" ".repeat(fill));
        }
        text.push('\n');
    }
    text
}

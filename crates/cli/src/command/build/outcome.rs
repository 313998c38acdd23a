//! What a successful build leaves: ids, files with facts, answers to questions.

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json};

use super::options::After;
use super::progress::{Screen, excerpt};
use crate::cli::Cli;
use crate::failure::{Failure, Outcome, open_failure};
use crate::flag::Matches;

/// `12.5MB`, as sizes of the cache are shown.
pub(in crate::command) fn size(bytes: u64) -> String {
    rorqual_core::units::human_size(bytes)
}

/// Ends a build that went well.
pub(super) fn finish(
    cli: &Cli,
    matches: &Matches,
    after: &After,
    told: &BTreeMap<String, String>,
    screen: &mut Screen,
) -> Outcome {
    if let Some((name, format)) = &after.question {
        return answer(cli, name, format, told);
    }
    let id = told.get("containerimage.config.digest").or(told.get("containerimage.digest"));
    if !matches.text("iidfile").is_empty() {
        let path = matches.text("iidfile");
        let id = id.map_or("", String::as_str);
        std::fs::write(path, id).map_err(|error| open_failure(path, &error))?;
    }
    if !matches.text("metadata-file").is_empty() {
        let path = matches.text("metadata-file");
        let text = format!("{:#}\n", metadata(told));
        std::fs::write(path, text).map_err(|error| open_failure(path, &error))?;
    }
    super::caches::finish(&after.caches, told)?;
    let descriptor = told.get("containerimage.descriptor").and_then(|text| packed(text));
    super::caches::finish_layouts(&after.layouts, descriptor.as_ref())?;
    screen.warnings(cli.root.on("debug"))?;
    if matches.on("quiet")
        && let Some(id) = id
    {
        cli.line(id)?;
    }
    Ok(0)
}

/// The facts as a document; what is JSON in base64 is shown as JSON.
pub(super) fn metadata(told: &BTreeMap<String, String>) -> Json {
    let value = |text: &String| match serde_json::from_str::<Json>(text) {
        Ok(value @ (Json::Object(_) | Json::Array(_))) => value,
        _ => packed(text).unwrap_or_else(|| Json::from(text.as_str())),
    };
    told.iter().map(|(name, text)| (name.clone(), value(text))).collect::<Map<_, _>>().into()
}

/// Reads a document in base64.
fn packed(text: &str) -> Option<Json> {
    use base64::Engine as _;
    let bytes = base64::engine::general_purpose::STANDARD.decode(text).ok()?;
    serde_json::from_slice(&bytes).ok().filter(Json::is_object)
}

fn answer(cli: &Cli, name: &str, format: &str, told: &BTreeMap<String, String>) -> Outcome {
    let answer = Answer::read(name, told)?;
    // COMPAT: the answer stands apart from the progress, also from none.
    let is_json = format == "json";
    if is_json {
        let document = told.get("result.json").map_or("", String::as_str);
        cli.print(&format!("\n{}", with_end(document)))?;
    } else {
        cli.print(&format!("\n{}", answer.text))?;
    }
    if let Some(error) = &answer.error {
        if !is_json {
            cli.line("")?;
        }
        cli.complain(&format!("ERROR: {error}"));
    }
    Ok(answer.code)
}

fn with_end(text: &str) -> String {
    let end = if text.ends_with('\n') { "" } else { "\n" };
    format!("{text}{end}")
}

/// What a question was answered with.
pub(super) struct Answer {
    /// Exit code.
    pub(super) code: u8,
    /// For people, ended by a line feed unless it is empty.
    pub(super) text: String,
    /// Why the Dockerfile cannot be built at all, with its lines.
    pub(super) error: Option<String>,
    /// For programs.
    pub(super) document: Json,
}

impl Answer {
    /// Reads what the builder told about a question.
    pub(super) fn read(name: &str, told: &BTreeMap<String, String>) -> Result<Self, Failure> {
        let Some(own) = told.get("result.txt") else {
            return Err(Failure::new(format!(
                "ERROR: the builder did not answer the question {name:?}"
            )));
        };
        let document = told.get("result.json").and_then(|json| serde_json::from_str(json).ok());
        let document: Json = document.unwrap_or_default();
        let error = error_of(&document);
        let mut text = String::new();
        if matches!(name, "check" | "lint") {
            match document["warnings"].as_array().map_or(0, Vec::len) {
                0 if error.is_some() => {}
                0 => text.push_str("Check complete, no warnings found.\n"),
                1 => text.push_str("Check complete, 1 warning has been found!\n"),
                many => {
                    text.push_str(&format!("Check complete, {many} warnings have been found!\n"));
                }
            }
        }
        if !own.trim().is_empty() {
            text.push_str(&with_end(own));
        }
        let code = told.get("result.statuscode").and_then(|code| code.parse().ok()).unwrap_or(0);
        Ok(Self { code, text, error, document })
    }
}

/// The failure that an answer tells of, with the lines that it is about.
fn error_of(document: &Json) -> Option<String> {
    use base64::Engine as _;
    let message = document["buildError"]["message"].as_str()?;
    let location = &document["buildError"]["location"];
    let index = location["sourceIndex"].as_u64().unwrap_or(0) as usize;
    let source = &document["sources"][index];
    let data = source["data"].as_str().unwrap_or_default();
    let data = base64::engine::general_purpose::STANDARD.decode(data).unwrap_or_default();
    let line = |position: &Json| position["line"].as_u64().and_then(|line| line.try_into().ok());
    let ranges = location["ranges"].as_array().into_iter().flatten().filter_map(|range| {
        let first: u32 = line(&range["start"])?;
        Some((first, line(&range["end"]).unwrap_or(first)))
    });
    let ranges: Vec<(u32, u32)> = ranges.collect();
    let name = source["filename"].as_str().unwrap_or("Dockerfile");
    let lines = excerpt(name, &String::from_utf8_lossy(&data), &ranges);
    Some(format!("{message}\n{lines}"))
}

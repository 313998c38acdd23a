//! What a successful build leaves: ids, files with facts, answers to questions.

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json};

use super::options::After;
use super::progress::Screen;
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
    let key = if format == "json" { "result.json" } else { "result.txt" };
    let Some(text) = told.get(key) else {
        return Err(Failure::new(format!(
            "ERROR: the builder did not answer the question {name:?}"
        )));
    };
    let warnings = told.get("result.json").and_then(|json| serde_json::from_str::<Json>(json).ok());
    let warnings = warnings.map_or(0, |json| json["warnings"].as_array().map_or(0, Vec::len));
    let tells = matches!(name, "check" | "lint") && format != "json";
    match warnings {
        0 => {}
        1 if tells => cli.line("Check complete, 1 warning has been found!")?,
        _ if tells => cli.line(&format!("Check complete, {warnings} warnings have been found!"))?,
        _ => {}
    }
    cli.print(text)?;
    if !text.ends_with('\n') {
        cli.line("")?;
    }
    let code = told.get("result.statuscode").and_then(|code| code.parse().ok());
    if tells && warnings == 0 && code.unwrap_or(0) == 0 && text.trim().is_empty() {
        cli.line("Check complete, no warnings found.")?;
    }
    Ok(code.unwrap_or(0))
}

//! Parser directives: `# syntax=…`, `# escape=…`, `# check=…` at the very top of a Dockerfile.

use super::fault::{at, invalid};
use super::source::{discard_bom, line_location};
use crate::{Error, Location};

/// Reads directives line by line, until something else comes.
#[derive(Debug)]
pub(super) struct Directives<'a> {
    comment: &'a str,
    seen: Vec<&'static str>,
    done: bool,
}

impl<'a> Directives<'a> {
    pub(super) const fn new(comment: &'a str) -> Self {
        Self { comment, seen: Vec::new(), done: false }
    }

    /// Looks at the next line; returns name and value when it is a directive.
    pub(super) fn line<'t>(
        &mut self,
        line: &'t str,
    ) -> Result<Option<(&'static str, &'t str)>, String> {
        let found = if self.done { None } else { parse(line, self.comment) };
        let Some((name, value)) = found else {
            self.done = true;
            return Ok(None);
        };
        if self.seen.contains(&name) {
            return Err(format!("only one {name} parser directive can be used"));
        }
        self.seen.push(name);
        Ok(Some((name, value)))
    }
}

fn parse<'t>(line: &'t str, comment: &str) -> Option<(&'static str, &'t str)> {
    let body = line.strip_prefix(comment)?.trim_start();
    let (name, value) = body.split_once('=')?;
    let (name, value) = (name.trim_end(), value.trim());
    if value.is_empty() {
        return None;
    }
    let known = ["syntax", "escape", "check"].into_iter();
    known.into_iter().find(|known| known.eq_ignore_ascii_case(name)).map(|name| (name, value))
}

/// Finds one directive in a text that may begin with `#!`.
fn find<'t>(name: &str, text: &'t str, comment: &str) -> Option<(&'t str, u32)> {
    let mut directives = Directives::new(comment);
    for (number, line) in discard_bom(text).lines().enumerate() {
        if number == 0 && line.starts_with("#!") {
            continue;
        }
        match directives.line(line) {
            Ok(Some((found, value))) if found == name => return Some((value, number as u32 + 1)),
            Ok(Some(_)) => {}
            Ok(None) | Err(_) => return None,
        }
    }
    None
}

/// The options of the `check` directive.
pub(super) fn check_of(text: &str) -> Option<&str> {
    find("check", text, "#").map(|(value, _)| value)
}

/// Which front end a file asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Syntax {
    /// Reference of the front end's image.
    pub image: String,
    /// The directive's whole value; words behind the image are for the front end.
    pub command: String,
    /// Where it says so.
    pub location: Location,
}

/// Finds which front end a file asks for: by `# syntax=`, by `// syntax=`, or as JSON with a member `syntax`.
pub fn syntax_of(file: &str, text: &str) -> Option<Syntax> {
    let json = || {
        let value: serde_json::Value = serde_json::from_str(text).ok()?;
        Some((value.get("syntax")?.as_str()?.to_owned(), 1))
    };
    let directive =
        |comment| find("syntax", text, comment).map(|(value, line)| (value.to_owned(), line));
    let (command, line) = directive("#").or_else(|| directive("//")).or_else(json)?;
    let image = command.split(' ').next().unwrap_or_default().to_owned();
    Some(Syntax { image, command, location: line_location(file, line, line) })
}

/// Tells whether this front end answers for an image: the official Dockerfile front ends, whatever their version.
pub fn answers_for(image: &str) -> bool {
    let name = image.strip_prefix("docker.io/").unwrap_or(image);
    let name = name.split('@').next().unwrap_or(name);
    let (repository, _) = name.split_once(':').unwrap_or((name, ""));
    matches!(repository, "dockerfile.v0" | "docker/dockerfile" | "docker/dockerfile-upstream")
}

/// Refuses a Dockerfile that asks for another front end than this one.
pub(super) fn refuse_other(file: &str, text: &str, chosen: Option<&str>) -> Result<(), Error> {
    let (image, place) = match chosen {
        Some(image) => (image.split(' ').next().unwrap_or_default().to_owned(), None),
        None => match syntax_of(file, text) {
            Some(syntax) => (syntax.image, Some(syntax.location)),
            None => return Ok(()),
        },
    };
    if answers_for(&image) {
        return Ok(());
    }
    let error = invalid(format!(
        "the build asks for the front end {image:?}, which this builder cannot run: \
         it answers for docker/dockerfile itself; remove the syntax directive or name docker/dockerfile:1"
    ));
    Err(match place {
        Some(place) => at(error, &place),
        None => error,
    })
}

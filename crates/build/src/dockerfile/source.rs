//! Source text: its bounds, places in it, and how an error shows it.

use super::fault::invalid;
use super::{FileSource, IgnoreFile, Resolver, SourceFile};
use crate::{Error, Location};

/// Longest Dockerfile.
///
/// LIMIT: heredocs may be long; more than this is a mistake or an attack.
pub const MAX_SOURCE: usize = 4 << 20;

/// Longest line, as BuildKit has it.
pub(super) const MAX_LINE: usize = 65_535;

/// Longest ignore file.
///
/// LIMIT: real ones have a few kilobytes.
const MAX_IGNORE: usize = 1 << 20;

pub(super) fn discard_bom(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

pub(super) fn line_location(file: &str, first: u32, last: u32) -> Location {
    Location {
        file: file.to_owned(),
        first_line: first,
        first_column: 0,
        last_line: last.max(first),
    }
}

/// Renders the lines around a place, marked with `>>>`, as BuildKit prints them; empty when the place is not in the text.
pub fn excerpt(source: &SourceFile, place: &Location) -> String {
    let lines: Vec<&str> = source.text.split('\n').collect();
    let (first, last) = (place.first_line as usize, place.last_line.max(place.first_line) as usize);
    if first < 1 || first > lines.len() {
        return String::new();
    }
    let (mut start, mut end) = (first, last.min(lines.len()));
    // Lines before and after in turn, until there is a little more than the place itself.
    let wanted = if last == first { 4 } else { 2 };
    let mut added = 0;
    while added < wanted {
        if start > 1 {
            start -= 1;
            added += 1;
        }
        if end != lines.len() {
            end += 1;
            added += 1;
        }
        added += 1;
    }
    let rule = "--------------------\n";
    let mut shown = format!("{}:{first}\n{rule}", source.name);
    for number in start..=end {
        let mark = if (first..=last).contains(&number) { ">>>" } else { "   " };
        let line = lines[number - 1].strip_suffix('\r').unwrap_or(lines[number - 1]);
        shown.push_str(&format!(" {number:3} | {mark} {line}\n"));
    }
    shown.push_str(rule);
    shown
}

/// Reads a Dockerfile by its name, with the ignore file beside it. `Dockerfile` is also found as `dockerfile`.
pub async fn load_source(
    filename: &str,
    from: FileSource,
    resolver: &dyn Resolver,
) -> Result<(SourceFile, Option<IgnoreFile>), Error> {
    let ignore_name = format!("{filename}.dockerignore");
    let folder = filename.rfind('/').map_or("", |slash| &filename[..=slash]);
    let lower = (&filename[folder.len()..] == "Dockerfile").then(|| format!("{folder}dockerfile"));
    let mut names = vec![filename, &*ignore_name];
    names.extend(lower.as_deref());
    let label = format!("[internal] load build definition from {filename}");
    let mut found = resolver.read_files(from, &names, &label).await?.into_iter();
    let mut take = || found.next().flatten();
    let (exact, ignore, lower) = (take(), take(), take());
    let Some(bytes) = exact.or(lower) else {
        let message =
            format!("failed to read dockerfile: open {filename}: no such file or directory");
        return Err(Error::NotFound { message, location: None });
    };
    if bytes.len() > MAX_SOURCE {
        let size = bytes.len();
        return Err(invalid(format!(
            "{filename} has {size} bytes, more than the {MAX_SOURCE} that a Dockerfile may have"
        )));
    }
    let text =
        String::from_utf8(bytes).map_err(|_| invalid(format!("{filename} is not UTF-8 text")))?;
    let ignore = ignore.map(|bytes| ignore_file(ignore_name.clone(), bytes)).transpose()?;
    Ok((SourceFile { name: filename.to_owned(), text }, ignore))
}

pub(super) fn ignore_file(name: String, bytes: Vec<u8>) -> Result<IgnoreFile, Error> {
    if bytes.len() > MAX_IGNORE {
        return Err(invalid(format!(
            "{name} has {} bytes, more than the {MAX_IGNORE} that it may have",
            bytes.len()
        )));
    }
    Ok(IgnoreFile { name, text: String::from_utf8_lossy(&bytes).into_owned() })
}

//! The text of a `.dockerignore` file becomes a list of patterns.

use crate::gopath;

/// Reads an ignore file: one pattern a line, cleaned, without its leading slash; comments and blank lines are left out.
pub fn read_ignore_file(text: &str) -> Vec<String> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    text.lines().filter(|line| !line.starts_with('#')).filter_map(pattern).collect()
}

fn pattern(line: &str) -> Option<String> {
    let line = line.trim();
    if line.is_empty() {
        return None;
    }
    let (invert, body) = match line.strip_prefix('!') {
        Some(rest) => ("!", rest.trim()),
        None => ("", line),
    };
    if body.is_empty() {
        return Some(invert.to_owned());
    }
    let mut cleaned = gopath::clean(body);
    if cleaned.len() > 1 && cleaned.starts_with('/') {
        cleaned.remove(0);
    }
    Some(format!("{invert}{cleaned}"))
}

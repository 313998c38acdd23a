//! Reads lines of the `json-file` format, ours and Docker's.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{LogRecord, LogStream};

#[derive(Deserialize)]
struct Line {
    #[serde(default)]
    log: String,
    #[serde(default)]
    stream: String,
    #[serde(default)]
    attrs: BTreeMap<String, String>,
    time: String,
}

/// Reads one line; `None` when it makes no sense.
pub(crate) fn decode(line: &[u8]) -> Option<LogRecord> {
    let line: Line = serde_json::from_slice(line).ok()?;
    let stream = if line.stream == "stderr" { LogStream::Stderr } else { LogStream::Stdout };
    let at = line.time.parse().ok()?;
    Some(LogRecord { at, stream, line: line.log.into_bytes(), attrs: line.attrs })
}

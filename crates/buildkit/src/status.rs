//! Failures of builds as gRPC statuses, with the piece of source that clients print below them; and back again.
//!
//! The details are JSON under type names of their own, as BuildKit's clients expect them, not protobuf.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use prost::Message as _;
use rorqual_build::{Error, Location};
use rorqual_core::{Classify, ErrorKind, full_message};
use serde_json::{Value, json};
use tonic::{Code, Status};

use crate::wire::{Any, RpcStatus, pb};

const SOURCE: &str = "github.com/moby/buildkit/errdefs.Source+json";
const SUBREQUEST: &str = "github.com/moby/buildkit/errdefs.Subrequest+json";

/// Files that messages show pieces of, by name.
pub type Sources = BTreeMap<String, Vec<u8>>;

/// Turns a failure into a status; `sources` has the files that its location may name.
pub(crate) fn status(error: &Error, sources: &Sources) -> Status {
    // COMPAT: clients print the name of any other code in front of the message.
    let code = match error.kind() {
        ErrorKind::Cancelled => Code::Cancelled,
        _ => Code::Unknown,
    };
    let message = full_message(error);
    let details = error.location().and_then(|location| source_detail(location, sources));
    with_details(code, message, details.into_iter().collect())
}

/// The status for a question to the front end that it does not know.
pub(crate) fn unknown_subrequest(name: &str) -> Status {
    let detail = Any {
        type_url: SUBREQUEST.to_owned(),
        value: json!({"name": name}).to_string().into_bytes(),
    };
    let message = format!("unsupported request {name:?}");
    with_details(Code::Unimplemented, message, vec![detail])
}

fn with_details(code: Code, message: String, details: Vec<Any>) -> Status {
    if details.is_empty() {
        return Status::new(code, message);
    }
    let rpc = RpcStatus { code: code as i32, message: message.clone(), details };
    Status::with_details(code, message, rpc.encode_to_vec().into())
}

fn source_detail(location: &Location, sources: &Sources) -> Option<Any> {
    let data = sources.get(&location.file)?;
    let position = |line: u32| json!({"line": line, "character": 0});
    let value = json!({
        "info": {
            "filename": location.file,
            "data": STANDARD.encode(data),
            "language": "Dockerfile",
        },
        "ranges": [{
            "start": position(location.first_line),
            "end": position(location.last_line.max(location.first_line)),
        }],
    });
    Some(Any { type_url: SOURCE.to_owned(), value: value.to_string().into_bytes() })
}

/// A location as the progress shows it.
pub(crate) fn wire_location(
    location: &Location,
    sources: &Sources,
) -> (Option<pb::SourceInfo>, Vec<pb::Range>) {
    let info = sources.get(&location.file).map(|data| pb::SourceInfo {
        filename: location.file.clone(),
        data: data.clone(),
        definition: None,
        language: "Dockerfile".to_owned(),
    });
    let position = |line: u32| Some(pb::Position { line: line as i32, character: 0 });
    let range = pb::Range {
        start: position(location.first_line),
        end: position(location.last_line.max(location.first_line)),
    };
    (info, vec![range])
}

/// What a client is told about a failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Why.
    pub message: String,
    /// The build was stopped from outside.
    pub is_cancelled: bool,
    /// Pieces of source to show: name, whole text, first and last line.
    pub sources: Vec<(String, String, u32, u32)>,
}

impl Failure {
    /// Reads a status.
    pub fn new(status: &Status) -> Self {
        let details = RpcStatus::decode(status.details()).map(|rpc| rpc.details);
        let details = details.unwrap_or_default();
        let shown = details.iter().filter(|detail| detail.type_url == SOURCE);
        Self {
            message: status.message().to_owned(),
            is_cancelled: status.code() == Code::Cancelled,
            sources: shown.filter_map(|detail| read_source(&detail.value)).collect(),
        }
    }
}

fn read_source(json: &[u8]) -> Option<(String, String, u32, u32)> {
    let value: Value = serde_json::from_slice(json).ok()?;
    let info = value.get("info")?;
    let name = info.get("filename")?.as_str()?.to_owned();
    let data = STANDARD.decode(info.get("data")?.as_str()?).ok()?;
    let range = value.get("ranges")?.get(0)?;
    let line = |end: &str| range.get(end)?.get("line")?.as_u64();
    let first = u32::try_from(line("start")?).ok()?;
    let last = u32::try_from(line("end").unwrap_or_default()).ok()?.max(first);
    Some((name, String::from_utf8_lossy(&data).into_owned(), first, last))
}

#[cfg(test)]
mod tests;

//! Streams of JSON messages: progress of load, import, pull, push and build, and how they report an error.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::is_empty;

/// One line of such a stream.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Message {
    /// Text to print as it is.
    #[serde(skip_serializing_if = "is_empty")]
    pub stream: String,
    /// What is being done.
    #[serde(skip_serializing_if = "is_empty")]
    pub status: String,
    /// How far.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress_detail: Option<ProgressDetail>,
    /// How far, drawn for people by old daemons.
    #[serde(skip_serializing_if = "is_empty")]
    pub progress: String,
    /// Layer it is about.
    #[serde(skip_serializing_if = "is_empty")]
    pub id: String,
    /// What failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_detail: Option<ErrorDetail>,
    /// The same as plain text.
    #[serde(skip_serializing_if = "is_empty")]
    pub error: String,
    /// Data for programs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aux: Option<Value>,
}

/// Bytes done and to do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ProgressDetail {
    /// Done.
    #[serde(skip_serializing_if = "is_empty")]
    pub current: i64,
    /// In all.
    #[serde(skip_serializing_if = "is_empty")]
    pub total: i64,
    /// When it began, seconds since 1970.
    #[serde(skip_serializing_if = "is_empty")]
    pub start: i64,
    /// Numbers are to be hidden.
    #[serde(rename = "hidecounts", skip_serializing_if = "is_empty")]
    pub hide_counts: bool,
    /// `units` to count, none for bytes.
    #[serde(skip_serializing_if = "is_empty")]
    pub units: String,
}

/// An error in the middle of a stream.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ErrorDetail {
    /// Exit code of a build step.
    #[serde(skip_serializing_if = "is_empty")]
    pub code: i64,
    /// Words.
    pub message: String,
}

/// Body of every answer that is an error.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ErrorResponse {
    /// Words.
    pub message: String,
}

impl Message {
    /// Makes a message with only a status, about `id` or (empty) about the whole.
    pub fn status(id: &str, status: impl Into<String>) -> Self {
        Self { id: id.to_owned(), status: status.into(), ..Self::default() }
    }

    /// Makes the message that ends a failed stream.
    pub fn error(message: &str) -> Self {
        let detail = ErrorDetail { code: 0, message: message.to_owned() };
        Self { error_detail: Some(detail), error: message.to_owned(), ..Self::default() }
    }

    /// Writes the line that goes on the wire.
    pub fn line(&self) -> Vec<u8> {
        // Strings, numbers and JSON values always serialise.
        let mut line = serde_json::to_vec(self).unwrap_or_default();
        // COMPAT: dockerd ends these lines with CR LF.
        line.extend_from_slice(b"\r\n");
        line
    }
}

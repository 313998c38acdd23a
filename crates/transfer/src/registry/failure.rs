//! Why a registry did not do what it was asked: its own words where it has some, and what the caller can do about it.

use std::fmt;
use std::time::Duration;

use http::StatusCode;
use rorqual_core::ErrorKind;
use serde::Deserialize;

use crate::Error;

/// What kind of no it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// The server could not be reached, or not be understood.
    Unreachable,
    /// It does not speak TLS, or is not whom it says.
    Tls,
    /// It wants to know who asks, or does not believe it.
    Unauthorized,
    /// Who asks may not, or it is not there.
    Denied,
    /// No such manifest, blob, or upload.
    Unknown,
    /// No such repository.
    NameUnknown,
    /// It refuses what was sent.
    Invalid,
    /// It does not do that.
    Unsupported,
    /// Too many requests.
    Busy,
    /// It sent something else than was promised, or beyond a bound.
    Untrusted,
    /// A fault of its own.
    Broken,
    /// A part on this side failed.
    Local,
}

/// A request that failed.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) reason: Reason,
    pub(crate) text: String,
    /// Trying again may help.
    pub(crate) transient: bool,
    /// When the server wants to be asked again.
    pub(crate) after: Option<Duration>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Failure {}

impl Failure {
    pub(crate) fn new(reason: Reason, text: impl Into<String>) -> Self {
        Self { reason, text: text.into(), transient: false, after: None }
    }

    /// Something went wrong on the way.
    pub(crate) fn transient(reason: Reason, text: impl Into<String>) -> Self {
        Self { reason, text: text.into(), transient: true, after: None }
    }

    pub(crate) const fn is_transient(&self) -> bool {
        self.transient
    }

    pub(crate) const fn kind(&self) -> ErrorKind {
        match self.reason {
            Reason::Unauthorized => ErrorKind::Unauthenticated,
            Reason::Denied => ErrorKind::Forbidden,
            Reason::Unknown | Reason::NameUnknown => ErrorKind::NotFound,
            Reason::Invalid => ErrorKind::InvalidArgument,
            Reason::Unsupported => ErrorKind::Unsupported,
            // COMPAT: dockerd answers 500 for whatever else a registry or the way to it does.
            Reason::Unreachable
            | Reason::Tls
            | Reason::Busy
            | Reason::Untrusted
            | Reason::Broken
            | Reason::Local => ErrorKind::Internal,
        }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        Self::Registry { kind: failure.kind(), message: failure.text }
    }
}

#[derive(Deserialize)]
struct Body {
    #[serde(default)]
    errors: Vec<Entry>,
    /// Token servers and old registries.
    #[serde(default)]
    details: String,
    #[serde(default)]
    message: String,
    #[serde(default)]
    error_description: String,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

// LIMIT: what is shown of a registry's words.
const MAX_TEXT: usize = 1000;

/// Reads what the body of a bad answer says.
pub(super) fn read(status: StatusCode, body: &[u8]) -> Failure {
    let parsed = serde_json::from_slice::<Body>(body).ok();
    let entry = parsed.as_ref().and_then(|body| body.errors.first());
    let code = entry.map(|entry| entry.code.to_ascii_uppercase()).unwrap_or_default();
    let said = match (entry, &parsed) {
        (Some(entry), _) => entry.message.clone(),
        (None, Some(body)) => [&body.details, &body.error_description, &body.message]
            .into_iter()
            .find(|text| !text.is_empty())
            .cloned()
            .unwrap_or_default(),
        (None, None) => String::new(),
    };
    let said: String = said.chars().filter(|char| !char.is_control()).take(MAX_TEXT).collect();
    let reason = reason(status, &code);
    // COMPAT: the code in words and what the registry says, as dockerd joins them.
    let words = code.to_ascii_lowercase().replace('_', " ");
    let words = if code == "TOOMANYREQUESTS" { "toomanyrequests".to_owned() } else { words };
    let text = match (words.as_str(), said.as_str()) {
        ("", "") => match reason {
            Reason::Unauthorized => "unauthorized: authentication required".to_owned(),
            Reason::Denied => "denied: requested access to the resource is denied".to_owned(),
            Reason::Busy => "toomanyrequests: the registry wants fewer requests".to_owned(),
            _ => format!("unexpected status from the registry: {status}"),
        },
        ("", said) => format!("{said} ({status})"),
        (words, "") => format!("{words}: {words}"),
        (words, said) => format!("{words}: {said}"),
    };
    let transient = status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED
        || matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT);
    Failure { reason, text, transient, after: None }
}

fn reason(status: StatusCode, code: &str) -> Reason {
    match code {
        "DENIED" => return Reason::Denied,
        "NAME_UNKNOWN" => return Reason::NameUnknown,
        "MANIFEST_UNKNOWN" | "BLOB_UNKNOWN" | "BLOB_UPLOAD_UNKNOWN" => return Reason::Unknown,
        "TOOMANYREQUESTS" => return Reason::Busy,
        "UNSUPPORTED" => return Reason::Unsupported,
        _ => {}
    }
    match status {
        StatusCode::UNAUTHORIZED => Reason::Unauthorized,
        StatusCode::FORBIDDEN => Reason::Denied,
        StatusCode::NOT_FOUND => Reason::Unknown,
        StatusCode::TOO_MANY_REQUESTS => Reason::Busy,
        StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED => Reason::Unsupported,
        status if status.is_client_error() => Reason::Invalid,
        _ => Reason::Broken,
    }
}

#[cfg(test)]
mod tests;

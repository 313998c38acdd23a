//! Wire documents to the engine's domain and back, field by field.
//!
//! Structures are taken apart without `..`, so that a new field stops the build where it must be considered.

pub(crate) mod create;
pub(crate) mod event;
pub(crate) mod exec;
pub(crate) mod host;
pub(crate) mod image;
pub(crate) mod mounts;
pub(crate) mod network;
pub(crate) mod platform;
pub(crate) mod resources;
pub(crate) mod state;
pub(crate) mod stats;
pub(crate) mod view;
pub(crate) mod volume;

use rorqual_core::Timestamp;

/// Writes a time that may never have been.
pub(crate) fn time(at: Option<Timestamp>) -> String {
    at.map_or_else(|| rorqual_api::ZERO_TIME.to_owned(), |at| at.to_string())
}

/// Returns the text, or `None` for the wire's empty one.
pub(crate) fn non_empty(text: String) -> Option<String> {
    if text.is_empty() { None } else { Some(text) }
}

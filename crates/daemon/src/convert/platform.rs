//! Platforms in requests: words where they choose what is fetched or made, documents where they choose among what is
//! here.

use rorqual_core::{InvalidPlatform, Platform};

use crate::error::{BadRequest, invalid};

#[derive(serde::Deserialize)]
#[serde(default)]
#[derive(Default)]
struct Document {
    os: String,
    architecture: String,
    variant: String,
    #[serde(rename = "os.version")]
    os_version: String,
    #[serde(rename = "os.features")]
    os_features: Vec<String>,
}

/// Reads `os/architecture[/variant]`; empty is `None`.
pub(crate) fn words(text: &str) -> Result<Option<Platform>, BadRequest> {
    match text {
        "" => Ok(None),
        text => text.parse().map(Some).map_err(|error: InvalidPlatform| invalid(error.to_string())),
    }
}

/// Reads `{"os": …, "architecture": …, "variant": …}`; empty is `None`.
// COMPAT: dockerd's texts.
pub(crate) fn document(text: &str) -> Result<Option<Platform>, BadRequest> {
    if text.is_empty() {
        return Ok(None);
    }
    let broken = |error: serde_json::Error| {
        let reason = match text.chars().next() {
            Some(first) if !"{[\"-0123456789tfn \t\r\n".contains(first) => {
                format!("invalid character {first:?} looking for beginning of value")
            }
            _ if error.is_eof() => "unexpected end of JSON input".to_owned(),
            _ => error.to_string(),
        };
        invalid(format!("failed to parse platform: {reason}"))
    };
    let Document { os, architecture, variant, os_version, os_features } =
        serde_json::from_str(text).map_err(broken)?;
    let further = !(variant.is_empty() && os_version.is_empty() && os_features.is_empty());
    match (os.as_str(), architecture.as_str()) {
        ("", "") if further => Err(invalid(
            "optional platform components provided, but OS and Architecture are missing",
        )),
        ("", _) | (_, "") => Err(invalid("both OS and Architecture must be provided")),
        (os, architecture) => match variant.as_str() {
            "" => words(&format!("{os}/{architecture}")),
            variant => words(&format!("{os}/{architecture}/{variant}")),
        },
    }
}

#[cfg(test)]
mod tests;

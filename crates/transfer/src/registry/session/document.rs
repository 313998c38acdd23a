//! What a registry's answers say they are, and whether that can be.

use rorqual_content::media_type;
use serde::Deserialize;

use super::{Failure, Reason};

pub(super) fn bare_type(text: &str) -> &str {
    text.split(';').next().unwrap_or_default().trim()
}

pub(super) fn next_page(link: &str) -> Option<&str> {
    let (target, parameters) = link.strip_prefix('<')?.split_once('>')?;
    parameters.contains("next").then_some(target)
}

/// Finds what a document is; the header and the document must not contradict each other.
pub(super) fn document_type(header: &str, bytes: &[u8]) -> Result<String, Failure> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Head {
        #[serde(default)]
        schema_version: u32,
        #[serde(default)]
        media_type: String,
        manifests: Option<serde::de::IgnoredAny>,
    }
    let untrusted = |text: String| Failure::new(Reason::Untrusted, text);
    let head = serde_json::from_slice::<Head>(bytes)
        .map_err(|error| untrusted(format!("the manifest cannot be read: {error}")))?;
    if head.schema_version == 1 || header.contains("distribution.manifest.v1+") {
        // COMPAT: what dockerd says, in its first half.
        return Err(Failure::new(
            Reason::Unsupported,
            "Docker Image Format v1 and Docker Image manifest version 2, schema 1 are not supported: ask the author of the \
             image to push it as an OCI image or Docker Image manifest v2, schema 2",
        ));
    }
    let generic =
        matches!(header, "" | "application/json" | "text/plain" | "application/octet-stream");
    let kind = match (generic, head.media_type.as_str()) {
        (false, "") => header,
        (false, own) if own == header => header,
        (false, own) => {
            return Err(untrusted(format!("the registry calls {header} what calls itself {own}")));
        }
        (true, "") if head.manifests.is_some() => media_type::OCI_INDEX,
        (true, "") => media_type::OCI_MANIFEST,
        (true, own) => own,
    };
    let index = matches!(kind, media_type::OCI_INDEX | media_type::DOCKER_LIST);
    let manifest = matches!(kind, media_type::OCI_MANIFEST | media_type::DOCKER_MANIFEST);
    if index && head.manifests.is_none() || manifest && head.manifests.is_some() {
        return Err(untrusted(format!("the registry calls a document {kind} that is none")));
    }
    if !index && !manifest {
        return Err(Failure::new(
            Reason::Unsupported,
            format!("unsupported manifest format: {kind}"),
        ));
    }
    Ok(kind.to_owned())
}

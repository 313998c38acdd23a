//! Manifests and indexes as the registry must understand them: what kind they are, what they refer to. It keeps the bytes
//! as they came and writes none of its own but lists of referrers.

use std::collections::BTreeMap;

use rorqual_content::media_type;
use rorqual_core::{Digest, Platform};
use serde::{Deserialize, Serialize};

use crate::error::{Code, Error, Result};

/// Names a blob or manifest, with what the registry shows or checks of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    pub(crate) media_type: String,
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) artifact_type: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "or_default")]
    pub(crate) annotations: BTreeMap<String, String>,
    #[serde(default, skip_serializing)]
    pub(crate) platform: Option<Platform>,
    #[serde(default, skip_serializing)]
    pub(crate) urls: Option<Vec<String>>,
}

/// Go writes `null` for what is empty.
fn or_default<'de, D: serde::Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

impl Descriptor {
    /// Tells whether its bytes need not be here: they are got elsewhere.
    fn is_foreign(&self) -> bool {
        self.media_type.contains(".nondistributable.") || self.media_type.contains(".foreign.")
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wire {
    schema_version: u32,
    #[serde(default)]
    media_type: Option<String>,
    #[serde(default)]
    artifact_type: Option<String>,
    #[serde(default)]
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Option<Vec<Descriptor>>,
    #[serde(default)]
    manifests: Option<Vec<Descriptor>>,
    #[serde(default)]
    subject: Option<Descriptor>,
    #[serde(default, deserialize_with = "or_default")]
    annotations: BTreeMap<String, String>,
}

/// What a document is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Body {
    /// An image or artifact.
    Manifest { config: Box<Descriptor>, layers: Vec<Descriptor> },
    /// A list of manifests.
    Index { manifests: Vec<Descriptor> },
}

/// A manifest or an index that is well formed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Document {
    pub(crate) media_type: String,
    pub(crate) artifact_type: Option<String>,
    pub(crate) annotations: BTreeMap<String, String>,
    pub(crate) subject: Option<Digest>,
    pub(crate) body: Body,
}

// LIMIT: entries of one document; an image has a hundred layers at most, an index some thousand platforms.
const ENTRIES: usize = 10_000;

fn invalid(message: impl Into<String>) -> Error {
    Error::refused(Code::ManifestInvalid, message)
}

/// Drops the parameters of a media type.
fn bare(media_type: &str) -> &str {
    media_type.split(';').next().unwrap_or_default().trim()
}

impl Document {
    /// Reads a document that came as `content_type`.
    pub(crate) fn parse(bytes: &[u8], content_type: Option<&str>) -> Result<Self> {
        let wire: Wire = serde_json::from_slice(bytes)
            .map_err(|error| invalid(format!("not a manifest: {error}")))?;
        if wire.schema_version != 2 {
            let text =
                "schema version 1 is not supported: push the image again with a current client";
            return Err(invalid(if wire.schema_version == 1 {
                text
            } else {
                "schemaVersion must be 2"
            }));
        }
        let said = content_type.map(bare).filter(|said| !said.is_empty());
        let within = wire.media_type.as_deref().filter(|within| !within.is_empty());
        let media_type = match (said, within) {
            (Some(said), Some(within)) if said != within => {
                return Err(invalid(format!(
                    "the Content-Type {said:?} is not the document's mediaType {within:?}"
                )));
            }
            (Some(media_type), _) | (None, Some(media_type)) => media_type.to_owned(),
            (None, None) => return Err(invalid("the manifest has no media type")),
        };
        let count =
            wire.layers.as_ref().map_or(0, Vec::len) + wire.manifests.as_ref().map_or(0, Vec::len);
        if count > ENTRIES {
            return Err(invalid(format!("more than {ENTRIES} entries")));
        }
        let body = body(&media_type, wire.config, wire.layers, wire.manifests)?;
        let artifact_type = wire.artifact_type.filter(|kind| !kind.is_empty());
        let subject = wire.subject.map(|subject| subject.digest);
        Ok(Self { media_type, artifact_type, annotations: wire.annotations, subject, body })
    }

    /// Blobs that must be there, with their sizes.
    pub(crate) fn blobs(&self) -> Vec<&Descriptor> {
        match &self.body {
            Body::Index { .. } => Vec::new(),
            Body::Manifest { config, layers } => std::iter::once(&**config)
                .chain(layers)
                .filter(|descriptor| !descriptor.is_foreign())
                .collect(),
        }
    }

    /// Manifests that must be there.
    pub(crate) fn manifests(&self) -> &[Descriptor] {
        match &self.body {
            Body::Index { manifests } => manifests,
            Body::Manifest { .. } => &[],
        }
    }

    /// Its kind among those that refer to a subject.
    pub(crate) fn kind(&self) -> Option<String> {
        self.artifact_type.clone().or_else(|| match &self.body {
            Body::Manifest { config, .. } => Some(config.media_type.clone()),
            Body::Index { .. } => None,
        })
    }
}

/// Sorts the parts by what the media type promises; an index that comes as a manifest, or the reverse, is refused, because
/// two clients would read two different images.
fn body(
    media_type: &str,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    manifests: Option<Vec<Descriptor>>,
) -> Result<Body> {
    match media_type {
        media_type::OCI_MANIFEST | media_type::DOCKER_MANIFEST => {
            if manifests.is_some() {
                return Err(invalid("a manifest has no list of manifests: is it an index?"));
            }
            let config = Box::new(config.ok_or_else(|| invalid("the manifest has no config"))?);
            Ok(Body::Manifest { config, layers: layers.unwrap_or_default() })
        }
        media_type::OCI_INDEX | media_type::DOCKER_LIST => {
            if config.is_some() || layers.is_some() {
                return Err(invalid("an index has neither config nor layers: is it a manifest?"));
            }
            Ok(Body::Index { manifests: manifests.unwrap_or_default() })
        }
        other => Err(invalid(format!("the media type {other:?} is not one of a manifest"))),
    }
}

#[cfg(test)]
mod tests;

//! The document of a cache, as BuildKit writes it. What is read comes from anywhere: indices are checked, chains end.

use std::collections::BTreeMap;

use rorqual_content::{Descriptor, media_type};
use rorqual_core::{DiffId, Digest};
use serde::{Deserialize, Serialize};

use crate::Error;

/// Media type of the document.
pub const CACHE_CONFIG: &str = "application/vnd.buildkit.cacheconfig.v0";
/// LIMIT: bytes of one document; a build of a thousand steps has less than one MiB.
pub const MAX_CACHE_DOCUMENT: u64 = 32 << 20;
/// LIMIT: layers and records of one document.
const MOST: usize = 100_000;
/// LIMIT: layers above each other; the kernel's overlay takes not many more.
const MAX_CHAIN: usize = 480;

/// A cache as a document.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheDocument {
    /// Each with the one below it.
    #[serde(default)]
    pub(super) layers: Vec<Layer>,
    #[serde(default)]
    pub(super) records: Vec<Record>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Layer {
    pub(super) blob: Digest,
    /// Number of the layer below, -1 for none. COMPAT: left out for zero.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(super) parent: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) annotations: Option<Annotations>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
const fn is_zero(value: &i64) -> bool {
    *value == 0
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Annotations {
    #[serde(default)]
    pub(super) media_type: String,
    #[serde(default, rename = "diffID")]
    pub(super) diff_id: Option<DiffId>,
    #[serde(default)]
    pub(super) size: u64,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(super) created_at: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// Results: each the number of its topmost layer.
    #[serde(default, rename = "layers", skip_serializing_if = "Vec::is_empty")]
    pub(super) results: Vec<CacheResult>,
    /// Results whose layers are listed one by one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) chains: Vec<Chain>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) digest: Option<Digest>,
    /// Records that this one builds on; ours have none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) inputs: Vec<serde_json::Value>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct CacheResult {
    pub(super) layer: usize,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(super) created_at: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Chain {
    pub(super) layers: Vec<usize>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(super) created_at: String,
}

fn broken(text: impl std::fmt::Display) -> Error {
    Error::Invalid { message: format!("the cache is broken: {text}"), location: None }
}

impl CacheDocument {
    /// Reads a document.
    ///
    /// # Errors
    ///
    /// `Invalid` when it is none, or too large.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        // A list would be taken for the fields in their order.
        let object: serde_json::Map<String, serde_json::Value> =
            serde_json::from_slice(bytes).map_err(broken)?;
        let document = serde_json::Value::Object(object);
        Self::checked(serde_json::from_value(document).map_err(broken)?)
    }

    /// Reads the records that an image's config carries (base64 in `moby.buildkit.cache.v0`); the layers are the image's.
    ///
    /// # Errors
    ///
    /// `Invalid` when there are none.
    pub fn inline(text: &str, layers: &[(Descriptor, DiffId)]) -> Result<Self, Error> {
        use base64::Engine as _;
        let bytes = base64::engine::general_purpose::STANDARD.decode(text).map_err(broken)?;
        let records = serde_json::from_slice(&bytes).map_err(broken)?;
        let layer = |(number, (blob, diff)): (usize, &(Descriptor, DiffId))| Layer {
            blob: blob.digest.clone(),
            parent: number as i64 - 1,
            annotations: Some(Annotations {
                media_type: blob.media_type.clone(),
                diff_id: Some(diff.clone()),
                size: blob.size,
                created_at: String::new(),
            }),
        };
        Self::checked(Self { layers: layers.iter().enumerate().map(layer).collect(), records })
    }

    fn checked(document: Self) -> Result<Self, Error> {
        if document.layers.len() > MOST || document.records.len() > MOST {
            return Err(broken(format!("it has more than {MOST} layers or records")));
        }
        Ok(document)
    }

    /// Writes the records for an image's config.
    ///
    /// # Errors
    ///
    /// When they cannot be encoded.
    pub fn to_inline(&self) -> Result<String, Error> {
        use base64::Engine as _;
        let bytes = serde_json::to_vec(&self.records)
            .map_err(crate::error::other("encode the cache of an image"))?;
        Ok(base64::engine::general_purpose::STANDARD.encode(bytes))
    }

    /// Tells whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Writes it.
    ///
    /// # Errors
    ///
    /// When it cannot be encoded.
    pub fn to_bytes(&self) -> Result<Vec<u8>, Error> {
        serde_json::to_vec(self).map_err(crate::error::other("encode a cache"))
    }

    /// Lists the layers below and with one, bottom first.
    fn chain(&self, top: usize) -> Result<Vec<usize>, Error> {
        let mut chain = Vec::new();
        let mut next = i64::try_from(top).unwrap_or(i64::MAX);
        while next >= 0 {
            let number = usize::try_from(next).unwrap_or(usize::MAX);
            let Some(layer) = self.layers.get(number) else {
                return Err(broken(format!("it has no layer {number}")));
            };
            if chain.len() >= MAX_CHAIN {
                return Err(broken(format!("more than {MAX_CHAIN} layers lie above each other")));
            }
            chain.push(number);
            next = layer.parent;
        }
        chain.reverse();
        Ok(chain)
    }

    /// Lists the blobs and digests of a record's first result that is whole.
    pub(super) fn result(
        &self,
        record: &Record,
    ) -> Result<Option<Vec<(Descriptor, DiffId)>>, Error> {
        let chain = match (record.chains.first(), record.results.first()) {
            (Some(chain), _) => {
                if chain.layers.len() > MAX_CHAIN {
                    return Err(broken(format!("a record has more than {MAX_CHAIN} layers")));
                }
                chain.layers.clone()
            }
            (None, Some(result)) => self.chain(result.layer)?,
            (None, None) => return Ok(None),
        };
        let mut layers = Vec::new();
        for number in chain {
            let layer = self.layers.get(number);
            let layer = layer.ok_or_else(|| broken(format!("it has no layer {number}")))?;
            let Some(annotations) = &layer.annotations else { return Ok(None) };
            let Some(diff) = &annotations.diff_id else { return Ok(None) };
            let kind = match annotations.media_type.as_str() {
                "" => media_type::OCI_LAYER_GZIP,
                kind => kind,
            };
            let blob = Descriptor::new(kind, layer.blob.clone(), annotations.size);
            layers.push((blob, diff.clone()));
        }
        Ok(Some(layers))
    }

    /// Adds a chain of layers, bottom first; returns the number of the topmost.
    pub(super) fn add_chain<'c>(
        &mut self,
        chain: impl Iterator<Item = &'c (Descriptor, DiffId, String)>,
        known: &mut BTreeMap<(i64, Digest), i64>,
    ) -> i64 {
        let mut below = -1;
        for (blob, diff, created) in chain {
            below = *known.entry((below, blob.digest.clone())).or_insert_with(|| {
                self.layers.push(Layer {
                    blob: blob.digest.clone(),
                    parent: below,
                    annotations: Some(Annotations {
                        media_type: blob.media_type.clone(),
                        diff_id: Some(diff.clone()),
                        size: blob.size,
                        created_at: created.clone(),
                    }),
                });
                self.layers.len() as i64 - 1
            });
        }
        below
    }
}

//! What a root digest leads to: indexes to manifests, manifests to configs and layers. Reads documents, removes nothing.

use std::collections::BTreeSet;

use rorqual_core::Digest;
use serde::Deserialize;

use crate::{Blobs, Error};

/// LIMIT: a manifest or index; the distribution specification asks registries for 4 MiB.
pub const MAX_DOCUMENT: u64 = 4 << 20;
/// LIMIT: documents in documents; indexes are one deep, two for bundles.
const MAX_DEPTH: usize = 8;
/// LIMIT: descriptors followed from one collection's roots.
const MAX_REACHED: usize = 4_000_000;

/// Everything that is reachable.
pub(crate) struct Reached(pub(crate) BTreeSet<Digest>);

#[derive(Deserialize)]
struct Node {
    #[serde(default)]
    manifests: Vec<Child>,
    config: Option<Child>,
    #[serde(default)]
    layers: Vec<Child>,
}

#[derive(Deserialize)]
struct Child {
    digest: Digest,
}

/// Follows `roots`; what is missing or no document leads nowhere.
pub(crate) fn reach(blobs: &impl Blobs, roots: Vec<Digest>) -> Result<Reached, Error> {
    let mut reached = BTreeSet::new();
    let mut level = roots;
    for _ in 0..MAX_DEPTH {
        let mut next = Vec::new();
        for digest in level {
            if !reached.insert(digest.clone()) {
                continue;
            }
            if reached.len() > MAX_REACHED {
                return Err(Error::WrongSize("too many blobs are referred to".to_owned()));
            }
            let Some(node) = node(blobs, &digest)? else { continue };
            // Configs and layers are no documents: they are reached and lead nowhere.
            reached.extend(node.layers.into_iter().map(|child| child.digest));
            reached.extend(node.config.map(|child| child.digest));
            next.extend(node.manifests.into_iter().map(|child| child.digest));
        }
        if next.is_empty() {
            return Ok(Reached(reached));
        }
        level = next;
    }
    reached.extend(level);
    Ok(Reached(reached))
}

fn node(blobs: &impl Blobs, digest: &Digest) -> Result<Option<Node>, Error> {
    match blobs.size(digest)? {
        Some(size) if size <= MAX_DOCUMENT => {}
        _ => return Ok(None),
    }
    let bytes = match blobs.read(digest, MAX_DOCUMENT) {
        Ok(bytes) => bytes,
        // A damaged blob leads nowhere, and it must not keep everything else from being collected.
        Err(Error::NoSuchBlob(_) | Error::WrongDigest { .. } | Error::WrongSize(_)) => {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    Ok(serde_json::from_slice(&bytes).ok())
}

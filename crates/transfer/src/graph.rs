//! What an image's target leads to: indexes, and the manifests at their ends. Reads documents, decides nothing.

use std::collections::BTreeSet;

use rorqual_content::{Descriptor, ImageDocument, Index, Manifest};
use rorqual_core::{Digest, Platform};
use serde::Deserialize;

use crate::archive::broken;
use crate::record;
use crate::{Error, ManifestKind};

/// LIMIT: indexes within indexes, and documents that one target leads to.
const MAX_DEPTH: usize = 8;
const MAX_DOCUMENTS: usize = 10_000;

/// Where documents are read from, verified; `None` for what is not there.
pub(crate) trait Documents {
    fn document(&self, digest: &Digest) -> Result<Option<Vec<u8>>, Error>;
}

/// A manifest at the end of a target.
#[derive(Clone, Debug)]
pub(crate) struct Leaf {
    /// As the index above says it, or the target itself.
    pub(crate) descriptor: Descriptor,
    /// `None` when it is not here, or no image manifest.
    pub(crate) manifest: Option<Manifest>,
}

/// All that a target leads to, in the order of its indexes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Graph {
    /// Indexes and manifests that are here.
    pub(crate) documents: Vec<(Digest, Vec<u8>)>,
    pub(crate) leaves: Vec<Leaf>,
    /// All that was looked at: what is listed twice, or in a circle, counts once.
    seen: BTreeSet<Digest>,
}

/// Which of the two a document is.
#[derive(Deserialize)]
struct Shape {
    manifests: Option<serde::de::IgnoredAny>,
    config: Option<serde::de::IgnoredAny>,
    layers: Option<serde::de::IgnoredAny>,
}

enum Node {
    Index(Index),
    Manifest(Manifest),
    /// A document of somebody else's.
    Other,
}

fn node(bytes: &[u8]) -> Result<Node, Error> {
    let Ok(shape) = serde_json::from_slice::<Shape>(bytes) else { return Ok(Node::Other) };
    let failed = |what: &str, error: serde_json::Error| broken(format!("broken {what}: {error}"));
    match (shape.manifests.is_some(), shape.config.is_some() || shape.layers.is_some()) {
        // One document must not mean different things to different readers.
        (true, true) => Err(broken("a document is both an index and a manifest")),
        (true, false) => {
            serde_json::from_slice(bytes).map(Node::Index).map_err(|error| failed("index", error))
        }
        (false, true) => serde_json::from_slice(bytes)
            .map(Node::Manifest)
            .map_err(|error| failed("manifest", error)),
        (false, false) => Ok(Node::Other),
    }
}

/// Follows a target to its ends.
pub(crate) fn walk(documents: &impl Documents, target: &Descriptor) -> Result<Graph, Error> {
    let mut graph = Graph::default();
    follow(documents, target, 0, &mut graph)?;
    Ok(graph)
}

fn follow(
    documents: &impl Documents,
    descriptor: &Descriptor,
    depth: usize,
    graph: &mut Graph,
) -> Result<(), Error> {
    if depth > MAX_DEPTH {
        return Err(broken("indexes are nested too deeply"));
    }
    if graph.seen.len() >= MAX_DOCUMENTS {
        return Err(broken("an index leads to too many manifests"));
    }
    if !graph.seen.insert(descriptor.digest.clone()) {
        return Ok(());
    }
    let found = documents.document(&descriptor.digest)?;
    let node = found.as_deref().map(node).transpose()?;
    if let Some(bytes) = found {
        graph.documents.push((descriptor.digest.clone(), bytes));
    }
    let manifest = match node {
        Some(Node::Index(index)) => {
            return index
                .manifests
                .iter()
                .try_for_each(|inner| follow(documents, inner, depth + 1, graph));
        }
        Some(Node::Manifest(manifest)) => Some(manifest),
        Some(Node::Other) | None => None,
    };
    graph.leaves.push(Leaf { descriptor: descriptor.clone(), manifest });
    Ok(())
}

impl Leaf {
    /// Tells what the manifest is, and for which machine.
    pub(crate) fn kind(&self, documents: &impl Documents) -> Result<ManifestKind, Error> {
        let annotations = &self.descriptor.annotations;
        // COMPAT: BuildKit's way to put statements about an image beside it.
        if annotations.get("vnd.docker.reference.type").map(String::as_str)
            == Some("attestation-manifest")
        {
            let about = annotations.get("vnd.docker.reference.digest");
            return Ok(match about.and_then(|text| text.parse().ok()) {
                Some(about) => ManifestKind::Attestation(about),
                None => ManifestKind::Unknown,
            });
        }
        match (&self.descriptor.platform, &self.manifest) {
            (Some(platform), _) if platform.os == "unknown" => Ok(ManifestKind::Unknown),
            (Some(platform), _) => Ok(ManifestKind::Image(platform.clone())),
            (None, Some(manifest)) => match config(documents, manifest)? {
                Some((_, document)) => Ok(ManifestKind::Image(record::platform(&document))),
                None => Ok(ManifestKind::Unknown),
            },
            (None, None) => Ok(ManifestKind::Unknown),
        }
    }
}

/// Reads the config of a manifest; `None` when it is not here, or no image's.
pub(crate) fn config(
    documents: &impl Documents,
    manifest: &Manifest,
) -> Result<Option<(Vec<u8>, ImageDocument)>, Error> {
    let Some(bytes) = documents.document(&manifest.config.digest)? else { return Ok(None) };
    let Ok(document) = serde_json::from_slice::<ImageDocument>(&bytes) else { return Ok(None) };
    let image = !document.os.is_empty() || !document.rootfs.diff_ids.is_empty();
    Ok(image.then_some((bytes, document)))
}

/// Finds the manifest of an image for a platform among those that are here.
pub(crate) fn choose<'g>(
    documents: &impl Documents,
    graph: &'g Graph,
    platform: Option<&Platform>,
) -> Result<Option<&'g Leaf>, Error> {
    for leaf in graph.leaves.iter().filter(|leaf| leaf.manifest.is_some()) {
        if let ManifestKind::Image(offered) = leaf.kind(documents)?
            && platform.is_none_or(|wanted| wanted.runs(&offered))
        {
            return Ok(Some(leaf));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests;

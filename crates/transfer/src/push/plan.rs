//! What belongs to a push: blobs, manifests, and which of them have to be made first. Sends nothing.

use std::collections::BTreeSet;

use rorqual_content::{Descriptor, ImageRecord, Manifest};
use rorqual_core::{Digest, Platform};

use crate::graph::{Graph, Leaf};
use crate::record::{self, Stores, other};
use crate::{Error, ManifestKind, graph, platforms};

/// A blob to send.
pub(super) struct Part {
    /// As it is shown; empty for what is not shown. COMPAT: configs are not.
    pub(super) id: String,
    pub(super) blob: Descriptor,
    /// It is a plain layer that is packed first.
    pub(super) pack: bool,
}

/// All that a push sends.
pub(super) struct Plan {
    /// What the name will lead to, as far as it is known.
    pub(super) target: Descriptor,
    /// Manifests and indexes, those below others first.
    pub(super) documents: Vec<(Descriptor, Vec<u8>)>,
    /// The manifest of an image that was made here; its layers are replaced by what they were packed to.
    pub(super) own: Option<Manifest>,
    /// A blob that surely belongs to it.
    pub(super) config: Descriptor,
    pub(super) parts: Vec<Part>,
    /// What the user should know.
    pub(super) note: Option<String>,
}

impl Plan {
    /// Lists what must not be collected meanwhile.
    pub(super) fn needed(&self, image: &ImageRecord) -> Vec<Digest> {
        let parts = self.parts.iter().map(|part| part.blob.digest.clone());
        let documents = self.documents.iter().map(|(descriptor, _)| descriptor.digest.clone());
        let layers = image.document.rootfs.diff_ids.iter().map(|diff| diff.0.clone());
        parts.chain(documents).chain(layers).collect()
    }
}

/// Makes the plan for an image, or for one of its platforms.
pub(super) async fn plan(
    stores: &Stores,
    image: &ImageRecord,
    platform: Option<&Platform>,
) -> Result<Plan, Error> {
    if platform.is_none()
        && let Some(plan) = own(stores, image).await?
    {
        return Ok(plan);
    }
    let (target, graph) = platforms::graph(stores, image, platform)?;
    let missing = missing(stores, &graph).await?;
    if missing.is_empty() {
        return whole(target, &graph, None);
    }
    if platform.is_some() || target.digest == image.manifest.digest {
        return Err(rorqual_content::Error::NoSuchBlob(missing[0].clone()).into());
    }
    // COMPAT: dockerd sends what is here of an index, too, and says so.
    let own = graph::walk(stores, &image.manifest)?;
    let missing = self::missing(stores, &own).await?;
    if let Some(blob) = missing.first() {
        return Err(rorqual_content::Error::NoSuchBlob(blob.clone()).into());
    }
    let note = format!(
        "Not all platforms of the image are here: only the one for {} is pushed",
        record::platform(&image.document)
    );
    whole(image.manifest.clone(), &own, Some(note))
}

/// Lists the blobs that are not here.
async fn missing(stores: &Stores, graph: &Graph) -> Result<Vec<Digest>, Error> {
    let mut missing = Vec::new();
    for leaf in &graph.leaves {
        let Some(manifest) = &leaf.manifest else {
            missing.push(leaf.descriptor.digest.clone());
            continue;
        };
        for blob in platforms::blobs(&leaf.descriptor, manifest) {
            if !stores.holds(blob).await? {
                missing.push(blob.digest.clone());
            }
        }
    }
    Ok(missing)
}

/// Plans to send documents as they are.
fn whole(target: Descriptor, graph: &Graph, note: Option<String>) -> Result<Plan, Error> {
    let mut seen = BTreeSet::new();
    let mut parts = Vec::new();
    let mut config = None;
    let manifests = graph.leaves.iter().filter_map(|leaf: &Leaf| leaf.manifest.as_ref());
    for manifest in manifests {
        config.get_or_insert_with(|| manifest.config.clone());
        for blob in manifest.layers.iter().chain([&manifest.config]) {
            if seen.insert(blob.digest.clone()) {
                let shown = blob.digest != manifest.config.digest;
                let id = if shown { blob.digest.short() } else { "" }.to_owned();
                parts.push(Part { id, blob: blob.clone(), pack: false });
            }
        }
    }
    let config = config.ok_or_else(|| rorqual_content::Error::NoSuchBlob(target.digest.clone()))?;
    // The graph lists each index before what is below it.
    let mut documents = Vec::new();
    for (digest, bytes) in graph.documents.iter().rev() {
        documents.push((described(digest, bytes, &target, graph)?, bytes.clone()));
    }
    Ok(Plan { target, documents, own: None, config, parts, note })
}

fn described(
    digest: &Digest,
    bytes: &[u8],
    target: &Descriptor,
    graph: &Graph,
) -> Result<Descriptor, Error> {
    if *digest == target.digest {
        return Ok(target.clone());
    }
    let leaf = graph.leaves.iter().find(|leaf| leaf.descriptor.digest == *digest);
    if let Some(leaf) = leaf {
        return Ok(leaf.descriptor.clone());
    }
    // An index within an index says itself what it is.
    let value =
        serde_json::from_slice::<serde_json::Value>(bytes).map_err(other("read an index"))?;
    let kind = value["mediaType"].as_str().unwrap_or(rorqual_content::media_type::OCI_INDEX);
    Ok(Descriptor::new(kind, digest.clone(), bytes.len() as u64))
}

/// Plans for an image that was made here, from its unpacked layers; `None` for others.
async fn own(stores: &Stores, image: &ImageRecord) -> Result<Option<Plan>, Error> {
    if image.target.digest != image.manifest.digest {
        return Ok(None);
    }
    let graph = graph::walk(stores, &image.manifest)?;
    let Some(leaf) = graph.leaves.first() else { return Ok(None) };
    let Some(manifest) = leaf.manifest.clone() else { return Ok(None) };
    if !matches!(leaf.kind(stores)?, ManifestKind::Image(_) | ManifestKind::Unknown) {
        return Ok(None);
    }
    let Ok(layers) = stores.layers(&image.document).await else { return Ok(None) };
    if record::manifest(&image.id, manifest.config.size, &layers) != manifest {
        return Ok(None);
    }
    let mut seen = BTreeSet::new();
    let unique = manifest.layers.iter().filter(|layer| seen.insert(layer.digest.clone()));
    let mut parts = unique
        .map(|layer| Part { id: layer.digest.short().to_owned(), blob: layer.clone(), pack: true })
        .collect::<Vec<_>>();
    let config = manifest.config.clone();
    parts.push(Part { id: String::new(), blob: config.clone(), pack: false });
    let target = image.target.clone();
    Ok(Some(Plan { target, documents: Vec::new(), own: Some(manifest), config, parts, note: None }))
}

//! What an image's target has for other platforms. Reads the stores, changes nothing.

use rorqual_content::{Descriptor, ImageRecord, Manifest};
use rorqual_core::{DiffId, ImageId, Platform};

use crate::graph::{self, Documents, Leaf};
use crate::record::{self, Stores};
use crate::{Error, ManifestKind, ManifestSummary};

/// Lists the manifests that an image's target leads to.
pub(crate) async fn manifests(
    stores: &Stores,
    image: &ImageRecord,
) -> Result<Vec<ManifestSummary>, Error> {
    let graph = graph::walk(stores, &image.target)?;
    let mut summaries = Vec::new();
    for leaf in &graph.leaves {
        summaries.push(summary(stores, leaf).await?);
    }
    Ok(summaries)
}

async fn summary(stores: &Stores, leaf: &Leaf) -> Result<ManifestSummary, Error> {
    let mut summary = ManifestSummary {
        descriptor: leaf.descriptor.clone(),
        kind: leaf.kind(stores)?,
        available: false,
        image: None,
        content: 0,
        unpacked: 0,
    };
    let Some(manifest) = &leaf.manifest else { return Ok(summary) };
    summary.available = true;
    for blob in blobs(&leaf.descriptor, manifest) {
        if stores.holds(blob).await? {
            summary.content += blob.size;
        } else {
            summary.available = false;
        }
    }
    if let (ManifestKind::Image(_), Some((_, document))) =
        (&summary.kind, graph::config(stores, manifest)?)
    {
        summary.image = Some(ImageId(manifest.config.digest.clone()));
        for id in &document.rootfs.diff_ids {
            let layer = stores.snapshots.find_layer(id).await?;
            summary.unpacked += layer.map_or(0, |layer| layer.size);
        }
    }
    Ok(summary)
}

/// Lists what belongs to a manifest, itself included.
pub(crate) fn blobs<'m>(descriptor: &'m Descriptor, manifest: &'m Manifest) -> Vec<&'m Descriptor> {
    manifest.layers.iter().chain([&manifest.config, descriptor]).collect()
}

impl Stores {
    /// Tells whether a blob is here, or can be written again from its layer.
    pub(crate) async fn holds(&self, blob: &Descriptor) -> Result<bool, Error> {
        if self.blobs.size(&blob.digest)?.is_some() {
            return Ok(true);
        }
        Ok(self.snapshots.find_layer(&DiffId(blob.digest.clone())).await?.is_some())
    }
}

/// Returns the image that the same target has for a platform.
pub(crate) async fn variant(
    stores: &Stores,
    image: &ImageRecord,
    platform: &Platform,
) -> Result<ImageRecord, Error> {
    if platform.runs(&record::platform(&image.document)) {
        return Ok(image.clone());
    }
    let missing = || Error::NoVariant(platform.clone());
    let graph = graph::walk(stores, &image.target)?;
    let leaf = graph::choose(stores, &graph, Some(platform))?.ok_or_else(missing)?;
    let manifest = leaf.manifest.as_ref().ok_or_else(missing)?;
    let Some((_, document)) = graph::config(stores, manifest)? else { return Err(missing()) };
    let summary = summary(stores, leaf).await?;
    Ok(ImageRecord {
        id: ImageId(manifest.config.digest.clone()),
        manifest: leaf.descriptor.clone(),
        document,
        // What is not unpacked takes what its blobs take.
        size: if summary.unpacked > 0 { summary.unpacked } else { summary.content },
        ..image.clone()
    })
}

/// Returns the documents of `image`'s target for a platform, or all of them.
pub(crate) fn graph(
    stores: &impl Documents,
    image: &ImageRecord,
    platform: Option<&Platform>,
) -> Result<(Descriptor, graph::Graph), Error> {
    let whole = graph::walk(stores, &image.target)?;
    let Some(platform) = platform else { return Ok((image.target.clone(), whole)) };
    let leaf = graph::choose(stores, &whole, Some(platform))?;
    let leaf = leaf.ok_or_else(|| Error::NoVariant(platform.clone()))?.descriptor.clone();
    let graph = graph::walk(stores, &leaf)?;
    Ok((leaf, graph))
}

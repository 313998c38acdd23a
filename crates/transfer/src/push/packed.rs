//! What plain layers are packed to, so that a layer that the registry has is not packed again to find out.
//!
//! Two sources: what was packed here before, noted beside the images and so known to the next daemon; and the packed layers of images
//! that came from elsewhere, whose layers images made here stand on.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use rorqual_content::{Descriptor, ImageRecord, Images, Manifest, media_type};
use rorqual_core::{DiffId, Digest, Reference, Repository};
use tokio::sync::{OnceCell, Semaphore};

use crate::Error;
use crate::push::source;
use crate::record::{self, Stores};
use crate::registry::Growing;

// LIMIT: packed forms that are remembered.
const MAX_PACKED: usize = 10_000;

/// What was packed here; clones share it.
#[derive(Clone)]
pub(crate) struct Packed {
    known: Arc<Mutex<HashMap<DiffId, Descriptor>>>,
    /// Whether what earlier daemons noted was read.
    read: Arc<OnceCell<()>>,
    /// One at a time: each uses all processors.
    turn: Arc<Semaphore>,
}

impl Default for Packed {
    fn default() -> Self {
        Self { known: Arc::default(), read: Arc::default(), turn: Arc::new(Semaphore::new(1)) }
    }
}

impl Packed {
    /// Reads what earlier daemons noted, and forgets what no image has any more.
    pub(super) async fn read(&self, stores: &Stores) -> Result<(), Error> {
        self.read.get_or_try_init(|| self.read_steps(&*stores.images)).await.map(drop)
    }

    async fn read_steps(&self, images: &dyn Images) -> Result<(), Error> {
        let used: HashSet<DiffId> = images
            .list()
            .await?
            .into_iter()
            .flat_map(|image| image.document.rootfs.diff_ids)
            .collect();
        let forms = images.packed_forms().await?;
        let (kept, stale): (Vec<_>, Vec<_>) =
            forms.into_iter().partition(|(layer, _)| used.contains(layer));
        if !stale.is_empty() {
            images.forget_packed(stale.into_iter().map(|(layer, _)| layer).collect()).await?;
        }
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.extend(kept.into_iter().take(MAX_PACKED));
        Ok(())
    }

    pub(crate) fn find(&self, layer: &DiffId) -> Option<Descriptor> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).get(layer).cloned()
    }

    /// Notes what a layer was packed to, for this daemon and the next.
    pub(crate) async fn put(&self, images: &dyn Images, layer: &DiffId, packed: &Descriptor) {
        {
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            let same = known.get(layer) == Some(packed);
            if same || (known.len() >= MAX_PACKED && !known.contains_key(layer)) {
                return;
            }
            known.insert(layer.clone(), packed.clone());
        }
        if let Err(error) = images.note_packed(layer, packed).await {
            tracing::debug!(%error, %layer, "it is not noted what a layer was packed to");
        }
    }

    /// Packs a plain layer into a blob, unless it was packed before or `other` is a packed form of it that is here. The caller
    /// holds a lease until the blob was used.
    pub(crate) async fn pack(
        &self,
        stores: &Stores,
        layer: &DiffId,
        other: Option<&Descriptor>,
    ) -> Result<Descriptor, Error> {
        self.pack_growing(stores, layer, other, &Arc::default()).await
    }

    /// The same for somebody who uses the blob while it grows; one that is there already does not.
    pub(crate) async fn pack_growing(
        &self,
        stores: &Stores,
        layer: &DiffId,
        other: Option<&Descriptor>,
        growing: &Arc<Growing>,
    ) -> Result<Descriptor, Error> {
        let packed = self.pack_steps(stores, layer, other, growing).await;
        growing.end(None);
        packed
    }

    async fn pack_steps(
        &self,
        stores: &Stores,
        layer: &DiffId,
        other: Option<&Descriptor>,
        growing: &Arc<Growing>,
    ) -> Result<Descriptor, Error> {
        self.read(stores).await?;
        // Whoever has the turn before may pack the same.
        let _turn = self.turn.acquire().await.map_err(record::other("wait for a turn"))?;
        let mut packed = None;
        for known in self.find(layer).into_iter().chain(other.cloned()) {
            if stores.blobs.size(&known.digest)?.is_some() {
                packed = Some(known);
                break;
            }
        }
        let packed = match packed {
            Some(packed) => packed,
            None => source::pack(stores, layer, growing).await?,
        };
        self.put(&*stores.images, layer, &packed).await;
        Ok(packed)
    }
}

/// What all images together tell about blobs.
#[derive(Default)]
pub(super) struct Survey {
    /// By blob the repositories of the registry that images with it came from or went to.
    pub(super) mounts: BTreeMap<Digest, Vec<String>>,
    /// By layer a packed form of it that is here.
    forms: HashMap<DiffId, Descriptor>,
}

impl Survey {
    /// Looks through all images for a push to `to`.
    pub(super) async fn new(
        stores: &Stores,
        packed: &Packed,
        to: &Repository,
    ) -> Result<Self, Error> {
        packed.read(stores).await?;
        let mut survey = Self::default();
        for image in stores.images.list().await? {
            let homes = image.digests.iter().map(Reference::repository);
            let homes = homes.filter(|home| home.host() == to.host() && home.path() != to.path());
            let homes = homes.map(|home| home.path().to_owned()).collect::<Vec<_>>();
            let Ok(bytes) =
                stores.blobs.read(&image.manifest.digest, rorqual_content::MAX_DOCUMENT)
            else {
                continue;
            };
            let Ok(manifest) = serde_json::from_slice::<Manifest>(&bytes) else { continue };
            survey.add_forms(stores, &image, &manifest)?;
            if homes.is_empty() {
                continue;
            }
            let own = image.document.rootfs.diff_ids.iter().filter_map(|diff| packed.find(diff));
            let layers = manifest.layers.into_iter().chain(own);
            for layer in layers {
                survey.mounts.entry(layer.digest).or_default().extend(homes.iter().cloned());
            }
        }
        Ok(survey)
    }

    /// Notes the packed layers of an image.
    fn add_forms(
        &mut self,
        stores: &Stores,
        image: &ImageRecord,
        manifest: &Manifest,
    ) -> Result<(), Error> {
        let diffs = &image.document.rootfs.diff_ids;
        if diffs.len() != manifest.layers.len() {
            return Ok(());
        }
        for (layer, diff) in manifest.layers.iter().zip(diffs) {
            if let Some(form) = form(layer, diff)
                && stores.blobs.size(&layer.digest)?.is_some()
            {
                self.forms.insert(diff.clone(), form);
            }
        }
        Ok(())
    }

    /// Returns a packed form of a layer that is here.
    pub(super) fn form(&self, layer: &DiffId) -> Option<&Descriptor> {
        self.forms.get(layer)
    }
}

/// Describes a layer of another image as one of ours would be; `None` for what is not packed, or not ours to hand on.
fn form(layer: &Descriptor, diff: &DiffId) -> Option<Descriptor> {
    if layer.digest == diff.0 {
        return None;
    }
    let kind = match layer.media_type.as_str() {
        media_type::OCI_LAYER_GZIP | "application/vnd.docker.image.rootfs.diff.tar.gzip" => {
            media_type::OCI_LAYER_GZIP
        }
        zstd @ "application/vnd.oci.image.layer.v1.tar+zstd" => zstd,
        _ => return None,
    };
    Some(Descriptor::new(kind, layer.digest.clone(), layer.size))
}

#[cfg(test)]
mod tests;

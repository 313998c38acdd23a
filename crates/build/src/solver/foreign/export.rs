//! A cache of what a build needed.

use std::collections::{BTreeMap, BTreeSet};

use rorqual_content::Descriptor;
use rorqual_core::DiffId;
use rorqual_snapshot::{FileTree, LayerSource};

use super::super::keeper::LayersHeld;
use super::super::{Solver, State, mounts};
use super::document::{CacheResult, Record};
use super::{CacheDocument, Recorder, mount_digest, record_digest};
use crate::Error;
use crate::error::other;

/// What goes into a cache, with the layers that it needs.
pub struct CacheExport {
    /// Digest of the record, and its layers.
    records: Vec<(rorqual_core::Digest, Vec<DiffId>)>,
    /// When each layer was made.
    created: BTreeMap<DiffId, String>,
    /// The layers of cache mounts, which are nobody else's.
    _held: LayersHeld,
}

impl CacheExport {
    /// Lists the layers that have to be packed.
    pub fn layers(&self) -> Vec<DiffId> {
        let all = self.records.iter().flat_map(|(_, layers)| layers).cloned();
        all.collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// Makes the document, from what the layers were packed to.
    ///
    /// # Errors
    ///
    /// When a layer was not packed.
    pub fn document(&self, packed: &BTreeMap<DiffId, Descriptor>) -> Result<CacheDocument, Error> {
        let mut document = CacheDocument::default();
        let mut known = BTreeMap::new();
        for (digest, layers) in &self.records {
            let mut chain = Vec::new();
            for layer in layers {
                let Some(blob) = packed.get(layer) else {
                    return Err(other("write a cache")(format!("layer {layer} was not packed")));
                };
                let created = self.created.get(layer).cloned().unwrap_or_default();
                chain.push((blob.clone(), layer.clone(), created));
            }
            let top = document.add_chain(chain.iter(), &mut known);
            // The empty file system has no layer that a result could name.
            let Ok(layer) = usize::try_from(top) else { continue };
            let created_at = chain.last().map(|(_, _, created)| created.clone());
            let created_at = created_at.unwrap_or_default();
            document.records.push(Record {
                results: vec![CacheResult { layer, created_at }],
                digest: Some(digest.clone()),
                ..Record::default()
            });
        }
        Ok(document)
    }

    /// Makes the records that an image carries: of states that are among its lowest layers.
    ///
    /// # Errors
    ///
    /// When they cannot be encoded.
    pub fn inline(&self, image: &[DiffId]) -> Result<String, Error> {
        let mut document = CacheDocument::default();
        for (digest, layers) in &self.records {
            if layers.is_empty() || !image.starts_with(layers) {
                continue;
            }
            let layer = layers.len() - 1;
            let created_at = layers
                .last()
                .and_then(|layer| self.created.get(layer))
                .cloned()
                .unwrap_or_default();
            document.records.push(Record {
                results: vec![CacheResult { layer, created_at }],
                digest: Some(digest.clone()),
                ..Record::default()
            });
        }
        document.to_inline()
    }
}

impl Solver {
    /// Collects what a build needed: all of it, or only what is among the layers of its results. `mounts` adds the content
    /// of its cache mounts.
    pub async fn collect_cache(
        &self,
        recorder: &Recorder,
        results: Option<&[State]>,
        mounts: bool,
    ) -> Result<CacheExport, Error> {
        let mut records = BTreeMap::new();
        for step in recorder.steps() {
            for (number, layers) in step.outputs.iter().enumerate() {
                let is_wanted = |state: &State| state.layers().starts_with(layers);
                if results.is_some_and(|results| !results.iter().any(is_wanted)) {
                    continue;
                }
                for key in &step.keys {
                    records.insert(record_digest(key, number), layers.clone());
                }
            }
        }
        let cache = &self.0.parts.cache;
        let mut held = Vec::new();
        if mounts {
            for id in recorder.mounts() {
                if let Some(layer) = self.mount_layer(&id, &mut held).await? {
                    records.insert(mount_digest(&id), vec![layer]);
                }
            }
        }
        let layers = records.values().flatten().cloned().collect::<BTreeSet<_>>();
        // ORDER: all of them are held from here on, the states of the build may go.
        let guard = cache.hold(&layers.iter().cloned().collect::<Vec<_>>());
        let created = layers.into_iter().map(|layer| {
            let made = cache.made(&layer).map(|made| made.to_string()).unwrap_or_default();
            (layer, made)
        });
        Ok(CacheExport {
            created: created.collect(),
            records: records.into_iter().collect(),
            _held: guard,
        })
    }

    /// Makes a layer of what a cache mount holds now.
    async fn mount_layer(
        &self,
        id: &str,
        held: &mut Vec<LayersHeld>,
    ) -> Result<Option<DiffId>, Error> {
        let inner = &self.0;
        let Some((path, _lent)) = mounts::present(inner, id).await else { return Ok(None) };
        let archive = inner.parts.workbench.archive(&FileTree::Directory(path), None).await;
        let blob = archive.map_err(other("pack a cache mount"))?;
        let hold = inner.parts.transfer.hold().await;
        let made = inner.parts.snapshots.apply(LayerSource { blob, expected: None }).await;
        let made = made.map_err(other("pack a cache mount"))?;
        held.push(inner.parts.cache.hold(std::slice::from_ref(&made.diff_id)));
        drop(hold);
        Ok(Some(made.diff_id))
    }
}

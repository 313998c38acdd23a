//! Steps that another builder made.

use std::collections::HashMap;
use std::sync::Arc;

use rorqual_content::Descriptor;
use rorqual_core::{DiffId, Digest};

use super::super::keeper::LayersHeld;
use super::super::{Inner, State};
use super::{CacheDocument, CachedLayers, mount_digest, record_digest};
use crate::Error;

type Layers = Vec<(Descriptor, DiffId)>;

/// A cache that came from elsewhere.
pub struct ImportedCache {
    records: HashMap<Digest, Layers>,
    source: Arc<dyn CachedLayers>,
}

impl ImportedCache {
    /// Reads what documents list; layers come when they are needed.
    ///
    /// # Errors
    ///
    /// `Invalid` when it contradicts itself.
    pub fn new(documents: &[CacheDocument], source: Arc<dyn CachedLayers>) -> Result<Self, Error> {
        let mut records = HashMap::new();
        let all = documents
            .iter()
            .flat_map(|document| document.records.iter().map(move |record| (document, record)));
        for (document, record) in all {
            // What builds on other records was keyed by another builder.
            let Some(digest) = record.digest.clone().filter(|_| record.inputs.is_empty()) else {
                continue;
            };
            if let Some(layers) = document.result(record)? {
                records.insert(digest, layers);
            }
        }
        Ok(Self { records, source })
    }

    /// Finds all outputs of a step, and brings their layers.
    pub(crate) async fn find(
        &self,
        inner: &Inner,
        keys: &[&String],
        outputs: usize,
    ) -> Result<Option<Vec<State>>, Error> {
        for key in keys {
            let found = (0..outputs).map(|number| self.records.get(&record_digest(key, number)));
            let Some(found) = found.collect::<Option<Vec<_>>>() else { continue };
            let mut states = Vec::new();
            for layers in found {
                let (layers, held) = self.bring(inner, layers).await?;
                states.push(State::layers_held(layers, held));
            }
            return Ok(Some(states));
        }
        Ok(None)
    }

    /// Finds what a cache mount held.
    pub(crate) async fn mount(&self, inner: &Inner, id: &str) -> Result<Option<State>, Error> {
        let Some(layers) = self.records.get(&mount_digest(id)) else { return Ok(None) };
        let (layers, held) = self.bring(inner, layers).await?;
        Ok(Some(State::layers_held(layers, held)))
    }

    async fn bring(
        &self,
        inner: &Inner,
        layers: &Layers,
    ) -> Result<(Vec<DiffId>, LayersHeld), Error> {
        let diffs = layers.iter().map(|(_, diff)| diff.clone()).collect::<Vec<_>>();
        // ORDER: held before anybody looks what is here.
        let held = inner.parts.cache.hold(&diffs);
        let mut missing = Vec::new();
        for (blob, diff) in layers {
            let found = inner.parts.snapshots.find_layer(diff).await;
            if found.map_err(crate::error::other("look for a layer"))?.is_none() {
                missing.push(self.source.bring(blob, diff));
            }
        }
        futures_util::future::try_join_all(missing).await?;
        Ok((diffs, held))
    }
}

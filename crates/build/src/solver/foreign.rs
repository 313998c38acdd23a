//! Caches that travel: what a build made as a document with layers, and what another builder made, taken from one.
//!
//! The document is that of BuildKit's caches (`application/vnd.buildkit.cacheconfig.v0`): layers, each with the one below it,
//! and records, each with a digest and the layers that it stands for. A record of ours has the key of a step, and no inputs,
//! as our keys cover them; so the documents of both builders are read by both, while a step is found only by the builder
//! whose kind of key made its record.

mod document;
mod export;
mod import;

use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use rorqual_content::Descriptor;
use rorqual_core::{DiffId, Digest};

pub use document::{CACHE_CONFIG, CacheDocument, MAX_CACHE_DOCUMENT};
pub use export::CacheExport;
pub use import::ImportedCache;

use super::key::Keyed;
use crate::Error;

/// Brings layers of a cache that came from elsewhere.
#[async_trait]
pub trait CachedLayers: Send + Sync + 'static {
    /// Makes sure that a layer is unpacked here; its bytes are verified by both digests.
    async fn bring(&self, blob: &Descriptor, layer: &DiffId) -> Result<(), Error>;
}

/// A step that a build needed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Walked {
    /// By what it is found: one key, or two.
    pub(crate) keys: Vec<String>,
    /// The layers of each state that it makes.
    pub(crate) outputs: Vec<Vec<DiffId>>,
}

#[derive(Debug, Default)]
struct Noted {
    steps: Vec<Walked>,
    mounts: Vec<String>,
}

/// Notes the steps that a build needs, for a cache of them.
#[derive(Debug, Default)]
pub struct Recorder(Mutex<Noted>);

impl Recorder {
    fn lock(&self) -> MutexGuard<'_, Noted> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn note(&self, step: Walked) {
        let mut noted = self.lock();
        if !noted.steps.contains(&step) {
            noted.steps.push(step);
        }
    }

    /// Notes a cache mount by its id.
    pub(crate) fn note_mount(&self, id: &str) {
        let mut noted = self.lock();
        if !noted.mounts.iter().any(|known| known == id) {
            noted.mounts.push(id.to_owned());
        }
    }

    fn steps(&self) -> Vec<Walked> {
        self.lock().steps.clone()
    }

    fn mounts(&self) -> Vec<String> {
        self.lock().mounts.clone()
    }
}

/// The digest under which an output of a step is listed.
pub(crate) fn record_digest(key: &str, output: usize) -> Digest {
    Keyed::new("record").with(key.as_bytes()).with(&(output as u64).to_le_bytes()).digest()
}

/// The digest under which the content of a cache mount is listed.
pub(crate) fn mount_digest(id: &str) -> Digest {
    Keyed::new("record of a mount").with(id.as_bytes()).digest()
}

#[cfg(test)]
mod tests;

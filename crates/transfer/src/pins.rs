//! What operations under way need, so that collection leaves it alone although no record refers to it yet.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use rorqual_core::Digest;

/// Digests of blobs and layers that must stay; clones share them.
#[derive(Clone, Default)]
pub(crate) struct Pins(Arc<Mutex<HashMap<Digest, usize>>>);

/// Holds some digests; dropping it lets them go.
pub(crate) struct Pinned {
    pins: Pins,
    digests: Vec<Digest>,
}

impl Pins {
    /// Holds digests. The caller keeps collection away while it does so.
    pub(crate) fn hold(&self, digests: Vec<Digest>) -> Pinned {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for digest in &digests {
            *held.entry(digest.clone()).or_default() += 1;
        }
        drop(held);
        Pinned { pins: self.clone(), digests }
    }

    /// Lists all that is held.
    pub(crate) fn all(&self) -> Vec<Digest> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect()
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        let mut held = self.pins.0.lock().unwrap_or_else(PoisonError::into_inner);
        for digest in &self.digests {
            if let Some(count) = held.get_mut(digest) {
                *count -= 1;
                if *count == 0 {
                    held.remove(digest);
                }
            }
        }
    }
}

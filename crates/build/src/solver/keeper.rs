//! What builds under way and the cache need of layers and snapshots, for collection to leave alone.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rorqual_core::{ContainerId, DiffId};

/// Layers and snapshots in use.
#[derive(Debug, Default)]
pub(crate) struct InUse {
    layers: Mutex<HashMap<DiffId, usize>>,
    snapshots: Mutex<HashSet<ContainerId>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl InUse {
    /// Keeps layers while the guard lives.
    pub(crate) fn hold(self: &Arc<Self>, layers: &[DiffId]) -> LayersHeld {
        let mut all = lock(&self.layers);
        for layer in layers {
            *all.entry(layer.clone()).or_default() += 1;
        }
        LayersHeld { all: Arc::clone(self), layers: layers.to_vec() }
    }

    /// Keeps a snapshot while the guard lives.
    pub(crate) fn hold_snapshot(self: &Arc<Self>, snapshot: ContainerId) -> SnapshotHeld {
        lock(&self.snapshots).insert(snapshot);
        SnapshotHeld { all: Arc::clone(self), snapshot }
    }

    pub(crate) fn layers(&self) -> Vec<DiffId> {
        lock(&self.layers).keys().cloned().collect()
    }

    pub(crate) fn snapshots(&self) -> Vec<ContainerId> {
        lock(&self.snapshots).iter().copied().collect()
    }
}

/// Layers that stay.
#[derive(Debug)]
pub(crate) struct LayersHeld {
    all: Arc<InUse>,
    layers: Vec<DiffId>,
}

impl Drop for LayersHeld {
    fn drop(&mut self) {
        let mut all = lock(&self.all.layers);
        for layer in &self.layers {
            if let Some(count) = all.get_mut(layer) {
                *count -= 1;
                if *count == 0 {
                    all.remove(layer);
                }
            }
        }
    }
}

/// A snapshot that stays.
#[derive(Debug)]
pub(crate) struct SnapshotHeld {
    all: Arc<InUse>,
    snapshot: ContainerId,
}

impl Drop for SnapshotHeld {
    fn drop(&mut self) {
        lock(&self.all.snapshots).remove(&self.snapshot);
    }
}

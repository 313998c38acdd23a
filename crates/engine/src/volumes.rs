//! Volumes of the local driver.

use std::sync::Arc;

use rorqual_core::Filters;

use crate::error::{Error, Result};
use crate::request::{Pruned, VolumeSpec};
use crate::view::VolumeView;
use crate::world::World;

/// The volumes of one daemon.
#[derive(Clone)]
pub struct Volumes {
    pub(crate) world: Arc<World>,
}

impl Volumes {
    /// Makes a volume, or returns the one that is there.
    pub async fn create(&self, spec: VolumeSpec) -> Result<VolumeView> {
        Err(Error::Unavailable("to be written".to_owned()))
    }

    /// Shows a volume.
    pub async fn inspect(&self, name: &str) -> Result<VolumeView> {
        Err(Error::Unavailable("to be written".to_owned()))
    }

    /// Lists volumes by name (filters `dangling`, `driver`, `label`, `name`).
    pub async fn list(&self, filters: Filters) -> Result<Vec<VolumeView>> {
        Err(Error::Unavailable("to be written".to_owned()))
    }

    /// Removes a volume; with `force` a missing one is fine.
    pub async fn remove(&self, name: &str, force: bool) -> Result<()> {
        Err(Error::Unavailable("to be written".to_owned()))
    }

    /// Removes unused volumes (filters `all`, `label`, `label!`).
    pub async fn prune(&self, filters: Filters) -> Result<Pruned> {
        Err(Error::Unavailable("to be written".to_owned()))
    }
}

//! What everything occupies.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::request::{Census, DiskUsage};
use crate::world::World;

/// Numbers about the whole daemon.
#[derive(Clone)]
pub struct SystemUsage {
    pub(crate) world: Arc<World>,
}

impl SystemUsage {
    /// Measures everything (`system df`).
    pub async fn disk(&self) -> Result<DiskUsage> {
        Err(Error::Unavailable("to be written".to_owned()))
    }

    /// Counts containers and images (`info`).
    pub async fn census(&self) -> Result<Census> {
        Err(Error::Unavailable("to be written".to_owned()))
    }
}

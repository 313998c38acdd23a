//! Networks as users see them.

use std::sync::Arc;

use rorqual_core::Filters;

use crate::error::{Error, Result};
use crate::view::NetworkView;
use crate::world::World;

/// The networks of one daemon.
#[derive(Clone)]
pub struct NetworksView {
    pub(crate) world: Arc<World>,
}

impl NetworksView {
    /// Shows a network with its endpoints.
    pub async fn inspect(&self, network: &str) -> Result<NetworkView> {
        Err(Error::Unavailable("to be written".to_owned()))
    }

    /// Lists networks (filters `dangling`, `driver`, `id`, `label`, `name`, `scope`, `type`).
    pub async fn list(&self, filters: Filters) -> Result<Vec<NetworkView>> {
        Err(Error::Unavailable("to be written".to_owned()))
    }
}

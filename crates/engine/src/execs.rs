//! Extra processes in running containers.

use std::sync::Arc;

use rorqual_core::ExecId;
use rorqual_shim::WindowSize;

use crate::error::{Error, Result};
use crate::request::{Attached, ExecSpec, ExecStart, ExecView};
use crate::world::World;

/// The execs of one daemon.
#[derive(Clone)]
pub struct Execs {
    pub(crate) world: Arc<World>,
}

impl Execs {
    /// Makes an exec; nothing runs yet.
    pub async fn create(&self, container: &str, spec: ExecSpec) -> Result<ExecId> {
        Err(Error::Unavailable("to be written".to_owned()))
    }

    /// Starts an exec; `None` when detached.
    pub async fn start(&self, exec: &str, how: ExecStart) -> Result<Option<Attached>> {
        Err(Error::Unavailable("to be written".to_owned()))
    }

    /// Shows an exec.
    pub async fn inspect(&self, exec: &str) -> Result<ExecView> {
        Err(Error::Unavailable("to be written".to_owned()))
    }

    /// Tells an exec's terminal the size.
    pub async fn resize(&self, exec: &str, window: WindowSize) -> Result<()> {
        Err(Error::Unavailable("to be written".to_owned()))
    }

    /// Notes that a client left with the detach keys.
    pub async fn note_detach(&self, exec: &str) -> Result<()> {
        Err(Error::Unavailable("to be written".to_owned()))
    }
}

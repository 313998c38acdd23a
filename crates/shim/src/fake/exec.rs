//! Extra processes of the fake.

use std::sync::Arc;

use async_trait::async_trait;
use rorqual_core::Signal;

use super::{Deed, Process};
use crate::Error;
use crate::task::{Exec, Exit, KillReach, WindowSize};

/// An extra process that pretends to run.
pub struct FakeExec {
    pub(super) process: Arc<Process>,
}

#[async_trait]
impl Exec for FakeExec {
    fn pid(&self) -> i32 {
        self.process.pid
    }

    async fn exit(&self) -> Exit {
        self.process.exit().await
    }

    async fn resize(&self, window: WindowSize) -> Result<(), Error> {
        self.process.note(Deed::Resize(window))
    }

    async fn signal(&self, signal: Signal) -> Result<(), Error> {
        self.process.note(Deed::Signal(signal, KillReach::Init))?;
        if let Some(exit) = self.process.ended_by(signal) {
            self.process.end(exit);
        }
        Ok(())
    }
}

//! Launcher and shim: who starts containers and holds what must outlive the daemon.
//!
//! The daemon's side is async ([`Tasks`], [`Task`]); launcher and shim are single-threaded processes without a runtime.
//! No policy here: restarts, health and events belong to the engine.

mod cgroups;
mod connection;
mod error;
#[cfg(any(test, feature = "fake"))]
pub mod fake;
mod filters;
mod launch;
pub mod launcher;
pub mod log;
mod ps;
mod reaper;
mod record;
mod running;
mod sealed;
mod server;
mod shims;
#[cfg(any(test, feature = "fake"))]
pub mod suite;
mod takedown;
mod task;
mod wire;

pub use error::Error;
pub use launch::Launcher;
pub use shims::{Shims, ShimsOptions};
pub use task::{
    Adoption, Attachment, Exec, ExecLaunch, Exit, KillReach, Launch, NamespaceFd, ProcessTable,
    Stats, Task, TaskId, Tasks, WindowSize,
};

//! Launcher and shim: who starts containers and holds what must outlive the daemon.
//!
//! The daemon's side is async ([`Tasks`], [`Task`]); launcher and shim are single-threaded processes without a runtime.
//! No policy here: restarts, health and events belong to the engine.

mod error;
#[cfg(any(test, feature = "fake"))]
pub mod fake;
pub mod log;
mod task;

pub use error::Error;
pub use task::{
    Adoption, Attachment, Exec, ExecLaunch, Exit, KillReach, Launch, NamespaceFd, ProcessTable,
    Stats, Task, TaskId, Tasks, WindowSize,
};

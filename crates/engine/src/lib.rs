//! The engine: containers, images, volumes, execs, events, prune, recovery. Orchestration only.
//!
//! No HTTP, no wire types, no system calls: it directs the parts below it through their contracts. Operations that must
//! run to their end do so even when the caller's future is dropped.

mod changes;
mod clock;
mod container;
mod containers;
mod effective;
mod engine;
mod error;
mod events;
mod execs;
mod health;
mod images;
mod index;
mod labels;
mod logs;
mod networks;
mod ocispec;
mod options;
mod phase;
mod records;
mod recovery;
mod request;
mod restart;
mod seccomp;
pub mod spec;
mod steps;
#[cfg(test)]
mod testing;
mod undo;
mod usage;
mod validate;
mod view;
mod volumes;
mod world;

pub use clock::Clock;
pub use containers::{Containers, Waiting};
pub use engine::{Ending, Engine};
pub use error::{Error, Result};
pub use events::{Event, EventKind, EventQuery, Events, Listener};
pub use execs::Execs;
pub use images::ImagesService;
pub use logs::{LogRecords, LogRequest, LogSource, LogView, ShimLogs};
pub use networks::NetworksView;
pub use options::{AppArmor, CgroupDriver, DiskWeights, JournalState, Options, Parts, SeLinux};
pub use phase::{Desired, Happening, IllegalTransition, Phase};
pub use request::*;
pub use steps::{StepExit, StepOutput, StepRequest, StepTerminal, Steps};
pub use usage::SystemUsage;
pub use view::*;
pub use volumes::{Copied, CopyRequest, ExportRequest, ImportRequest, Volumes};

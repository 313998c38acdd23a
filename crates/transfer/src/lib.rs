//! Moving images in and out of the stores: `load`, `save`, `import`, `commit`.
//!
//! Knows no containers beyond the name of a snapshot. Registries join here later.

mod contract;
#[cfg(feature = "fake")]
pub mod fake;

pub use contract::{
    CommitRequest, Error, ImportRequest, Loaded, Progress, ProgressSink, Transfer,
};

//! Moving images in and out of the stores: `load`, `save`, `import`.
//!
//! Knows no containers. Registries join here later.

mod contract;

pub use contract::{Error, ImportRequest, Loaded, Progress, ProgressSink, Transfer};

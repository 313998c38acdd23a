//! Where the data of volumes live: directories of ours, and what their options mount over them.
//!
//! Knows nothing of containers but their ids, by which it counts who needs a mount.

mod contract;
#[cfg(any(test, feature = "fake"))]
pub mod fake;
mod local;
mod options;

pub use contract::{Error, VolumeDriver, VolumeOptions};
pub use local::Local;

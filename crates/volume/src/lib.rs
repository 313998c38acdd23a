//! Where the data of volumes live: directories of ours, what their options mount over them, and plugins; and how they are
//! copied, exported and imported.
//!
//! Knows nothing of containers but their ids, by which it counts who needs a mount.

mod archive;
mod contract;
mod drivers;
#[cfg(any(test, feature = "fake"))]
pub mod fake;
mod local;
mod options;
mod part;
mod progress;
mod remote;
mod tree;

pub use archive::{ChunkSet, Header, MAX_DIGESTS};
pub use contract::{Described, Error, VolumeDriver, VolumeOptions};
pub use drivers::{Drivers, LOCAL};
pub use local::{Local, Staged};
pub use part::check_part;
pub use progress::{CancelGuard, Progress};
pub use rorqual_sys::feed::Feed;

//! Moving images in and out of the stores: `load`, `save`, `import`, `commit`.
//!
//! Knows no containers beyond the name of a snapshot. Registries join here later.

mod archive;
mod contract;
#[cfg(feature = "fake")]
pub mod fake;
mod graph;
mod load;
mod local;
mod platforms;
mod record;
mod remote;
mod save;

pub use contract::{
    CommitRequest, Distribution, Error, Hold, ImportRequest, Keeper, Kept, Loaded, ManifestKind,
    ManifestSummary, Progress, ProgressSink, PullRequest, Pulled, PushRequest, Pushed,
    RegistryAuth, SearchRequest, SearchResult, Transfer,
};
pub use local::{ImageFile, LocalTransfer};
pub use remote::{RemoteError, open_remote};

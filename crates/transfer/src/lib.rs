//! Moving images in and out of the stores: `load`, `save`, `import`, `commit`, `pull`, `push`.
//!
//! Knows no containers beyond the name of a snapshot.

mod archive;
mod artifact;
mod contract;
mod direct;
mod distribution;
#[cfg(feature = "fake")]
pub mod fake;
mod graph;
mod gzip;
mod load;
mod local;
mod pins;
mod platforms;
mod pull;
mod push;
mod record;
mod registry;
mod save;

pub use artifact::{Artifacts, Component, Composed, Composition, Predicate, Publication};
pub use contract::{
    CommitRequest, Distribution, Error, Hold, ImportRequest, Keeper, Kept, Loaded, ManifestKind,
    ManifestSummary, Progress, ProgressSink, PullRequest, Pulled, PushRequest, Pushed,
    RegistryAuth, SearchRequest, SearchResult, Transfer,
};
pub use direct::Remote;
pub use local::{ImageFile, LocalTransfer};
pub use registry::{Proxies, RegistryOptions, RegistryRule, RemoteAnswer, RemoteError, RemoteFile};

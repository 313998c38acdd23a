//! Mounts as data. Who performs them is the runtime, inside the container's own mount namespace.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// How to come by a root file system.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RootfsPlan {
    /// A directory that is there already (OCI bundles).
    Directory {
        /// Absolute path on the host.
        path: PathBuf,
    },
    /// An overlay, see [`OverlayPlan`].
    Overlay(OverlayPlan),
}

/// A mount of a build's step, beside those that every container has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepMount {
    /// Absolute path in the root; made when it is missing, never through a link that leads out of the root.
    pub target: String,
    /// What is mounted.
    pub source: StepMountSource,
    /// Not writable.
    pub readonly: bool,
}

/// What a step's mount shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StepMountSource {
    /// A file system made of layers.
    Rootfs(RootfsPlan),
    /// A directory, file or socket of the host.
    Path(PathBuf),
    /// Memory, with a bound in bytes.
    Tmpfs(Option<u64>),
}

/// An overlay mount: read-only layers below, one writable directory on top.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OverlayPlan {
    /// Absolute paths of the lower layers, **top layer first** (the kernel's order).
    pub lower: Vec<PathBuf>,
    /// Writable directory; `None` makes a read-only view.
    pub upper: Option<UpperPlan>,
    /// Further mount options as `key` or `key=value`, for instance `metacopy=off`.
    pub options: Vec<String>,
}

/// The writable part of an [`OverlayPlan`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpperPlan {
    /// Absolute path of the directory that takes the changes.
    pub upper: PathBuf,
    /// Absolute path of the scratch directory, on the same file system as `upper`.
    pub work: PathBuf,
}

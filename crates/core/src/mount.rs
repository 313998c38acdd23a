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

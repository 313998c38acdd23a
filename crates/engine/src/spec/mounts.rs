//! Binds, volumes and tmpfs of a container, one type for all spellings.

use std::collections::BTreeMap;

use rorqual_core::VolumeName;
use serde::{Deserialize, Serialize};

/// A mount inside a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountSpec {
    /// What is mounted.
    pub kind: MountKind,
    /// Absolute path inside the container.
    pub target: String,
    /// Mounted read-only.
    pub read_only: bool,
    /// Mode words as written in the short form (`z`, `Z`, `rw`, …), echoed by `inspect`.
    pub mode: String,
}

/// What is mounted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MountKind {
    /// A path of the host.
    Bind {
        /// Absolute path on the host.
        source: String,
        /// How.
        options: BindOptions,
    },
    /// A volume.
    Volume {
        /// Its name; `None` makes an anonymous one.
        name: Option<VolumeName>,
        /// How.
        options: VolumeOptions,
    },
    /// Memory.
    Tmpfs(TmpfsOptions),
    /// The files of an image, to read.
    Image {
        /// The image as the user wrote it.
        reference: String,
        /// Directory or file inside that is mounted instead of its root.
        subpath: Option<String>,
    },
}

/// How mounts below spread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Propagation {
    /// `private`
    Private,
    /// `rprivate`, the default
    Rprivate,
    /// `shared`
    Shared,
    /// `rshared`
    Rshared,
    /// `slave`
    Slave,
    /// `rslave`
    Rslave,
}

impl Propagation {
    /// Returns the mount option's word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Private => "private",
            Self::Rprivate => "rprivate",
            Self::Shared => "shared",
            Self::Rshared => "rshared",
            Self::Slave => "slave",
            Self::Rslave => "rslave",
        }
    }
}

/// Whether mounts below a read-only bind become read-only too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum RecursiveReadOnly {
    /// Where the kernel can.
    #[default]
    IfPossible,
    /// Never (`bind-recursive=writable`).
    Never,
    /// Always, or fail (`bind-recursive=readonly`).
    Force,
}

/// How a path of the host is mounted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BindOptions {
    /// `None`: `rprivate`.
    pub propagation: Option<Propagation>,
    /// Leave out the mounts below the source (`bind-recursive=disabled`).
    pub non_recursive: bool,
    /// Make the source when it is missing (the short form does).
    pub create_source: bool,
    /// How far read-only reaches.
    pub recursive_read_only: RecursiveReadOnly,
    /// Which of the container's ids are whose on the host.
    pub idmap: Option<IdMap>,
}

/// A user and group of the container that are somebody else's on the host.
///
/// What the container's user makes belongs on the host to `host`, and what belongs to `host` there looks as the
/// container's user's own. All other ids are the same on both sides, but that nobody has those two any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdMap {
    /// User and group in the container; `None`: those it runs as.
    pub container: Option<(u32, u32)>,
    /// User and group on the host.
    pub host: (u32, u32),
}

/// How a volume is mounted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct VolumeOptions {
    /// Do not fill it from the image at its first use.
    pub no_copy: bool,
    /// Labels for a new one.
    pub labels: BTreeMap<String, String>,
    /// Driver for a new one.
    pub driver: Option<String>,
    /// Driver options for a new one.
    pub driver_options: BTreeMap<String, String>,
    /// Directory inside the volume that is mounted instead of its root.
    pub subpath: Option<String>,
}

/// How memory is mounted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TmpfsOptions {
    /// Bound in bytes.
    pub size: Option<u64>,
    /// Permissions; `None`: 1777.
    pub mode: Option<u32>,
    /// Further mount options as written.
    pub options: Vec<String>,
}

/// A container whose mounts are taken over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumesFrom {
    /// Name or id.
    pub container: String,
    /// `Some(true)` for `:ro`, `Some(false)` for `:rw`, `None` keeps each mount's own.
    pub read_only: Option<bool>,
}

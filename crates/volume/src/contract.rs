//! What a volume driver does, and the life of a volume.
//!
//! A volume is *created* (a directory, nothing mounted), *mounted* for the first container that uses it, shared by
//! further ones, *unmounted* when the last has ended, and at last *removed*. Each step may be repeated: creating what is
//! there, mounting for somebody who has it, unmounting and removing what is gone are all fine. Who runs a container
//! mounts before the start and unmounts after the end; after a restart of the daemon [`VolumeDriver::recover`] is told
//! who runs, takes those mounts over and undoes all others.

use std::collections::BTreeMap;
use std::path::PathBuf;

use async_trait::async_trait;
use rorqual_core::{Classify, ContainerId, ErrorKind, VolumeName};

/// Options of a volume as given at its creation.
pub type VolumeOptions = BTreeMap<String, String>;

/// What can go wrong with a volume.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The options ask for something impossible.
    #[error("{0}")]
    InvalidArgument(String),
    /// This host or its file system cannot do it.
    #[error("{0}")]
    Unsupported(String),
    /// Something of that name is in the way.
    #[error("{0}")]
    Conflict(String),
    /// It is still mounted.
    #[error("volume {0} is mounted, so its directory cannot be removed")]
    Mounted(VolumeName),
    /// A volume cannot be made.
    // COMPAT: dockerd's text.
    #[error("create {0}")]
    Creating(VolumeName, #[source] Box<Error>),
    /// The caller called it off.
    #[error("called off")]
    Cancelled,
    /// An archive is not what it should be.
    #[error("invalid volume archive: {0}")]
    Archive(String),
    /// A file operation failed.
    #[error("cannot {action}")]
    Io {
        /// What was tried, on what.
        action: String,
        /// Why.
        source: std::io::Error,
    },
    /// What the options describe cannot be mounted.
    // COMPAT: dockerd's text.
    #[error("error while mounting volume '{path}': failed to mount local volume: {mount}")]
    Mount {
        /// The mount point.
        path: String,
        /// The mount in words, without secrets.
        mount: String,
        /// Why.
        source: std::io::Error,
    },
    /// A part of a volume is not there.
    // COMPAT: dockerd's text.
    #[error("cannot access path {0}: lstat {0}: no such file or directory")]
    NoPart(String),
    /// What is named as a part of a volume is none.
    // COMPAT: dockerd's text.
    #[error("path concatenation escapes the base directory, base: {base}, subpath: {part}")]
    Elsewhere {
        /// The volume's data.
        base: String,
        /// The part.
        part: String,
    },
    /// There is no driver of this name.
    // COMPAT: dockerd's text.
    #[error("error looking up volume plugin {name}")]
    NoDriver {
        /// The name.
        name: String,
        /// Why it cannot be used.
        #[source]
        source: rorqual_plugin::Error,
    },
    /// A plugin did not do what it was asked.
    #[error(transparent)]
    Plugin(#[from] rorqual_plugin::Error),
}

impl Classify for Error {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::InvalidArgument(_) | Self::Archive(_) | Self::Elsewhere { .. } => {
                ErrorKind::InvalidArgument
            }
            Self::NoPart(_) => ErrorKind::NotFound,
            Self::Unsupported(_) => ErrorKind::Unsupported,
            Self::Mounted(_) | Self::Conflict(_) => ErrorKind::Conflict,
            Self::Cancelled => ErrorKind::Cancelled,
            Self::Creating(_, source) => source.kind(),
            Self::Io { .. } | Self::Mount { .. } => ErrorKind::Internal,
            Self::NoDriver { source, .. } | Self::Plugin(source) => source.kind(),
        }
    }
}

/// What a driver tells of a volume.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Described {
    /// Where its data are, as far as that is known now.
    pub mountpoint: PathBuf,
    /// When it was made, in the driver's words.
    pub created: Option<String>,
    /// What else the driver has to say, as JSON.
    pub status: BTreeMap<String, serde_json::Value>,
}

/// Keeps the data of volumes; see the module for a volume's life.
#[async_trait]
pub trait VolumeDriver: Send + Sync {
    /// Returns the name users know it by.
    fn name(&self) -> &str;

    /// Tells where its volumes are seen: `local` on this host, `global` on every host of a cluster.
    async fn scope(&self) -> String;

    /// Checks options before anything is made of them.
    fn check(&self, options: &VolumeOptions) -> Result<(), Error>;

    /// Makes a volume.
    ///
    /// # Cancellation
    ///
    /// Once begun it runs to its end.
    async fn create(&self, name: &VolumeName, options: &VolumeOptions) -> Result<(), Error>;

    /// Removes a volume's data for good, but never what its options mount over them.
    async fn remove(&self, name: &VolumeName) -> Result<(), Error>;

    /// Tells that the record of a removed volume is gone, so that nobody will ask for its data again.
    async fn forget(&self, _name: &VolumeName) {}

    /// Makes the data available to `user` and returns where.
    ///
    /// # Cancellation
    ///
    /// It may have been mounted for `user` all the same; unmounting takes that back.
    async fn mount(
        &self,
        name: &VolumeName,
        options: &VolumeOptions,
        user: ContainerId,
    ) -> Result<PathBuf, Error>;

    /// Tells that `user` has ended; the last one's end takes the mount away.
    async fn unmount(&self, name: &VolumeName, user: ContainerId) -> Result<(), Error>;

    /// Describes a volume; `None` when the driver does not know it (any more).
    async fn describe(&self, name: &VolumeName) -> Result<Option<Described>, Error>;

    /// Lists volumes that the driver knows by itself, whoever made them.
    async fn list(&self) -> Result<Vec<(VolumeName, Described)>, Error>;

    /// Sums the bytes that a volume's files occupy, where that can be known.
    async fn size(&self, name: &VolumeName) -> Option<u64>;

    /// Takes the mounts of an earlier life over for those who run, `users`, and undoes the others of `known`.
    async fn recover(&self, known: Vec<VolumeName>, users: Vec<(VolumeName, ContainerId)>);
}

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
    /// It is still mounted.
    #[error("volume {0} is mounted, so its directory cannot be removed")]
    Mounted(VolumeName),
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
}

impl Classify for Error {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::InvalidArgument(_) => ErrorKind::InvalidArgument,
            Self::Mounted(_) => ErrorKind::Conflict,
            Self::Io { .. } | Self::Mount { .. } => ErrorKind::Internal,
        }
    }
}

/// Keeps the data of volumes; see the module for a volume's life.
#[async_trait]
pub trait VolumeDriver: Send + Sync {
    /// Checks options before anything is made of them.
    fn check(&self, options: &VolumeOptions) -> Result<(), Error>;

    /// Returns the directory that holds the data while the volume is mounted.
    fn mountpoint(&self, name: &VolumeName) -> PathBuf;

    /// Makes a volume's directory.
    ///
    /// # Cancellation
    ///
    /// Once begun it runs to its end.
    async fn create(&self, name: &VolumeName) -> Result<(), Error>;

    /// Removes a volume's data for good, but never what its options mount over them.
    async fn remove(&self, name: &VolumeName) -> Result<(), Error>;

    /// Makes the data available to `user` at the mount point.
    ///
    /// # Cancellation
    ///
    /// It may have been mounted for `user` all the same; unmounting takes that back.
    async fn mount(
        &self,
        name: &VolumeName,
        options: &VolumeOptions,
        user: ContainerId,
    ) -> Result<(), Error>;

    /// Tells that `user` has ended; the last one's end takes the mount away.
    async fn unmount(&self, name: &VolumeName, user: ContainerId) -> Result<(), Error>;

    /// Sums the bytes that a volume's files occupy.
    async fn size(&self, name: &VolumeName) -> u64;

    /// Takes the mounts of an earlier life over for those who run, `users`, and undoes the others of `known`.
    async fn recover(&self, known: Vec<VolumeName>, users: Vec<(VolumeName, ContainerId)>);
}

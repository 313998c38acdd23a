//! Failures of layers, snapshots and archives.

use std::io;

use rorqual_core::{Classify, DiffId, ErrorKind};

/// A failure of the snapshotter.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No such layer on disk.
    #[error("no such layer: {0}")]
    NoSuchLayer(DiffId),
    /// No such snapshot.
    #[error("no such snapshot: {0}")]
    NoSuchSnapshot(String),
    /// A path that is not there.
    // COMPAT: dockerd's text for `docker cp`.
    #[error("Could not find the file {path} in container {container}")]
    NoSuchPath {
        /// What was asked for.
        path: String,
        /// In which container.
        container: String,
    },
    /// Something that is to be copied is not there.
    // COMPAT: BuildKit's text.
    #[error("{0:?}: not found")]
    NoSuchSource(String),
    /// The archive is broken, hostile or beyond a bound.
    #[error("invalid archive: {0}")]
    InvalidArchive(String),
    /// The unpacked bytes are not what the image promised.
    #[error("layer does not match its digest: expected {expected}, got {found}")]
    WrongDigest {
        /// Promised.
        expected: DiffId,
        /// Computed.
        found: DiffId,
    },
    /// The request asks for something impossible.
    #[error("{0}")]
    InvalidArgument(String),
    /// This kernel or file system cannot do it.
    #[error("{0}")]
    Unsupported(String),
    /// A system call failed.
    #[error("cannot {action}")]
    Io {
        /// What was tried, on what.
        action: String,
        /// Why it failed.
        source: io::Error,
    },
}

impl Classify for Error {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::NoSuchLayer(_)
            | Self::NoSuchSnapshot(_)
            | Self::NoSuchPath { .. }
            | Self::NoSuchSource(_) => ErrorKind::NotFound,
            Self::InvalidArchive(_) | Self::WrongDigest { .. } | Self::InvalidArgument(_) => {
                ErrorKind::InvalidArgument
            }
            Self::Unsupported(_) => ErrorKind::Unsupported,
            Self::Io { .. } => ErrorKind::Internal,
        }
    }
}

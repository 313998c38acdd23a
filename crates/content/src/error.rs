//! Failures of the content store.

use std::io;

use rorqual_core::{BoxError, Classify, Digest, ErrorKind, InvalidReference};

/// A failure of blobs or image records.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No such blob.
    #[error("no such blob: {0}")]
    NoSuchBlob(Digest),
    /// No such image.
    // COMPAT: clients look for this text.
    #[error("No such image: {0}")]
    NoSuchImage(String),
    /// Neither a name nor an id.
    #[error(transparent)]
    InvalidName(#[from] InvalidReference),
    /// More than one image answers to the short id.
    #[error("image {0:?} is ambiguous: more than one image has this id prefix")]
    Ambiguous(String),
    /// The bytes are not what their digest says.
    #[error("content does not match its digest: expected {expected}, got {found}")]
    WrongDigest {
        /// Promised.
        expected: Digest,
        /// Computed.
        found: Digest,
    },
    /// Longer or shorter than its descriptor says, or beyond a bound.
    #[error("content has the wrong size: {0}")]
    WrongSize(String),
    /// A document that cannot be read.
    #[error("invalid {what}")]
    InvalidDocument {
        /// `manifest`, `index`, `image config`
        what: &'static str,
        /// Why.
        source: BoxError,
    },
    /// A system call failed.
    #[error("cannot {action}")]
    Io {
        /// What was tried, on what.
        action: String,
        /// Why.
        source: io::Error,
    },
    /// The database failed.
    #[error("cannot {action}")]
    Database {
        /// What was tried.
        action: &'static str,
        /// Why.
        source: BoxError,
    },
}

impl Classify for Error {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::NoSuchBlob(_) | Self::NoSuchImage(_) => ErrorKind::NotFound,
            Self::Ambiguous(_) | Self::InvalidName(_) => ErrorKind::InvalidArgument,
            Self::WrongDigest { .. } | Self::WrongSize(_) | Self::InvalidDocument { .. } => {
                ErrorKind::InvalidArgument
            }
            Self::Io { .. } | Self::Database { .. } => ErrorKind::Internal,
        }
    }
}

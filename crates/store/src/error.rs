//! Failures of durable state.

use std::io;

use rorqual_core::{BoxError, Classify, ErrorKind};

/// A failure of the database, the journal or a file.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// SQLite failed.
    #[error("cannot {action} the database")]
    Database {
        /// `open`, `read`, `write`
        action: &'static str,
        /// Why.
        source: rusqlite::Error,
    },
    /// A record that cannot be written or read back.
    #[error("cannot {action} the record {id:?} of kind {kind}")]
    Record {
        /// `encode`, `decode`
        action: &'static str,
        /// Kind of the record.
        kind: &'static str,
        /// Its id.
        id: String,
        /// Why.
        source: BoxError,
    },
    /// The database was written by a newer version.
    #[error("the database has schema version {found}, this version knows up to {known}")]
    TooNew {
        /// Found on disk.
        found: u32,
        /// Known here.
        known: u32,
    },
    /// The thread that owns the database has ended.
    #[error("the database is closed")]
    Closed,
    /// A file operation failed.
    #[error("cannot {action}")]
    Io {
        /// What was tried, on what.
        action: String,
        /// Why.
        source: io::Error,
    },
}

impl Classify for Error {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Closed => ErrorKind::Unavailable,
            Self::Database { .. } | Self::Record { .. } | Self::TooNew { .. } | Self::Io { .. } => {
                ErrorKind::Internal
            }
        }
    }
}

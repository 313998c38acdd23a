//! What can go wrong with a plugin.

use std::path::PathBuf;
use std::time::Duration;

use rorqual_core::{BoxError, Classify, ErrorKind};

/// A plugin that is not there, or did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// None of the places has one of this name.
    // COMPAT: dockerd's text.
    #[error("plugin {0:?} not found")]
    NotFound(String),
    /// It is there, for something else.
    // COMPAT: dockerd's text.
    #[error(
        "Plugin does not implement the requested driver: plugin={name:?}, requested implementation={wanted:?}"
    )]
    NotImplemented {
        /// The plugin.
        name: String,
        /// What it was wanted for.
        wanted: String,
    },
    /// The file that tells its address cannot be used.
    #[error("cannot use plugin file {path:?}: {reason}")]
    Specification {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Nobody answers at its address.
    #[error("cannot reach plugin {name:?} at {address}")]
    Unreachable {
        /// The plugin.
        name: String,
        /// Where it should be.
        address: String,
        /// Why.
        source: BoxError,
    },
    /// It took longer than it may.
    #[error("plugin {name:?} did not answer {method} within {} s", .after.as_secs_f32())]
    TimedOut {
        /// The plugin.
        name: String,
        /// What it was asked.
        method: String,
        /// How long it had.
        after: Duration,
    },
    /// The conversation broke, or the answer is not what the method answers.
    #[error("cannot understand plugin {name:?} on {method}")]
    Protocol {
        /// The plugin.
        name: String,
        /// What it was asked.
        method: String,
        /// What went wrong.
        source: BoxError,
    },
    /// It answered that it failed.
    // COMPAT: dockerd's text, with the method in front where the status says so too.
    #[error("{}{message}", .status.map_or_else(String::new, |_| format!("{method}: ")))]
    Refused {
        /// What it was asked.
        method: String,
        /// The HTTP status, unless that was 200.
        status: Option<u16>,
        /// Its text.
        message: String,
    },
}

impl Error {
    /// Tells whether the plugin does not know the method at all.
    pub const fn is_unknown_method(&self) -> bool {
        matches!(self, Self::Refused { status: Some(404), .. })
    }
}

impl Classify for Error {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::NotFound(_) => ErrorKind::NotFound,
            Self::NotImplemented { .. } | Self::Specification { .. } => ErrorKind::InvalidArgument,
            Self::Unreachable { .. } | Self::TimedOut { .. } => ErrorKind::Unavailable,
            Self::Protocol { .. } | Self::Refused { .. } => ErrorKind::Internal,
        }
    }
}

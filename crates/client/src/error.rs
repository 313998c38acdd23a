//! What can go wrong between a client and its daemon.

use std::io;
use std::path::PathBuf;

use rorqual_core::{Classify, ErrorKind};

/// A failed request.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Nobody listens at the daemon's address.
    // COMPAT: scripts search for this text of docker's client.
    #[error("Cannot connect to the Docker daemon at {0}. Is the docker daemon running?")]
    NotRunning(String),
    /// The socket exists but this user may not open it.
    #[error(
        "permission denied while trying to connect to the docker API at {0}" // COMPAT: docker's text
    )]
    Denied(String),
    /// The connection could not be made.
    #[error("error during connect: {host}: {source}")]
    Connect {
        /// Address of the daemon.
        host: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The daemon refused the request.
    #[error("Error response from daemon: {message}")]
    Daemon {
        /// HTTP status.
        status: u16,
        /// Its text.
        message: String,
    },
    /// The HTTP conversation broke.
    #[error("error during connect: {}", explained(.0))]
    Http(#[from] hyper::Error),
    /// Reading or writing a stream failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The daemon answered with something that is not the JSON it should be.
    #[error("cannot read the daemon's answer: {0}")]
    Json(#[from] serde_json::Error),
    /// A request could not be put together, as with a control character in a header.
    #[error("invalid request: {0}")]
    Request(#[from] http::Error),
    /// TLS material cannot be used.
    #[error("cannot use TLS file {path:?}: {reason}")]
    Tls {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// An answer larger than any daemon sends.
    #[error("the daemon's answer is too large")]
    TooLarge,
    /// The address of the daemon is not one.
    #[error(transparent)]
    Host(#[from] crate::InvalidHost),
}

/// Tells the whole chain of causes, which hyper's own text leaves out; TLS in the wrong place gets its own hint.
fn explained(error: &hyper::Error) -> String {
    let mut text = rorqual_core::full_message(error);
    if error.is_parse() {
        text.push_str(". Are you trying to connect to a TLS-enabled daemon without TLS?");
    }
    text
}

impl Error {
    /// Returns the text the daemon answered with, without any prefix.
    pub fn daemon_message(&self) -> Option<&str> {
        match self {
            Self::Daemon { message, .. } => Some(message),
            _ => None,
        }
    }

    /// Tells whether the daemon said that there is no such thing.
    pub const fn is_not_found(&self) -> bool {
        matches!(self, Self::Daemon { status: 404, .. })
    }
}

impl Classify for Error {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::NotRunning(_) | Self::Connect { .. } | Self::Http(_) => ErrorKind::Unavailable,
            Self::Denied(_) => ErrorKind::Forbidden,
            Self::Daemon { status, .. } => match status {
                400 => ErrorKind::InvalidArgument,
                401 => ErrorKind::Unauthenticated,
                403 => ErrorKind::Forbidden,
                404 => ErrorKind::NotFound,
                409 => ErrorKind::Conflict,
                501 => ErrorKind::Unsupported,
                503 => ErrorKind::Unavailable,
                _ => ErrorKind::Internal,
            },
            Self::Request(_) | Self::Tls { .. } | Self::Host(_) => ErrorKind::InvalidArgument,
            Self::Io(_) | Self::Json(_) | Self::TooLarge => ErrorKind::Internal,
        }
    }
}

//! Why a container could not be created or started.

use std::io;

use rorqual_core::{Classify, ErrorKind};

/// What went wrong with the program itself; decides the exit code 126, 127 or 128.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartFailure {
    /// No such program: 127.
    NotFound,
    /// Not executable, or a directory: 126.
    NotExecutable,
    /// The root file system does not know the user or group: 128.
    NoSuchUser,
    /// Anything else: 128.
    Other,
}

impl StartFailure {
    /// Returns the exit code that Docker gives such a container.
    pub const fn exit_code(self) -> i32 {
        match self {
            Self::NotFound => 127,
            Self::NotExecutable => 126,
            Self::NoSuchUser | Self::Other => 128,
        }
    }
}

/// A failure of the runtime.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The specification asks for something impossible.
    #[error("invalid specification: {0}")]
    InvalidSpec(String),
    /// The kernel or this build lacks what was asked for.
    #[error("{0}")]
    Unsupported(String),
    /// A step of the plan failed in the new process.
    // COMPAT: the text holds what clients look for, e.g. `executable file not found in $PATH`.
    #[error("{message}")]
    Init {
        /// The step and its object, and why it failed.
        message: String,
        /// What it means for the exit code.
        failure: StartFailure,
    },
    /// A kernel call of the parent failed.
    #[error("cannot {action}")]
    Os {
        /// What was tried, on what.
        action: String,
        /// Why it failed.
        source: io::Error,
    },
}

impl Classify for Error {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::InvalidSpec(_) => ErrorKind::InvalidArgument,
            Self::Init { failure: StartFailure::NoSuchUser, .. } => ErrorKind::NotFound,
            Self::Init { .. } => ErrorKind::InvalidArgument,
            Self::Unsupported(_) => ErrorKind::Unsupported,
            Self::Os { .. } => ErrorKind::Internal,
        }
    }
}

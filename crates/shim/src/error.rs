//! Failures of launching and steering tasks.

use rorqual_core::{BoxError, Classify, ErrorKind};

/// A failure of a task or of the way to it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The program could not be started; `exit_code` is 126, 127 or 128.
    #[error("{message}")]
    Start {
        /// Words for the user; clients look for parts of it.
        message: String,
        /// What Docker reports as the container's exit code.
        exit_code: i32,
        /// Invalid argument where the request is at fault.
        kind: ErrorKind,
    },
    /// The task has ended already.
    #[error("the task has ended")]
    Ended,
    /// No such exec.
    #[error("no such exec in this task")]
    NoSuchExec,
    /// The launcher or the shim does not answer.
    #[error("cannot reach the {who}")]
    Unreachable {
        /// `launcher` or `shim`
        who: &'static str,
        /// Why.
        source: BoxError,
    },
    /// The shim refused or failed.
    #[error("{message}")]
    Refused {
        /// Words for the user.
        message: String,
        /// What the caller can do.
        kind: ErrorKind,
    },
}

impl Classify for Error {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Start { kind, .. } | Self::Refused { kind, .. } => *kind,
            Self::Ended => ErrorKind::Conflict,
            Self::NoSuchExec => ErrorKind::NotFound,
            Self::Unreachable { .. } => ErrorKind::Unavailable,
        }
    }
}

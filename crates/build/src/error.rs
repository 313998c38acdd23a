//! Why a build failed, and where in the Dockerfile.

use rorqual_core::{BoxError, Classify, ErrorKind};

/// A range of a source file, for messages that show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    /// Name of the file, as the user gave it.
    pub file: String,
    /// First line, counted from 1.
    pub first_line: u32,
    /// First column in characters, counted from 1; zero when only lines are known.
    pub first_column: u32,
    /// Last line, inclusive.
    pub last_line: u32,
}

/// A failure of a build.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The Dockerfile, an option or a build definition is wrong.
    #[error("{message}")]
    Invalid {
        /// What is wrong, in Docker's words where clients know them.
        message: String,
        /// Where.
        location: Option<Location>,
    },
    /// Something that the build needs does not exist: a file of the context, an image, a secret.
    #[error("{message}")]
    NotFound {
        /// What, and where it was looked for.
        message: String,
        /// The instruction that needs it.
        location: Option<Location>,
    },
    /// A step's program ended with another code than zero.
    #[error("process {command:?} did not complete successfully: exit code: {code}")]
    Step {
        /// What ran, as one line.
        command: String,
        /// Its exit code.
        code: i32,
        /// The instruction.
        location: Option<Location>,
    },
    /// Something is not allowed: an entitlement that was not granted.
    #[error("{0}")]
    Forbidden(String),
    /// It is a feature that this builder does not have.
    #[error("{0}")]
    Unsupported(String),
    /// The client went away or asked to stop.
    #[error("the build was canceled")]
    Cancelled,
    /// A part below failed.
    #[error("cannot {action}")]
    Other {
        /// What was tried, on what.
        action: String,
        /// How it is to be answered.
        kind: ErrorKind,
        /// Why.
        source: BoxError,
    },
}

impl Error {
    /// Returns where in the Dockerfile it happened.
    pub const fn location(&self) -> Option<&Location> {
        match self {
            Self::Invalid { location, .. }
            | Self::NotFound { location, .. }
            | Self::Step { location, .. } => location.as_ref(),
            _ => None,
        }
    }
}

impl Classify for Error {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Invalid { .. } => ErrorKind::InvalidArgument,
            Self::NotFound { .. } => ErrorKind::NotFound,
            Self::Step { .. } => ErrorKind::Internal,
            Self::Forbidden(_) => ErrorKind::Forbidden,
            Self::Unsupported(_) => ErrorKind::Unsupported,
            Self::Cancelled => ErrorKind::Cancelled,
            Self::Other { kind, .. } => *kind,
        }
    }
}

/// Wraps a failure of a part below.
pub(crate) fn other<E: Into<BoxError>>(action: impl Into<String>) -> impl FnOnce(E) -> Error {
    let action = action.into();
    move |source| Error::Other { action, kind: ErrorKind::Internal, source: source.into() }
}

impl Error {
    /// Makes a second copy of a failure that several builds have at once.
    pub(crate) fn again(shared: &std::sync::Arc<Self>) -> Self {
        match &**shared {
            Self::Invalid { message, location } => {
                Self::Invalid { message: message.clone(), location: location.clone() }
            }
            Self::NotFound { message, location } => {
                Self::NotFound { message: message.clone(), location: location.clone() }
            }
            Self::Step { command, code, location } => {
                Self::Step { command: command.clone(), code: *code, location: location.clone() }
            }
            Self::Forbidden(message) => Self::Forbidden(message.clone()),
            Self::Unsupported(message) => Self::Unsupported(message.clone()),
            Self::Cancelled => Self::Cancelled,
            Self::Other { action, kind, source } => Self::Other {
                action: action.clone(),
                kind: *kind,
                source: rorqual_core::full_message(&**source).into(),
            },
        }
    }

    /// Says where in the Dockerfile it happened, unless that is known.
    pub(crate) fn at(mut self, place: Option<&Location>) -> Self {
        if let Self::Invalid { location, .. }
        | Self::NotFound { location, .. }
        | Self::Step { location, .. } = &mut self
        {
            *location = location.take().or_else(|| place.cloned());
        }
        self
    }
}

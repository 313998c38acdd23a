//! The one place where a kind of error becomes a status code of the Engine API, and a chain of causes becomes text.

use http::StatusCode;
use rorqual_core::{Classify, ErrorKind, full_message};

/// An answer that is an error.
#[derive(Debug)]
pub(crate) struct ApiError {
    pub(crate) status: StatusCode,
    pub(crate) message: String,
}

/// A request that cannot be understood or served.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadRequest {
    /// Malformed or impossible.
    #[error("{0}")]
    Invalid(String),
    /// This build cannot do it.
    #[error("{0}")]
    Unsupported(String),
    /// What is asked for is not there.
    #[error("{0}")]
    NotFound(String),
    /// A part is missing at present.
    #[error("{0}")]
    Unavailable(String),
    /// Not allowed.
    #[error("{0}")]
    Forbidden(String),
}

impl Classify for BadRequest {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Invalid(_) => ErrorKind::InvalidArgument,
            Self::Unsupported(_) => ErrorKind::Unsupported,
            Self::NotFound(_) => ErrorKind::NotFound,
            Self::Unavailable(_) => ErrorKind::Unavailable,
            Self::Forbidden(_) => ErrorKind::Forbidden,
        }
    }
}

/// Makes a [`BadRequest::Invalid`].
pub(crate) fn invalid(message: impl Into<String>) -> BadRequest {
    BadRequest::Invalid(message.into())
}

/// Makes a [`BadRequest::Unsupported`].
pub(crate) fn unsupported(message: impl Into<String>) -> BadRequest {
    BadRequest::Unsupported(message.into())
}

const fn status_of(kind: ErrorKind) -> StatusCode {
    match kind {
        ErrorKind::NotFound => StatusCode::NOT_FOUND,
        ErrorKind::InvalidArgument => StatusCode::BAD_REQUEST,
        ErrorKind::Conflict => StatusCode::CONFLICT,
        ErrorKind::Unauthenticated => StatusCode::UNAUTHORIZED,
        ErrorKind::Forbidden => StatusCode::FORBIDDEN,
        ErrorKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        ErrorKind::Unsupported => StatusCode::NOT_IMPLEMENTED,
        // COMPAT: dockerd answers 500 when it gives up itself; clients know no 499.
        ErrorKind::Cancelled | ErrorKind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

impl<E: Classify + 'static> From<E> for ApiError {
    fn from(error: E) -> Self {
        Self { status: status_of(error.kind()), message: full_message(&error) }
    }
}

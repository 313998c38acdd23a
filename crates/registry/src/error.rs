//! Failures of the registry and the one place where they become status codes and the specification's error codes.

use std::io;
use std::time::Duration;

use http::StatusCode;
use rorqual_core::{BoxError, Classify, Digest, ErrorKind};

/// A failure of a request or of the storage.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The client did something wrong, or asks for what is not there; the code says which.
    #[error("{message}")]
    Refused {
        /// One of the specification's codes.
        code: Code,
        /// For people.
        message: String,
    },
    /// A request that came too early.
    #[error("{message}")]
    TooMany {
        /// For people.
        message: String,
        /// When to come again.
        retry_after: Duration,
    },
    /// Credentials are missing, wrong or not enough; how to get better ones.
    #[error("{message}")]
    Unauthorized {
        /// For people.
        message: String,
        /// `WWW-Authenticate`
        challenge: String,
    },
    /// The bytes are not what their digest says.
    #[error("provided digest {expected} does not match uploaded content {found}")]
    WrongDigest {
        /// Promised.
        expected: Digest,
        /// Computed.
        found: Digest,
    },
    /// The body of a request broke off.
    #[error("the request body ended early")]
    Body(#[source] BoxError),
    /// The storage has no room left.
    #[error("the storage is full")]
    Full(#[source] io::Error),
    /// The storage failed.
    #[error("cannot {action}")]
    Storage {
        /// What was tried, on what.
        action: String,
        /// Why.
        source: BoxError,
    },
    /// The upstream of the cache does not answer as it should.
    #[error("cannot reach the upstream: {0}")]
    Upstream(String),
    /// The configuration cannot be used.
    #[error("{0}")]
    Config(String),
}

/// Error codes of the distribution specification and those that Docker's registry adds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// Blob not in the repository.
    BlobUnknown,
    /// The upload cannot go on like this.
    BlobUploadInvalid,
    /// The chunk does not begin where the upload stands.
    BlobUploadRange,
    /// No such upload.
    BlobUploadUnknown,
    /// Malformed digest or not the content's.
    DigestInvalid,
    /// The manifest refers to what is not there.
    ManifestBlobUnknown,
    /// The manifest is refused.
    ManifestInvalid,
    /// The manifest is larger than the bound.
    ManifestTooLarge,
    /// No such manifest or tag.
    ManifestUnknown,
    /// Not a repository name.
    NameInvalid,
    /// No such repository.
    NameUnknown,
    /// Length and content disagree, or the content is too long.
    SizeInvalid,
    /// Not a tag.
    TagInvalid,
    /// More tags at once than the bound.
    TooManyTags,
    /// Not a page size.
    PaginationNumberInvalid,
    /// Not permitted.
    Denied,
    /// Switched off.
    Unsupported,
    /// Not an endpoint.
    NotFound,
    /// The requested range is not there.
    RangeInvalid,
}

impl Code {
    /// Returns the name on the wire and the status that goes with it.
    const fn wire(self) -> (&'static str, StatusCode) {
        match self {
            Self::BlobUnknown => ("BLOB_UNKNOWN", StatusCode::NOT_FOUND),
            Self::BlobUploadInvalid => ("BLOB_UPLOAD_INVALID", StatusCode::BAD_REQUEST),
            Self::BlobUploadRange => ("BLOB_UPLOAD_INVALID", StatusCode::RANGE_NOT_SATISFIABLE),
            Self::BlobUploadUnknown => ("BLOB_UPLOAD_UNKNOWN", StatusCode::NOT_FOUND),
            Self::DigestInvalid => ("DIGEST_INVALID", StatusCode::BAD_REQUEST),
            // COMPAT: Docker's registry and its clients take this as 404 too; the specification's table says 400.
            Self::ManifestBlobUnknown => ("MANIFEST_BLOB_UNKNOWN", StatusCode::BAD_REQUEST),
            Self::ManifestInvalid => ("MANIFEST_INVALID", StatusCode::BAD_REQUEST),
            Self::ManifestTooLarge => ("MANIFEST_INVALID", StatusCode::PAYLOAD_TOO_LARGE),
            Self::ManifestUnknown => ("MANIFEST_UNKNOWN", StatusCode::NOT_FOUND),
            Self::NameInvalid => ("NAME_INVALID", StatusCode::BAD_REQUEST),
            Self::NameUnknown => ("NAME_UNKNOWN", StatusCode::NOT_FOUND),
            Self::SizeInvalid => ("SIZE_INVALID", StatusCode::BAD_REQUEST),
            Self::TagInvalid => ("TAG_INVALID", StatusCode::BAD_REQUEST),
            Self::TooManyTags => ("TAG_INVALID", StatusCode::URI_TOO_LONG),
            Self::PaginationNumberInvalid => ("PAGINATION_NUMBER_INVALID", StatusCode::BAD_REQUEST),
            Self::Denied => ("DENIED", StatusCode::FORBIDDEN),
            Self::Unsupported => ("UNSUPPORTED", StatusCode::METHOD_NOT_ALLOWED),
            Self::NotFound => ("UNSUPPORTED", StatusCode::NOT_FOUND),
            Self::RangeInvalid => ("UNKNOWN", StatusCode::RANGE_NOT_SATISFIABLE),
        }
    }
}

impl Error {
    /// Makes a refusal.
    pub(crate) fn refused(code: Code, message: impl Into<String>) -> Self {
        Self::Refused { code, message: message.into() }
    }

    /// Returns status and code on the wire.
    pub(crate) const fn wire(&self) -> (&'static str, StatusCode) {
        match self {
            Self::Refused { code, .. } => code.wire(),
            Self::TooMany { .. } => ("TOOMANYREQUESTS", StatusCode::TOO_MANY_REQUESTS),
            Self::Unauthorized { .. } => ("UNAUTHORIZED", StatusCode::UNAUTHORIZED),
            Self::WrongDigest { .. } => ("DIGEST_INVALID", StatusCode::BAD_REQUEST),
            Self::Body(_) => ("SIZE_INVALID", StatusCode::BAD_REQUEST),
            Self::Full(_) => ("UNAVAILABLE", StatusCode::INSUFFICIENT_STORAGE),
            Self::Upstream(_) => ("UNAVAILABLE", StatusCode::BAD_GATEWAY),
            Self::Storage { .. } | Self::Config(_) => {
                ("UNKNOWN", StatusCode::INTERNAL_SERVER_ERROR)
            }
        }
    }

    /// Makes a failure of the storage of a system call's; a full disk is told apart.
    pub(crate) fn io(action: impl Into<String>, source: io::Error) -> Self {
        if is_full(&source) {
            return Self::Full(source);
        }
        Self::Storage { action: action.into(), source: source.into() }
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

impl Classify for Error {
    fn kind(&self) -> ErrorKind {
        match self.wire().1 {
            StatusCode::NOT_FOUND => ErrorKind::NotFound,
            StatusCode::UNAUTHORIZED => ErrorKind::Unauthenticated,
            StatusCode::FORBIDDEN => ErrorKind::Forbidden,
            StatusCode::METHOD_NOT_ALLOWED => ErrorKind::Unsupported,
            StatusCode::RANGE_NOT_SATISFIABLE => ErrorKind::Conflict,
            StatusCode::BAD_GATEWAY | StatusCode::TOO_MANY_REQUESTS => ErrorKind::Unavailable,
            status if status.is_server_error() => ErrorKind::Internal,
            _ => ErrorKind::InvalidArgument,
        }
    }
}

/// Result of most things here.
pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

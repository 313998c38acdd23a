//! What kind of failure an error is. How a kind reads on a wire belongs to each protocol's edge.

use std::error::Error;

/// A boxed error that can cross threads.
pub type BoxError = Box<dyn Error + Send + Sync + 'static>;

/// The kind of a failure: what a caller can do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The named thing does not exist.
    NotFound,
    /// The request is malformed or asks for something impossible.
    InvalidArgument,
    /// The request contradicts the present state.
    Conflict,
    /// Who asks is unknown.
    Unauthenticated,
    /// Who asks may not.
    Forbidden,
    /// A part that is needed does not answer at present.
    Unavailable,
    /// This build, kernel or file system cannot do it.
    Unsupported,
    /// The caller went away or called the operation off.
    Cancelled,
    /// A fault of ours or of the host.
    Internal,
}

/// Tells the [`ErrorKind`] of an error; every public error type implements it.
pub trait Classify: Error {
    /// Returns the kind of this failure.
    fn kind(&self) -> ErrorKind;
}

/// Joins an error and its causes: `cannot do this: that failed: no such file`.
pub fn full_message(error: &dyn Error) -> String {
    std::iter::successors(error.source(), |cause| (*cause).source())
        .fold(error.to_string(), |message, cause| format!("{message}: {cause}"))
}

//! Bake files: many builds described in one file, in HCL, JSON, or the `build` sections of a Compose file.
//!
//! Pure: texts and an environment go in, a [`Plan`] comes out. Files are read and builds are started by who asks.

mod compose;
mod document;
mod entries;
mod eval;
mod functions;
mod plan;
mod target;
mod yaml;

pub use plan::{
    Group, ListedTarget, ListedVariable, Plan, Request, list_targets, list_variables, plan,
};
pub use target::Target;

/// A file, as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Name; its ending tells what it is.
    pub name: String,
    /// Content.
    pub text: String,
}

/// Why there is no plan.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A file cannot be read as what it claims to be.
    #[error("{file}: {message}")]
    Syntax {
        /// Which.
        file: String,
        /// What is wrong, with line and column where they are known.
        message: String,
    },
    /// Something in a definition is wrong.
    #[error("{0}")]
    Invalid(String),
    /// A target or group that was asked for does not exist.
    #[error("{0}")]
    NotFound(String),
}

impl Error {
    fn invalid(message: impl Into<String>) -> Self {
        Self::Invalid(message.into())
    }
}

#[cfg(test)]
mod tests;

//! What all services of the engine share.

/// Shared state.
pub(crate) struct World {}

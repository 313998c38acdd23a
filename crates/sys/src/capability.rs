//! Capabilities, see `capabilities(7)`.

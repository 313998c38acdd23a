//! The mount API by descriptors.

//! The overlay snapshotter through its public interface. Needs root, and overlayfs below the temporary directory.
#![expect(clippy::unwrap_used, reason = "these are tests")]

mod containers;
mod layers;
mod world;

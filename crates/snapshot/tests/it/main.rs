//! The overlay snapshotter through its public interface. Needs root, and overlayfs below the temporary directory.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "these are tests, one of which reports what it measured"
)]

mod bench;
mod containers;
mod edits;
mod layers;
mod mutations;
mod world;

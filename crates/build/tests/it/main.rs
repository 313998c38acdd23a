//! The solver on real layers, with programs that are functions. Needs root, and overlayfs below the target directory.
#![expect(clippy::unwrap_used, clippy::panic, reason = "these are tests")]

mod caches;
mod solver;
mod world;

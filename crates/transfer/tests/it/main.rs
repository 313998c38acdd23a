//! Load, save, import and commit against real stores. Needs root, and overlayfs below the target directory.
#![expect(clippy::unwrap_used, reason = "these are tests")]

mod archives;
mod interop;
mod layouts;
mod world;

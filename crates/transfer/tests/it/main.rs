//! Load, save, import, commit, pull and push against real stores. Needs root, and overlayfs below the target directory.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "these are tests")]

mod archives;
mod hostile;
mod interop;
mod layouts;
mod pulls;
mod pushes;
mod world;

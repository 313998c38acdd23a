//! The real shims: needs root, and a static `busybox` on the host.
#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "tests fail by panicking, and figures are printed"
)]

mod host;
mod life;
mod measure;

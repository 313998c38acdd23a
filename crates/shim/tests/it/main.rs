//! The real shims: needs root, and a static `busybox` on the host.

mod host;
mod life;
mod measure;

//! Paths resolved inside a root by `openat2(2)`.

//! The registry over HTTP, in this process: what clients do, what strangers try, what breaks.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "these are tests")]

mod cache;
mod faults;
mod protocol;
mod security;
mod storm;
mod watching;
mod world;

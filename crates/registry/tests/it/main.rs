//! The registry over HTTP, in this process: what clients do, what strangers try, what breaks.

mod cache;
mod faults;
mod protocol;
mod security;
mod storm;
mod world;

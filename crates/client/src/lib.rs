//! Client of the Engine API: where the daemon is, how to reach it, what to say to it.
//!
//! Answers are handed over as JSON values: templates and `inspect` need what the daemon really said.
//! Nothing here touches a terminal or decides what a command means.

mod client;
pub mod config;
pub mod context;
pub mod credentials;
mod error;
mod host;
mod tls;
mod transport;

pub use client::{Body, Client, Method, Options, Request, Response};
pub use error::Error;
pub use host::{Host, InvalidHost};
pub use tls::TlsFiles;
pub use transport::{Connection, dial};

/// Result with this crate's error.
pub type Result<T> = std::result::Result<T, Error>;

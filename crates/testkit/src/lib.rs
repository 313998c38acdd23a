//! End-to-end harness: a daemon of its own per scenario, clients to drive it, and a leak check at the end.
//!
//! Knows the product only by its command line and sockets, as users do.

mod host;
pub mod image;
mod leak;
mod output;
mod terminal;
mod wait;

pub use host::{Host, HostOptions};
pub use output::Finished;
pub use terminal::Terminal;
pub use wait::{DEADLINE, eventually};

/// What scenarios return: any failure with its text.
pub type TestResult<T = ()> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

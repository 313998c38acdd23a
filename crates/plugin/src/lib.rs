//! Plugins over Docker's legacy protocol: programs of the host that answer JSON requests on a socket.
//!
//! A plugin is *found* by its name when it is first needed ([`Places`]: a socket file, or a file that holds an address),
//! *activated* by a handshake that tells which subsystems it implements, and then *called*, one connection per call. What
//! a subsystem's methods are is no matter of this crate: volume and network drivers bring their own documents.
//!
//! ```no_run
//! # async fn example() -> Result<(), rorqual_plugin::Error> {
//! use std::time::Duration;
//! use rorqual_plugin::{Places, Plugins};
//!
//! #[derive(serde::Deserialize)]
//! #[serde(rename_all = "PascalCase")]
//! struct Answer { mountpoint: String }
//!
//! let plugins = Plugins::new(Places::docker());
//! let plugin = plugins.get("flocker", "VolumeDriver").await?;
//! let question = serde_json::json!({ "Name": "data" });
//! let answer: Answer = plugin.call("VolumeDriver.Path", &question, Duration::from_secs(60)).await?;
//! # Ok(()) }
//! ```
//!
//! Managed plugins (those that come as images) are not here.

mod discovery;
mod error;
#[cfg(any(test, feature = "fake"))]
pub mod fake;
mod plugin;
mod plugins;

pub use discovery::Places;
pub use error::Error;
pub use plugin::Plugin;
pub use plugins::{Patience, Plugins};

/// Result with this crate's error.
pub type Result<T> = std::result::Result<T, Error>;

//! Wire documents of the Engine API, its versions, and the framing of its streams.
//!
//! Documents serialise byte for byte as Docker's daemon prints them (order of keys, `null` against left out) and are
//! read as Go reads JSON, see [`from_slice`]. There is no behaviour here and no type of the engine.

pub mod compat;
pub mod container;
pub mod event;
pub mod exec;
pub mod frame;
pub mod host_config;
pub mod image;
mod lenient;
pub mod message;
pub mod network;
pub mod stats;
pub mod system;
mod value;
mod version;
pub mod volume;

pub use lenient::{from_slice, from_value};
pub use value::{Empty, StrSlice, ZERO_TIME, is_empty};
pub use version::{ApiVersion, InvalidVersion, MAX, MIN};

#[cfg(test)]
mod tests;

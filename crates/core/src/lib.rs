//! The vocabulary every other crate speaks: ids, digests, references, units, error kinds.
//!
//! Nothing here performs I/O, reads a clock or draws a random number: callers pass those in.

pub mod capability;
pub mod detach;
mod digest;
mod error;
mod filter;
mod id;
pub mod idmap;
pub mod mount;
mod name;
mod platform;
mod reference;
pub mod seccomp;
pub mod selinux;
mod signal;
mod time;
mod ulimit;
pub mod units;

pub use digest::{Algorithm, ChainId, DiffId, Digest, ImageId, InvalidDigest};
pub use error::{BoxError, Classify, ErrorKind, full_message};
pub use filter::{Filters, InvalidFilter};
pub use id::{ContainerId, ExecId, InvalidId, NetworkId};
pub use name::{ContainerName, InvalidName, VolumeName, generated_name};
pub use platform::{InvalidPlatform, Platform};
pub use reference::{InvalidReference, Reference, Repository};
pub use signal::{InvalidSignal, Signal};
pub use time::{InvalidTime, Timestamp};
pub use ulimit::{InvalidUlimit, Ulimit};

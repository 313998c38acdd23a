//! Build definitions of clients as build graphs, and back.
//!
//! A definition is a set of operations that name each other by digest; the last one only points at the result. Its size
//! is bounded by that of a message. What the graph has no word for is refused by name, never left out.

mod decode;
mod encode;
mod exec;
mod file;
mod source;

pub(crate) use decode::decode;
pub(crate) use encode::encode;

use rorqual_build::Error;
use rorqual_core::Platform;

use crate::wire::pb;

fn invalid(message: impl Into<String>) -> Error {
    Error::Invalid { message: message.into(), location: None }
}

/// Reads a platform; without one the builder's own is meant.
pub(crate) fn platform(wire: Option<&pb::Platform>) -> Platform {
    match wire {
        Some(wire) if !wire.architecture.is_empty() => Platform {
            os: if wire.os.is_empty() { "linux".to_owned() } else { wire.os.clone() },
            architecture: wire.architecture.clone(),
            variant: wire.variant.clone(),
        },
        _ => Platform::host(),
    }
}

/// A platform on the wire.
pub(crate) fn wire_platform(platform: &Platform) -> pb::Platform {
    pb::Platform {
        architecture: platform.architecture.clone(),
        os: platform.os.clone(),
        variant: platform.variant.clone(),
        os_version: String::new(),
        os_features: Vec::new(),
    }
}

#[cfg(test)]
mod tests;

//! Content-addressed blobs, image records, and which blobs they reach.
//!
//! Knows no registries and unpacks no layers.

mod error;
#[cfg(any(test, feature = "fake"))]
pub mod fake;
mod image;
mod name;
mod reach;
mod store;

pub use error::Error;
pub use image::{
    Descriptor, HealthConfig, History, ImageConfig, ImageDocument, ImageRecord, Images, Index,
    Manifest, RootFs, media_type,
};
pub use reach::MAX_DOCUMENT;
pub use store::{Blobs, Ingest, Lease};

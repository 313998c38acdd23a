//! Content-addressed blobs and image records, with garbage collection by reachability.
//!
//! Knows no registries and unpacks no layers.

mod blobs;
mod error;
#[cfg(any(test, feature = "fake"))]
pub mod fake;
mod image;
mod images;
mod name;
mod reach;
mod store;
#[cfg(any(test, feature = "fake"))]
pub mod suite;

pub use blobs::{LocalBlobs, verify};
pub use error::Error;
pub use image::{
    Descriptor, HealthConfig, History, ImageConfig, ImageDocument, ImageRecord, Images, Index,
    Manifest, RootFs, media_type,
};
pub use images::ImageStore;
pub use reach::MAX_DOCUMENT;
pub use store::{Blobs, Ingest, Lease, ReadAt};

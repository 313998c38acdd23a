//! Content-addressed blobs and image records, with garbage collection by reachability.
//!
//! Knows no registries and unpacks no layers.

mod error;
mod image;
mod store;

pub use error::Error;
pub use image::{
    Descriptor, HealthConfig, History, ImageConfig, ImageDocument, ImageRecord, Images, Index,
    Manifest, RootFs, media_type,
};
pub use store::{Blobs, Ingest, Lease};

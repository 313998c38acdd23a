//! Images: listing, naming, removing, moving.

use std::sync::Arc;

use rorqual_content::ImageRecord;
use rorqual_core::{Filters, ImageId, Platform, Reference};
use rorqual_transfer::{Loaded, ProgressSink};

use crate::error::{Error, Result};
use crate::request::{
    HistoryLine, ImageImport, ImageListRequest, ImageRemoval, ImageRemoveRequest, ImageSummary,
    ImagesPruned,
};
use crate::world::World;

/// The images of one daemon.
#[derive(Clone)]
pub struct ImagesService {
    pub(crate) world: Arc<World>,
}

impl ImagesService {
    /// Lists images, newest first.
    pub async fn list(&self, request: ImageListRequest) -> Result<Vec<ImageSummary>> {
        Err(Error::Unavailable("to be written".to_owned()))
    }

    /// Shows an image.
    pub async fn inspect(&self, image: &str) -> Result<ImageRecord> {
        Err(Error::Unavailable("to be written".to_owned()))
    }

    /// Shows how an image was made, newest step first.
    pub async fn history(&self, image: &str) -> Result<Vec<HistoryLine>> {
        Err(Error::Unavailable("to be written".to_owned()))
    }

    /// Gives an image another name.
    pub async fn tag(&self, image: &str, name: Reference) -> Result<()> {
        Err(Error::Unavailable("to be written".to_owned()))
    }

    /// Takes a name away, and the image with its last one.
    pub async fn remove(
        &self,
        image: &str,
        request: ImageRemoveRequest,
    ) -> Result<Vec<ImageRemoval>> {
        Err(Error::Unavailable("to be written".to_owned()))
    }

    /// Removes images that nothing uses (filters `dangling`, `until`, `label`, `label!`).
    pub async fn prune(&self, filters: Filters) -> Result<ImagesPruned> {
        Err(Error::Unavailable("to be written".to_owned()))
    }

    /// Loads images from an archive.
    pub async fn load(
        &self,
        archive: Box<dyn std::io::Read + Send>,
        platform: Option<Platform>,
        progress: ProgressSink,
    ) -> Result<Vec<Loaded>> {
        Err(Error::Unavailable("to be written".to_owned()))
    }

    /// Writes images (by name or id) to `sink`.
    pub async fn save(
        &self,
        names: Vec<String>,
        platform: Option<Platform>,
        sink: Box<dyn std::io::Write + Send>,
    ) -> Result<()> {
        Err(Error::Unavailable("to be written".to_owned()))
    }

    /// Makes an image of a root file system.
    pub async fn import(&self, request: ImageImport) -> Result<ImageId> {
        Err(Error::Unavailable("to be written".to_owned()))
    }
}

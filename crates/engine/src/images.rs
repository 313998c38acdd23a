//! Images: listing, naming, moving. How they are removed is in `images/remove.rs`, registries are in `images/registry.rs`.

mod list;
mod registry;
mod remove;

use std::sync::Arc;

use rorqual_content::{ImageConfig, ImageRecord};
use rorqual_core::{Filters, ImageId, Platform, Reference, full_message};
use rorqual_transfer::{ImportRequest, Loaded, ProgressSink};

use crate::changes;
use crate::error::{Error, Result};
use crate::events::EventKind;
use crate::request::{
    HistoryLine, ImageImport, ImageListRequest, ImageRemoval, ImageRemoveRequest, ImageSummary,
    ImagesPruned, ManifestUse,
};
use crate::world::World;

pub(crate) use remove::collect;

/// The images of one daemon.
#[derive(Clone)]
pub struct ImagesService {
    pub(crate) world: Arc<World>,
}

/// Content that nobody may refer to, collected in the background once this is dropped.
struct Leavings {
    world: Option<Arc<World>>,
}

impl Drop for Leavings {
    fn drop(&mut self) {
        let Some(world) = self.world.take() else { return };
        let background = Arc::clone(&world);
        world.tracker.spawn(async move {
            if let Err(error) = collect(&background).await {
                tracing::warn!(error = full_message(&error), "cannot collect content");
            }
        });
    }
}

/// Tells everybody about an image.
fn announce(world: &World, action: &str, id: &ImageId, name: &str) {
    world.event(EventKind::Image, action, &id.to_string(), [("name", name.to_owned())]);
}

impl ImagesService {
    /// Lists images, newest first.
    pub async fn list(&self, request: ImageListRequest) -> Result<Vec<ImageSummary>> {
        list::list(&self.world, &request).await
    }

    /// Shows an image.
    pub async fn inspect(&self, image: &str) -> Result<ImageRecord> {
        Ok(self.world.parts.images.resolve(image).await?)
    }

    /// Shows the image that a name has for a platform.
    pub async fn variant(&self, image: &str, platform: &Platform) -> Result<ImageRecord> {
        let record = self.inspect(image).await?;
        let variant = self.world.parts.transfer.variant(&record, platform).await;
        variant.map_err(|error| match error {
            // COMPAT: dockerd's text.
            rorqual_transfer::Error::NoVariant(wanted) => Error::NotFound(format!(
                "image with reference {image} was found but its platform ({}) does not match the specified platform ({})",
                crate::containers::platform(&record).familiar(),
                wanted.familiar()
            )),
            error => error.into(),
        })
    }

    /// Lists the manifests that an image's name leads to.
    pub async fn manifests(&self, image: &ImageRecord) -> Result<Vec<ManifestUse>> {
        list::manifests(&self.world, image).await
    }

    /// Shows how an image was made, newest step first.
    pub async fn history(
        &self,
        image: &str,
        platform: Option<&Platform>,
    ) -> Result<Vec<HistoryLine>> {
        let record = match platform {
            Some(platform) => self.variant(image, platform).await?,
            None => self.inspect(image).await?,
        };
        list::history(&self.world, &record).await
    }

    /// Gives an image another name.
    pub async fn tag(&self, image: &str, name: Reference) -> Result<()> {
        if name.digest().is_some() {
            // COMPAT: dockerd's text.
            return Err(Error::Invalid(
                "refusing to create a tag with a digest reference".to_owned(),
            ));
        }
        let record = self.inspect(image).await?;
        let world = Arc::clone(&self.world);
        let operation = async move {
            let name = name.or_latest();
            world.parts.images.tag(&record.id, &name, world.options.clock.now()).await?;
            announce(&world, "tag", &record.id, &name.familiar());
            Ok(())
        };
        self.world.to_its_end(operation).await
    }

    /// Takes a name away, and the image with its last one.
    pub async fn remove(
        &self,
        image: &str,
        request: ImageRemoveRequest,
    ) -> Result<Vec<ImageRemoval>> {
        let (world, image) = (Arc::clone(&self.world), image.to_owned());
        self.world.to_its_end(async move { remove::remove(&world, &image, request).await }).await
    }

    /// Removes what an image has for some platforms, and the image when nothing is left of it.
    pub async fn remove_platforms(
        &self,
        image: &str,
        platforms: Vec<Platform>,
        request: ImageRemoveRequest,
    ) -> Result<Vec<ImageRemoval>> {
        let (world, image) = (Arc::clone(&self.world), image.to_owned());
        let work = async move { remove::platforms(&world, &image, &platforms, request).await };
        self.world.to_its_end(work).await
    }

    /// Removes images that nothing uses (filters `dangling`, `until`, `label`, `label!`).
    pub async fn prune(&self, filters: Filters) -> Result<ImagesPruned> {
        let world = Arc::clone(&self.world);
        self.world.to_its_end(async move { remove::prune(&world, filters).await }).await
    }

    /// Removes the content that nothing refers to; returns the bytes freed.
    pub async fn collect(&self) -> Result<u64> {
        let world = Arc::clone(&self.world);
        self.world.to_its_end(async move { collect(&world).await }).await
    }

    /// Loads images from an archive.
    ///
    /// # Cancellation
    ///
    /// Dropping the future ends the load; images that are not complete are not there.
    pub async fn load(
        &self,
        archive: Box<dyn std::io::Read + Send>,
        platform: Option<Platform>,
        progress: ProgressSink,
    ) -> Result<Vec<Loaded>> {
        // What a failure leaves, and what is not for the wanted platform, nobody refers to.
        let mut rest = Leavings { world: Some(Arc::clone(&self.world)) };
        let whole = platform.is_none();
        let content = self.world.content.read().await;
        let loaded = self.world.parts.transfer.load(archive, platform, progress).await;
        drop(content);
        let loaded = loaded?;
        if whole {
            rest.world = None;
        }
        for one in &loaded {
            let id = one.id.to_string();
            let name = one.names.first().map_or(id, Reference::familiar);
            announce(&self.world, "load", &one.id, &name);
        }
        Ok(loaded)
    }

    /// Writes images (by name or id) to `sink`.
    pub async fn save(
        &self,
        names: Vec<String>,
        platform: Option<Platform>,
        sink: Box<dyn std::io::Write + Send>,
    ) -> Result<()> {
        let mut images: Vec<(ImageId, Vec<Reference>)> = Vec::new();
        for text in names {
            let record = self.inspect(&text).await?;
            // A name asks for itself, a bare repository for all its tags, an id for none.
            let asked = text.parse::<Reference>().ok().filter(|_| !is_id(&record, &text));
            let tags: Vec<Reference> = match asked {
                Some(name) if name.tag().is_none() && name.digest().is_none() => record
                    .tags
                    .iter()
                    .filter(|tag| tag.repository() == name.repository())
                    .cloned()
                    .collect(),
                Some(name) => vec![name],
                None => Vec::new(),
            };
            announce(&self.world, "save", &record.id, &text);
            match images.iter_mut().find(|(id, _)| *id == record.id) {
                Some((_, known)) => known.extend(tags),
                None => images.push((record.id, tags)),
            }
        }
        Ok(self.world.parts.transfer.save(images, platform, sink).await?)
    }

    /// Makes an image of a root file system.
    pub async fn import(&self, request: ImageImport) -> Result<ImageId> {
        let mut config = ImageConfig::default();
        changes::apply(&mut config, &request.changes)?;
        let _content = self.world.content.read().await;
        let name = request.name.map(Reference::or_latest);
        let import = ImportRequest {
            archive: request.archive,
            name: name.clone(),
            message: request.message,
            platform: request.platform.unwrap_or_else(Platform::host),
            config,
        };
        let mut rest = Leavings { world: Some(Arc::clone(&self.world)) };
        let id = self.world.parts.transfer.import(import).await?;
        rest.world = None;
        let shown = name.map_or_else(|| id.to_string(), |name| name.familiar());
        announce(&self.world, "import", &id, &shown);
        Ok(id)
    }
}

/// Tells whether `text` names the image by its id.
fn is_id(record: &ImageRecord, text: &str) -> bool {
    let hex = text.strip_prefix("sha256:").unwrap_or(text);
    let short = !hex.is_empty() && record.id.0.hex().starts_with(hex);
    short
        && !record
            .tags
            .iter()
            .any(|tag| tag.familiar() == text || tag.repository().familiar() == text)
}

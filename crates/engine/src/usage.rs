//! What everything occupies, and how much there is of it.

use std::collections::BTreeSet;
use std::sync::Arc;

use rorqual_volume::LOCAL;

use crate::error::Result;
use crate::images::ImagesService;
use crate::phase::Phase;
use crate::records::VolumeRecord;
use crate::request::{Census, DiskUsage, ImageListRequest};
use crate::world::World;

/// Numbers about the whole daemon.
#[derive(Clone)]
pub struct SystemUsage {
    pub(crate) world: Arc<World>,
}

impl SystemUsage {
    /// Measures everything (`system df`).
    pub async fn disk(&self) -> Result<DiskUsage> {
        let world = &self.world;
        let images = ImagesService { world: Arc::clone(world) };
        let request = ImageListRequest { shared_size: true, ..ImageListRequest::default() };
        let mut usage = DiskUsage { images: images.list(request).await?, ..DiskUsage::default() };
        let layers: BTreeSet<_> =
            usage.images.iter().flat_map(|image| &image.record.document.rootfs.diff_ids).collect();
        for layer in layers {
            let known = world.parts.snapshots.find_layer(layer).await?;
            usage.layers += known.map_or(0, |known| known.size);
        }
        // Blobs that are kept as they came lie beside the unpacked layers.
        usage.layers += world.parts.blobs.disk_usage().await?;
        for container in world.index.all() {
            let mut view = container.view();
            // One that is being removed has no size any more.
            view.size = world.parts.snapshots.usage(&container.id).await.ok();
            usage.containers.push(view);
        }
        // COMPAT: only what lies on our own disk: no plugins', and none over which something is mounted.
        let ours = |record: &VolumeRecord| record.driver == LOCAL && record.options.is_empty();
        for record in world.volumes.all().into_iter().filter(ours) {
            let mut view = world.volumes.view(&record);
            let users = world.index.users_of_volume(&record.name).len() as u64;
            let size = world.volumes.size(&record.name).await.unwrap_or_default();
            view.usage = Some((size, users));
            usage.volumes.push(view);
        }
        Ok(usage)
    }

    /// Counts containers and images (`info`).
    pub async fn census(&self) -> Result<Census> {
        let mut census = Census::default();
        for container in self.world.index.all() {
            census.containers += 1;
            match container.phase() {
                Phase::Running(_) | Phase::Restarting(_) => census.running += 1,
                Phase::Paused(_) => census.paused += 1,
                _ => census.stopped += 1,
            }
        }
        census.images = self.world.parts.images.list().await?.len() as u64;
        Ok(census)
    }
}

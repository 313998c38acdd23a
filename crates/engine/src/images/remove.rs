//! `rmi` and `image prune`: names go first, the image with its last name, the bytes with the next collection.

use std::sync::Arc;

use rorqual_content::ImageRecord;
use rorqual_core::{DiffId, Filters, Platform, Reference, full_message};
use rorqual_transfer::ManifestKind;

use super::{announce, is_id};
use crate::container::Container;
use crate::containers::until;
use crate::error::{Error, Result};
use crate::events::EventKind;
use crate::request::{ImageRemoval, ImageRemoveRequest, ImagesPruned};
use crate::world::World;

pub(super) async fn remove(
    world: &Arc<World>,
    text: &str,
    request: ImageRemoveRequest,
) -> Result<Vec<ImageRemoval>> {
    let image = world.parts.images.resolve(text).await?;
    let mut done = Vec::new();
    if is_id(&image, text) {
        by_id(world, &image, request, &mut done).await?;
    } else {
        by_name(world, &image, text, request, &mut done).await?;
    }
    if done.iter().any(|step| matches!(step, ImageRemoval::Deleted(_))) {
        collect(world).await?;
    }
    Ok(done)
}

/// Removes the manifests of some platforms; what only they lead to goes with the next collection.
pub(super) async fn platforms(
    world: &Arc<World>,
    text: &str,
    wanted: &[Platform],
    request: ImageRemoveRequest,
) -> Result<Vec<ImageRemoval>> {
    let image = world.parts.images.resolve(text).await?;
    let manifests = super::list::manifests(world, &image).await?;
    let (chosen, rest): (Vec<_>, Vec<_>) = manifests
        .into_iter()
        .filter(|one| one.manifest.available)
        .filter_map(|one| match &one.manifest.kind {
            ManifestKind::Image(platform) => Some((platform.clone(), one)),
            _ => None,
        })
        .partition(|(platform, _)| wanted.iter().any(|asked| asked.runs(platform)));
    let missing = wanted.iter().find(|asked| !chosen.iter().any(|(there, _)| asked.runs(there)));
    if let Some(platform) = missing {
        return Err(rorqual_transfer::Error::NoVariant(platform.clone()).into());
    }
    if rest.is_empty() {
        return remove(world, text, request).await;
    }
    for (platform, one) in &chosen {
        if one.manifest.descriptor.digest == image.manifest.digest {
            let why = format!(
                "{platform} is what the image is here; remove the image, or load it again for another platform"
            );
            return Err(refused(&image, "cannot be forced", &why));
        }
        if let Some(user) = one.containers.first() {
            let why = format!("{platform} is being used by container {}", user.short());
            return Err(refused(&image, "cannot be forced", &why));
        }
    }
    let mut done = Vec::new();
    for (_, one) in &chosen {
        let digest = &one.manifest.descriptor.digest;
        world.parts.blobs.forget(digest).await?;
        done.push(ImageRemoval::Deleted(digest.to_string()));
        announce(world, "delete", &image.id, &digest.to_string());
    }
    collect(world).await?;
    Ok(done)
}

fn refused(image: &ImageRecord, how: &str, why: &str) -> Error {
    // COMPAT: clients look for this text.
    Error::Conflict(format!("conflict: unable to delete {} ({how}) - {why}", image.id.0.short()))
}

fn is_running(container: &Arc<Container>) -> bool {
    container.task().is_some()
}

/// Refuses when containers use the image; stopped ones can be overridden.
fn check_unused(world: &World, image: &ImageRecord, force: bool) -> Result<()> {
    let users = world.index.users_of_image(&image.id);
    if let Some(user) = users.iter().find(|user| is_running(user)) {
        let why = format!("image is being used by running container {}", user.id.short());
        return Err(refused(image, "cannot be forced", &why));
    }
    match users.first() {
        Some(user) if !force => {
            let why = format!("image is being used by stopped container {}", user.id.short());
            Err(refused(image, "must be forced", &why))
        }
        _ => Ok(()),
    }
}

async fn by_id(
    world: &World,
    image: &ImageRecord,
    request: ImageRemoveRequest,
    done: &mut Vec<ImageRemoval>,
) -> Result<()> {
    let mut repositories: Vec<_> = image.tags.iter().map(Reference::repository).collect();
    repositories.dedup();
    if repositories.len() > 1 && !request.force {
        return Err(refused(
            image,
            "must be forced",
            "image is referenced in multiple repositories",
        ));
    }
    check_unused(world, image, request.force)?;
    delete(world, image, done).await
}

async fn by_name(
    world: &World,
    image: &ImageRecord,
    text: &str,
    request: ImageRemoveRequest,
    done: &mut Vec<ImageRemoval>,
) -> Result<()> {
    let name = text.parse::<Reference>()?.or_latest();
    let others = image.tags.iter().chain(&image.digests).any(|other| {
        *other != name && (other.digest().is_none() || other.repository() != name.repository())
    });
    if !others {
        let users = world.index.users_of_image(&image.id);
        if request.force && users.iter().any(is_running) {
            // COMPAT: the name goes, the running container keeps the image.
            return untag(world, image, &name, done).await;
        }
        if let Some(user) = users.first()
            && !request.force
        {
            // COMPAT: clients look for this text.
            return Err(Error::Conflict(format!(
                "conflict: unable to remove repository reference \"{text}\" (must force) - container {} is using its referenced image {}",
                user.id.short(),
                image.id.0.short()
            )));
        }
        return delete(world, image, done).await;
    }
    untag(world, image, &name, done).await
}

async fn untag(
    world: &World,
    image: &ImageRecord,
    name: &Reference,
    done: &mut Vec<ImageRemoval>,
) -> Result<()> {
    if !world.parts.images.untag(&image.id, name).await? {
        return Err(rorqual_content::Error::NoSuchImage(name.familiar()).into());
    }
    done.push(ImageRemoval::Untagged(name.familiar()));
    announce(world, "untag", &image.id, &image.id.to_string());
    Ok(())
}

async fn delete(world: &World, image: &ImageRecord, done: &mut Vec<ImageRemoval>) -> Result<()> {
    world.parts.images.remove(&image.id).await?;
    for name in image.tags.iter().chain(&image.digests) {
        done.push(ImageRemoval::Untagged(name.familiar()));
        announce(world, "untag", &image.id, &image.id.to_string());
    }
    done.push(ImageRemoval::Deleted(image.id.to_string()));
    announce(world, "delete", &image.id, &image.id.to_string());
    Ok(())
}

/// Removes blobs and layers that no image and no container needs; returns the bytes freed.
pub(crate) async fn collect(world: &World) -> Result<u64> {
    // Whoever brings content holds the other side until a record refers to it.
    let _alone = world.content.write().await;
    let _quiet = world.parts.transfer.alone().await;
    let kept = world.parts.transfer.kept();
    let images = world.parts.images.list().await?;
    let roots: Vec<_> = images.iter().flat_map(ImageRecord::roots).chain(kept.blobs).collect();
    let mut layers: Vec<_> =
        images.iter().flat_map(|image| image.document.rootfs.diff_ids.iter().cloned()).collect();
    // A plain blob of another platform is kept as a layer.
    layers.extend(world.parts.blobs.reach(roots.clone()).await?.into_iter().map(DiffId));
    let containers = world.index.all();
    for container in &containers {
        let definition = container.definition();
        layers.extend(definition.layers.iter().cloned());
        layers.extend(definition.mounts.iter().flat_map(|mount| mount.layers.iter().cloned()));
    }
    layers.extend(kept.layers);
    layers.sort();
    layers.dedup();
    let mut ids = kept.snapshots;
    ids.extend(containers.iter().map(|container| container.id));
    let freed = world.parts.snapshots.retain(&layers, &ids).await?;
    match world.parts.blobs.collect(roots).await {
        Ok(blobs) => Ok(freed + blobs),
        Err(error) => {
            tracing::warn!(error = full_message(&error), "cannot collect blobs");
            Ok(freed)
        }
    }
}

pub(super) async fn prune(world: &Arc<World>, filters: Filters) -> Result<ImagesPruned> {
    filters.check_keys(&["dangling", "until", "label", "label!"])?;
    let only_dangling = filters.bool("dangling")?.unwrap_or(true);
    let until = until(&filters, world.options.clock.now())?;
    let Ok(_alone) = world.pruning.try_lock() else {
        return Err(Error::Conflict("a prune operation is already running".to_owned()));
    };
    let mut pruned = ImagesPruned::default();
    for image in world.parts.images.list().await? {
        let labels = image.document.config.labels.as_ref();
        let label = |key: &str| labels.and_then(|labels| labels.get(key)).map(String::as_str);
        let wanted = (!only_dangling || image.tags.is_empty())
            && until.is_none_or(|until| super::list::created(&image) < until)
            && filters.labels_match("label", label)
            && !(filters.has("label!") && filters.labels_match("label!", label))
            && world.index.users_of_image(&image.id).is_empty();
        if wanted {
            delete(world, &image, &mut pruned.removed).await?;
        }
    }
    if !pruned.removed.is_empty() {
        pruned.reclaimed = collect(world).await?;
    }
    let reclaimed = [("reclaimed", pruned.reclaimed.to_string())];
    world.event(EventKind::Image, "prune", "", reclaimed);
    Ok(pruned)
}

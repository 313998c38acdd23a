//! `create`: name, volumes, writable snapshot and records, all of it or nothing.

use std::sync::Arc;

use rorqual_content::ImageRecord;
use rorqual_core::{ContainerId, ContainerName, Platform, generated_name};
use rorqual_snapshot::SnapshotRequest;
use rorqual_store::{Durability, Operation};

use super::mounts;
use crate::container::Container;
use crate::effective;
use crate::error::{Error, Result};
use crate::labels;
use crate::logs;
use crate::records::{ContainerRecord, State, StateRecord};
use crate::request::Created;
use crate::spec::{ContainerSpec, IpcMode, NetworkMode, PidMode};
use crate::undo::{Undo, Undoing};
use crate::validate;
use crate::world::World;

pub(super) async fn create(world: Arc<World>, spec: ContainerSpec) -> Result<Created> {
    let _content = world.content.read().await;
    let mut operation = world.operations.begin("container.create");
    let result = steps(&world, &mut operation, spec).await;
    operation.settle(result).await
}

async fn steps(
    world: &Arc<World>,
    operation: &mut Operation<Undoing>,
    mut spec: ContainerSpec,
) -> Result<Created> {
    let warnings = validate::container(&mut spec, &world.options)?;
    by_id(world, &mut spec)?;
    validate::capabilities(&spec, world.capabilities)?;
    world.profiles.of(&spec, world.capabilities)?;
    endpoints(world, &spec).await?;
    let image = image(world, &spec).await?;
    let id = ContainerId::from_random(World::random_bits()?);
    let mut effective = effective::merge(&mut spec, &image.document.config, &id)?;
    if spec.network.mode == NetworkMode::Host && spec.network.hostname.is_none() {
        // COMPAT: whoever shares the host's namespace has the host's name.
        if let Ok(name) = tokio::fs::read_to_string("/proc/sys/kernel/hostname").await {
            name.trim_end().clone_into(&mut effective.hostname);
        }
    }
    let (labels, level) = labels::choose(world, &spec, id)?;
    effective.labels = labels;
    let name = reserve_name(world, operation, &spec, id)?;
    spec.name = Some(name.clone());
    let log = logs::target(world, &spec, &id, &image)?;
    let layers = image.document.rootfs.diff_ids.clone();
    let mounts = mounts::resolve(world, operation, &mut spec, &effective, (id, &layers)).await?;

    operation.will_need(Undo::RemoveSnapshot(id))?;
    let request =
        SnapshotRequest { container: id, layers: layers.clone(), size: spec.storage.size };
    world.parts.snapshots.prepare(request).await?;

    let record = ContainerRecord {
        id,
        name,
        created: world.options.clock.now(),
        platform: platform(&image),
        image: image.id,
        manifest: image.manifest,
        layers,
        spec,
        effective,
        mounts,
        log,
    };
    operation.will_need(Undo::RemoveRecords(id))?;
    let (definition, state) = (record.clone(), State::new());
    let small = StateRecord { id, state: state.clone() };
    let write = world.parts.database.write(Durability::Normal, move |records| {
        records.put(&definition)?;
        records.put(&small)
    });
    write.await?;
    let container = Container::new(record, state);
    world.index.insert(&container);
    // The commit point: from here on the container is there.
    operation.keep();
    level.keep();
    world.container_event(&container, "create", []);
    Ok(Created { id, warnings })
}

/// Checks what is asked of networks that are there; the others may come before the start.
async fn endpoints(world: &World, spec: &ContainerSpec) -> Result<()> {
    for request in &spec.network.endpoints {
        if let Ok(network) = world.parts.networks.find(&request.network).await {
            network.check(request)?;
        }
    }
    Ok(())
}

/// Names of containers that share a namespace become ids, so that renaming them changes nothing.
fn by_id(world: &World, spec: &mut ContainerSpec) -> Result<()> {
    // COMPAT: not 404, which clients take for a missing image.
    let find =
        |name: &str| world.index.find(name).map_err(|error| Error::Invalid(error.to_string()));
    if let PidMode::Container(other) = &mut spec.namespaces.pid {
        *other = find(other)?.id.to_string();
    }
    if let IpcMode::Container(other) = &mut spec.namespaces.ipc {
        *other = find(other)?.id.to_string();
    }
    // COMPAT: whose network is joined may come later.
    if let NetworkMode::Container(other) = &mut spec.network.mode
        && let Ok(found) = find(other)
    {
        *other = found.id.to_string();
    }
    for (target, _) in &mut spec.network.links {
        // COMPAT: dockerd's text.
        let found = world.index.find(target).map_err(|error| {
            Error::Invalid(format!("could not get container for {target}: {error}"))
        })?;
        *target = found.id.to_string();
    }
    if let Some(memory @ 1..) = spec.resources.memory
        && spec.resources.memory_swap.is_none()
    {
        // COMPAT: as much swap as memory, told by `inspect` and held by `update`.
        spec.resources.memory_swap = Some(memory.saturating_mul(2));
    }
    Ok(())
}

async fn image(world: &World, spec: &ContainerSpec) -> Result<ImageRecord> {
    if spec.image.is_empty() {
        return Err(Error::Invalid("no command specified".to_owned()));
    }
    let image = world.parts.images.resolve(&spec.image).await?;
    match &spec.platform {
        Some(wanted) if !wanted.runs(&platform(&image)) => Err(Error::NotFound(format!(
            "image with reference {} was found but its platform ({}) does not match the specified platform ({})",
            spec.image,
            platform(&image).familiar(),
            wanted.familiar()
        ))),
        _ => Ok(image),
    }
}

pub(crate) fn platform(image: &ImageRecord) -> Platform {
    Platform {
        os: image.document.os.clone(),
        architecture: image.document.architecture.clone(),
        variant: image.document.variant.clone(),
    }
}

fn reserve_name(
    world: &World,
    operation: &mut Operation<Undoing>,
    spec: &ContainerSpec,
    owner: ContainerId,
) -> Result<ContainerName> {
    // LIMIT: with a number behind it, a made-up name is free after a few draws.
    for attempt in 0..16 {
        let name = if let Some(name) = &spec.name {
            name.clone()
        } else {
            let bits = World::random_bits()?;
            let draw = bits.iter().take(8).fold(0, |draw, byte| draw << 8 | u64::from(*byte));
            generated_name(draw, attempt)
        };
        operation.will_need(Undo::ReleaseName { name: name.clone(), owner })?;
        match world.index.reserve_name(&name, owner) {
            Ok(()) => return Ok(name),
            Err(taken) if spec.name.is_some() => return Err(taken),
            Err(_) => {}
        }
    }
    Err(Error::Internal("cannot find a free name for the container".to_owned()))
}

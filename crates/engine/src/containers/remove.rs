//! `rm`, automatic removal and `container prune`.

use std::sync::Arc;
use std::time::Duration;

use rorqual_core::{Filters, Timestamp, VolumeName, full_message, units};

use super::stop;
use crate::container::Container;
use crate::error::{Error, Result};
use crate::events::EventKind;
use crate::execs;
use crate::phase::{Desired, Happening, Phase};
use crate::records::ContainerRecord;
use crate::request::{Pruned, RemoveRequest};
use crate::undo::Undo;
use crate::world::World;

/// LIMIT: adoption is tried again every second or so, and tells nobody when it has succeeded.
const BETWEEN_LOOKS: Duration = Duration::from_millis(20);

/// Removes a container for a user. The caller holds its operation lock.
pub(super) async fn remove(
    world: &Arc<World>,
    container: &Arc<Container>,
    request: RemoveRequest,
) -> Result<()> {
    let name = container.definition().name.clone();
    let refused = |why: &str| {
        // COMPAT: clients look for this text.
        Err(Error::Conflict(format!("cannot remove container \"{name}\": container is {why}")))
    };
    if container.state().gone {
        return Err(Error::NoSuchContainer(name.to_string()));
    }
    match container.phase() {
        Phase::Removing => {
            return Err(Error::Conflict(format!(
                "removal of container {name} is already in progress"
            )));
        }
        Phase::Paused(_) if !request.force => return refused("paused and must be unpaused first"),
        Phase::Running(_) if !request.force => {
            return refused("running: stop the container before removing or force remove");
        }
        Phase::Restarting(_) if !request.force => {
            return refused("restarting: stop the container before removing or force remove");
        }
        _ => {}
    }
    if request.force && container.check_reached().is_err() {
        put_down(world, container).await?;
    }
    container.check_reached()?;
    container.change(|state| state.desired = Desired::Removed);
    stop::call_restart_off(world, container).await?;
    if let Some(task) = container.task() {
        stop::kill_and_wait(world, container, &task).await?;
    }
    take_apart(world, container, request.volumes).await
}

/// Ends a container whose shim does not answer the daemon that found it, and waits until it is known how that ended.
async fn put_down(world: &Arc<World>, container: &Arc<Container>) -> Result<()> {
    let failed = |source| Error::Task {
        message: format!("cannot end the shim of container {}", container.id.short()),
        source,
    };
    world.parts.tasks.put_down(container.id, None).await.map_err(failed)?;
    let unknown = || {
        let runs = matches!(container.phase(), Phase::Running(_) | Phase::Paused(_));
        container.check_reached().is_err() || runs && container.task().is_none()
    };
    let known = async {
        while unknown() {
            tokio::time::sleep(BETWEEN_LOOKS).await;
        }
    };
    // Who is still out of reach then is refused by the caller.
    tokio::time::timeout(stop::AFTER_KILL, known).await.ok();
    Ok(())
}

/// Removes a container that asked for it, once its run has ended.
pub(super) async fn auto(world: &Arc<World>, container: &Arc<Container>) {
    let _turn = world.locks.lock(container.id).await;
    // Somebody may have removed or started it before our turn came.
    if container.state().gone || container.task().is_some() {
        return;
    }
    container.change(|state| state.desired = Desired::Removed);
    if let Err(error) = take_apart(world, container, true).await {
        tracing::error!(container = %container.id.short(), error = full_message(&error), "cannot remove");
    }
}

/// Goes on with a removal that an earlier daemon began, or that is due.
pub(crate) async fn finish_removal(world: &Arc<World>, container: &Arc<Container>) {
    let _turn = world.locks.lock(container.id).await;
    if container.state().gone {
        return;
    }
    let volumes = container.definition().spec.auto_remove;
    let result = match container.phase() {
        Phase::Removing => dispose(world, container, volumes).await,
        _ => take_apart(world, container, volumes).await,
    };
    if let Err(error) = result {
        tracing::error!(container = %container.id.short(), error = full_message(&error), "cannot remove");
    }
}

/// Takes a container that does not run apart.
async fn take_apart(world: &Arc<World>, container: &Arc<Container>, volumes: bool) -> Result<()> {
    let begun = container.apply(Happening::RemovalBegan, |_| {});
    begun.map_err(|illegal| Error::Conflict(illegal.to_string()))?;
    dispose(world, container, volumes).await
}

/// Removes records and files of a container that is marked for it.
async fn dispose(world: &Arc<World>, container: &Arc<Container>, volumes: bool) -> Result<()> {
    let definition = container.definition();
    let mut operation = world.operations.begin("container.remove");
    let erased = async {
        for name in anonymous(&definition).filter(|_| volumes) {
            let (name, owner) = (name.clone(), container.id);
            operation.will_need(Undo::DropVolume { name, owner })?;
        }
        container.erase(&world.parts.database).await
    };
    if let Err(error) = erased.await {
        let reason = full_message(&error);
        operation.keep();
        container.apply(Happening::RemovalFailed { reason }, |_| {}).ok();
        return Err(error);
    }
    // The commit point: without a record, whatever is left is swept at the next start.
    world.index.remove(&container.id);
    world.levels.release(&container.id);
    container.live().waiting.clear();
    execs::forget(world, |exec| exec.container.id == container.id);
    if volumes {
        remove_anonymous(world, &definition).await;
    }
    operation.keep();
    world.container_event(container, "destroy", []);
    container.change(|state| state.gone = true);
    let (world, id) = (Arc::clone(world), container.id);
    // Files need not be gone before the answer: nobody can find them any more.
    world.tracker.clone().spawn(async move {
        if let Err(error) = world.parts.snapshots.remove(&id).await {
            tracing::warn!(container = %id.short(), error = full_message(&error), "cannot remove the snapshot");
        }
    });
    Ok(())
}

fn anonymous(definition: &ContainerRecord) -> impl Iterator<Item = &VolumeName> {
    let mounts = definition.mounts.iter().filter(|mount| mount.anonymous);
    mounts.filter_map(|mount| mount.name.as_ref())
}

async fn remove_anonymous(world: &World, definition: &ContainerRecord) {
    for name in anonymous(definition) {
        if !world.index.users_of_volume(name).is_empty() {
            continue;
        }
        let Some(record) = world.volumes.find(name) else { continue };
        match world.volumes.discard(name, &record.driver).await {
            Ok(()) => crate::volumes::announce(world, "destroy", &record),
            Err(error) => {
                tracing::warn!(volume = %name, error = full_message(&error), "cannot remove the volume");
            }
        }
    }
}

/// Removes all stopped containers that pass the filters.
pub(super) async fn prune(world: &Arc<World>, filters: Filters) -> Result<Pruned> {
    filters.check_keys(&["until", "label", "label!"])?;
    let until = until(&filters, world.options.clock.now())?;
    let Ok(_alone) = world.pruning.try_lock() else {
        return Err(Error::Conflict("a prune operation is already running".to_owned()));
    };
    let mut pruned = Pruned::default();
    for container in world.index.all() {
        let definition = container.definition();
        let label = |key: &str| definition.spec.labels.get(key).map(String::as_str);
        let wanted =
            matches!(container.phase(), Phase::Created | Phase::Exited(_) | Phase::Dead { .. })
                && until.is_none_or(|until| definition.created < until)
                && filters.labels_match("label", label)
                && !(filters.has("label!") && filters.labels_match("label!", label));
        if !wanted {
            continue;
        }
        let _turn = world.locks.lock(container.id).await;
        let size = world.parts.snapshots.usage(&container.id).await.unwrap_or_default().writable;
        if remove(world, &container, RemoveRequest::default()).await.is_ok() {
            pruned.reclaimed += size;
            pruned.deleted.push(container.id.to_string());
        }
    }
    let reclaimed = [("reclaimed", pruned.reclaimed.to_string())];
    world.event(EventKind::Container, "prune", "", reclaimed);
    Ok(pruned)
}

/// Reads the filter `until`: a duration before now, or a time.
pub(crate) fn until(filters: &Filters, now: Timestamp) -> Result<Option<Timestamp>> {
    match filters.values("until") {
        [] => Ok(None),
        [text] => {
            let ago = units::parse_duration(text).ok().map(|ago| {
                Timestamp::from_nanos(now.nanos().saturating_sub(ago.as_nanos() as u64))
            });
            let at = ago.or_else(|| text.parse().ok());
            at.map(Some).ok_or_else(|| {
                // COMPAT: dockerd's text.
                Error::Invalid(format!("failed to parse value as time or duration: {text:?}"))
            })
        }
        _ => Err(Error::Invalid("more than one until filter specified".to_owned())),
    }
}

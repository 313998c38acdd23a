//! What a new daemon does with what an earlier one left.
//!
//! ORDER: the journal first (it frees what unfinished operations hold), then every container believed to run, then the
//! sweep of what no record owns, and only then restarts: a sweep must not see half-started containers.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use rorqual_core::{ContainerId, Timestamp, full_message};
use rorqual_shim::{Adoption, Exit, TaskId};
use rorqual_store::Unfinished;

use crate::container::Container;
use crate::containers::{launch_again, run};
use crate::error::Result;
use crate::phase::{Desired, Happening, Phase};
use crate::records::{ContainerRecord, StateRecord};
use crate::restart::at_boot;
use crate::world::World;

// LIMIT: a daemon is ready within a second of its start, also when some shim does not answer.
const ATTEMPTS: u32 = 4;
const BETWEEN_ATTEMPTS: Duration = Duration::from_millis(150);

/// Reads all containers into the index.
pub(crate) async fn read_records(world: &World) -> Result<()> {
    let definitions: Vec<ContainerRecord> = world.parts.database.list().await?;
    let states: Vec<StateRecord> = world.parts.database.list().await?;
    let mut states: std::collections::HashMap<ContainerId, _> =
        states.into_iter().map(|record| (record.id, record.state)).collect();
    for definition in definitions {
        let Some(state) = states.remove(&definition.id) else {
            tracing::error!(container = %definition.id.short(), "no state record, skipped");
            continue;
        };
        world.index.insert(&Container::new(definition, state));
    }
    Ok(())
}

/// Brings the world in line with the records.
pub(crate) async fn recover(world: &Arc<World>, unfinished: Vec<Unfinished>) -> Result<()> {
    world.operations.replay(unfinished).await?;
    let containers = world.index.all();
    join_all(containers.iter().map(|container| adopt(world, container))).await;
    sweep(world, &containers).await;
    let running: Vec<_> =
        containers.iter().filter(|container| container.task().is_some()).cloned().collect();
    world.volumes.recover(&running).await;
    for container in containers {
        come_back(world, &container);
    }
    Ok(())
}

/// Finds out what became of a container.
async fn adopt(world: &Arc<World>, container: &Arc<Container>) {
    let Some(task) = container.phase().task() else { return };
    match ask(world, container.id).await {
        Ok(Adoption::Running(found)) if found.id() == task => {
            match world.parts.networks.adopt(&container.id, found.pid()).await {
                Ok(endpoints) => container.change(|state| {
                    state.pid = found.pid();
                    if !endpoints.is_empty() {
                        state.endpoints = endpoints;
                    }
                }),
                Err(error) => {
                    container.change(|state| state.pid = found.pid());
                    tracing::warn!(container = %container.id.short(), error = full_message(&error), "cannot take the network over");
                }
            }
            container.live().task = Some(Arc::clone(&found));
            run::accompany(world, container, &found);
        }
        Ok(Adoption::Ended(ended, exit)) if ended == task => {
            run::ended(world, container, task, exit, None).await;
        }
        Ok(Adoption::Running(_) | Adoption::Ended(..) | Adoption::Unknown) => {
            lost(world, container, task).await;
        }
        Err(error) => {
            tracing::error!(container = %container.id.short(), error = full_message(&error), "cannot adopt");
            lost(world, container, task).await;
        }
    }
}

/// Asks for a container's task, more than once when nobody answers: giving up means ending the container.
async fn ask(world: &World, id: ContainerId) -> Result<Adoption, rorqual_shim::Error> {
    let mut answer = world.parts.tasks.adopt(id).await;
    for _ in 1..ATTEMPTS {
        if !matches!(answer, Err(rorqual_shim::Error::Unreachable { .. })) {
            break;
        }
        tokio::time::sleep(BETWEEN_ATTEMPTS).await;
        answer = world.parts.tasks.adopt(id).await;
    }
    answer
}

/// There is neither a shim nor an exit record, as after a reboot.
async fn lost(world: &Arc<World>, container: &Arc<Container>, task: TaskId) {
    let at: Timestamp = world.options.clock.now();
    let exit = Exit { code: 255, oom_killed: false, at, witnessed: false };
    world.parts.networks.detach(&container.id).await.ok();
    let applied = container.apply(Happening::TaskEnded { task, exit, restart: false }, |state| {
        // COMPAT: dockerd reports 255 for a container that ended while nobody watched.
        state.exit_code = 255;
        state.finished_at = Some(at);
        state.exits += 1;
        state.pid = 0;
        state.endpoints.clear();
        state.ports.clear();
    });
    if applied.is_ok() {
        container.persist(&world.parts.database).await.ok();
    }
}

/// Ends whatever runs or is attached without a record that says so.
async fn sweep(world: &World, containers: &[Arc<Container>]) {
    let running: Vec<ContainerId> = containers
        .iter()
        .filter(|container| container.task().is_some())
        .map(|container| container.id)
        .collect();
    match world.parts.tasks.sweep(&running).await {
        Ok(strays) => {
            for stray in strays {
                tracing::warn!(container = %stray.short(), "ended a container without a record");
            }
        }
        Err(error) => tracing::warn!(error = full_message(&error), "cannot sweep containers"),
    }
    if let Err(error) = world.parts.networks.sweep(&running).await {
        tracing::warn!(error = full_message(&error), "cannot sweep networks");
    }
}

/// Applies removals and restart policies to a container that does not run, in the background.
fn come_back(world: &Arc<World>, container: &Arc<Container>) {
    let definition = container.definition();
    let state = container.state();
    let removal = matches!(state.phase, Phase::Removing | Phase::Dead { .. })
        || (definition.spec.auto_remove && matches!(state.phase, Phase::Exited(_)));
    let restart = match &state.phase {
        Phase::Created | Phase::Exited(_) => {
            state.started_at.is_some()
                && at_boot(definition.spec.restart, state.desired, state.exit_code != 0)
        }
        Phase::Restarting(_) => container.live().restart.is_none(),
        _ => false,
    };
    let (world, container) = (Arc::clone(world), Arc::clone(container));
    if removal {
        world.tracker.clone().spawn(async move {
            crate::containers::finish_removal(&world, &container).await;
        });
    } else if restart {
        world.tracker.clone().spawn(async move {
            let _turn = world.locks.lock(container.id).await;
            // A user may have been faster.
            let idle = matches!(
                container.phase(),
                Phase::Created | Phase::Exited(_) | Phase::Restarting(_)
            );
            if idle && !world.closing.is_cancelled() {
                container.change(|state| state.desired = Desired::Running);
                launch_again(&world, &container).await;
            }
        });
    }
}

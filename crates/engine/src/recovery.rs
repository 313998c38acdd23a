//! What a new daemon does with what an earlier one left.
//!
//! ORDER: the journal first (it frees what unfinished operations hold), then every container believed to run, then the
//! sweep of what no record owns, and only then restarts: a sweep must not see half-started containers.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use rorqual_core::{ContainerId, Timestamp, full_message};
use rorqual_network::{Endpoint, EndpointRequest};
use rorqual_shim::{Adoption, Exit, Task, TaskId};
use rorqual_store::Unfinished;

use crate::container::Container;
use crate::containers::{launch_again, run};
use crate::error::Result;
use crate::phase::{Desired, Happening, Phase};
use crate::records::{ContainerRecord, ExecRecord, StateRecord};
use crate::restart::at_boot;
use crate::spec::NetworkMode;
use crate::world::World;

// LIMIT: shims answer within milliseconds, and on a machine under heavy load within seconds; so long does the daemon's
// start wait for one that does not.
const AT_BOOT: Duration = Duration::from_secs(3);
// LIMIT: one attempt, of which many may follow; a busy shim answers within milliseconds.
const ATTEMPT: Duration = Duration::from_secs(10);
const BETWEEN_ATTEMPTS: Duration = Duration::from_millis(100);

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
        world.levels.note(definition.id, &definition.effective.labels);
        world.index.insert(&Container::new(definition, state));
    }
    Ok(())
}

/// Brings the world in line with the records.
pub(crate) async fn recover(world: &Arc<World>, unfinished: Vec<Unfinished>) -> Result<()> {
    world.operations.replay(unfinished).await?;
    let mut execs = crate::execs::read_records(world).await?;
    let containers = world.index.all();
    join_all(containers.iter().map(|container| {
        let execs = execs.remove(&container.id).unwrap_or_default();
        adopt(world, container, execs)
    }))
    .await;
    sweep(world, &containers).await;
    let running: Vec<_> =
        containers.iter().filter(|container| container.phase().task().is_some()).cloned().collect();
    world.volumes.recover(&running).await;
    for container in containers {
        come_back(world, &container);
    }
    Ok(())
}

/// Finds out what became of a container.
async fn adopt(world: &Arc<World>, container: &Arc<Container>, execs: Vec<ExecRecord>) {
    let Some(task) = container.phase().task() else {
        return crate::execs::adopt(world, container, None, execs).await;
    };
    match tokio::time::timeout(AT_BOOT, ask(world, container.id)).await {
        Ok(adoption) => adopted(world, container, (task, adoption), execs).await,
        Err(_) => pursue(world, container, task, execs),
    }
}

/// Asks for a container's task until there is an answer: that nobody answers does not mean that nothing runs.
async fn ask(world: &World, id: ContainerId) -> Adoption {
    loop {
        match tokio::time::timeout(ATTEMPT, world.parts.tasks.adopt(id)).await {
            Ok(Ok(adoption)) => return adoption,
            Ok(Err(error)) => {
                tracing::debug!(container = %id.short(), error = full_message(&error), "no answer");
            }
            Err(_) => tracing::debug!(container = %id.short(), "no answer in time"),
        }
        tokio::time::sleep(BETWEEN_ATTEMPTS).await;
    }
}

/// Goes on asking in the background. Until there is an answer the container counts as running, out of reach.
fn pursue(world: &Arc<World>, container: &Arc<Container>, task: TaskId, execs: Vec<ExecRecord>) {
    tracing::warn!(container = %container.id.short(), "its shim does not answer, trying on");
    container.live().unreached = true;
    container.running.send_replace(true);
    let (world, container) = (Arc::clone(world), Arc::clone(container));
    world.tracker.clone().spawn(async move {
        let adoption = tokio::select! {
            biased;
            () = world.closing.cancelled() => return,
            adoption = ask(&world, container.id) => adoption,
        };
        tracing::info!(container = %container.id.short(), "its shim has answered");
        container.live().unreached = false;
        adopted(&world, &container, (task, adoption), execs).await;
        come_back(&world, &container);
    });
}

/// Takes over what was found.
async fn adopted(
    world: &Arc<World>,
    container: &Arc<Container>,
    (task, adoption): (TaskId, Adoption),
    execs: Vec<ExecRecord>,
) {
    let found = match adoption {
        Adoption::Running(found) if found.id() == task => {
            take_over(world, container, &found).await;
            Some(found)
        }
        Adoption::Ended(ended, exit) if ended == task => {
            run::ended(world, container, task, exit, None).await;
            None
        }
        Adoption::Running(_) | Adoption::Ended(..) | Adoption::Unknown => {
            lost(world, container, task).await;
            None
        }
    };
    crate::execs::adopt(world, container, found.as_ref(), execs).await;
}

async fn take_over(world: &Arc<World>, container: &Arc<Container>, found: &Arc<dyn Task>) {
    match world.parts.networks.adopt(&container.id, found.pid()).await {
        Ok(endpoints) => {
            container.change(|state| {
                state.pid = found.pid();
                if !endpoints.is_empty() {
                    state.endpoints = endpoints;
                }
            });
            agree(world, container).await;
        }
        Err(error) => {
            container.change(|state| state.pid = found.pid());
            tracing::warn!(container = %container.id.short(), error = full_message(&error), "cannot take the network over");
        }
    }
    container.live().task = Some(Arc::clone(found));
    run::accompany(world, container, found);
}

/// Makes the networks that a container is to join next time those that it is on: a daemon that was killed while it
/// connected or disconnected one may have written down the one and not the other.
async fn agree(world: &World, container: &Container) {
    let old = container.definition();
    let endpoints = container.state().endpoints.clone();
    let spec = &old.spec.network;
    let mode = match &spec.mode {
        NetworkMode::Default => "bridge",
        NetworkMode::Network(name) => name.as_str(),
        NetworkMode::None | NetworkMode::Host | NetworkMode::Container(_) => return,
    };
    if endpoints.is_empty() {
        return;
    }
    let is_it = |endpoint: &Endpoint, name: &str| {
        let name = if name == "default" { "bridge" } else { name };
        let by_id = name.len() >= 12 && endpoint.network.to_string().starts_with(name);
        endpoint.network_name == name || by_id
    };
    let is_on = |name: &str| endpoints.iter().any(|endpoint| is_it(endpoint, name));
    let mut new = (*old).clone();
    let network = &mut new.spec.network;
    network.endpoints.retain(|request| is_on(&request.network));
    network.left_mode |= !is_on(mode);
    for endpoint in &endpoints {
        let asked = network.endpoints.iter().any(|request| is_it(endpoint, &request.network));
        if !asked && (network.left_mode || !is_it(endpoint, mode)) {
            network.endpoints.push(EndpointRequest {
                network: endpoint.network_name.clone(),
                aliases: endpoint.aliases.clone(),
                gateway_priority: endpoint.gateway_priority,
                links: endpoint.links.clone(),
                ..EndpointRequest::default()
            });
        }
    }
    if new.spec.network != old.spec.network
        && let Err(error) = container.redefine(&world.parts.database, new).await
    {
        let error = full_message(&error);
        tracing::warn!(container = %container.id.short(), error, "its networks are not written down");
    }
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
    container.running.send_replace(false);
    if applied.is_ok() {
        container.persist(&world.parts.database).await.ok();
    }
}

/// Ends whatever runs or is attached without a record that says so.
async fn sweep(world: &World, containers: &[Arc<Container>]) {
    // An end that could not be written down yet is still kept by the shim's record alone.
    let needed = |container: &&Arc<Container>| {
        container.phase().task().is_some() || container.aftermath.try_lock().is_err()
    };
    let running: Vec<ContainerId> =
        containers.iter().filter(needed).map(|container| container.id).collect();
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

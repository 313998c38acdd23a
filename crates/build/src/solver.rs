//! The solver: walks a graph from what is wanted, takes what is known from the cache, and makes the rest.
//!
//! A state of a file system is a list of layers, and a layer is its content's digest; so the key of a step over the
//! digests of its inputs is a key of content, however the inputs came to be. What is the same in several builds at a time
//! is done once: the work belongs to everybody who waits for it, and ends when the last of them goes.
//!
//! The life of a solve: [`Solver::solve`] makes one future per vertex that is needed, all waiting for their inputs; each
//! makes its key, asks the [`Cache`], and only then does something. Steps write to a snapshot of their own, which becomes
//! a layer when they succeed and is removed otherwise. A record in the cache is written once its layers are on disk: after
//! a crash finished steps are known, and nothing else is there.

mod cache;
mod exec;
mod explain;
mod export;
mod failed;
mod files;
mod flight;
mod foreign;
mod git;
mod http;
mod job;
mod keeper;
mod key;
mod mirror;
mod mounts;
mod source;
mod state;
mod walk;

use std::path::PathBuf;
use std::sync::Arc;

use rorqual_snapshot::{Snapshotter, Workbench};
use rorqual_store::KeyedLocks;
use rorqual_transfer::Transfer;
use tokio::sync::Semaphore;

use crate::contract::{ImageResolver, StepRunner};
use crate::graph::{Graph, Input, OutputRef};
use crate::{Error, error};

pub use cache::{Cache, CacheEntry, CacheKind, PruneRequest, Pruned};
pub use export::{Exported, ImageExport};
pub use failed::{FailedSlot, FailedStep};
pub use foreign::{
    CACHE_CONFIG, CacheDocument, CacheExport, CachedLayers, ImportedCache, MAX_CACHE_DOCUMENT,
    Recorder,
};
pub use job::{Entitlement, Job};
pub use key::{vertex_digest, vertex_digests};
pub use state::State;

use flight::Flights;
use mirror::Mirrors;

/// What a solver works with; all of it belongs to one data root.
#[derive(Clone)]
pub struct Parts {
    /// Layers.
    pub snapshots: Arc<dyn Snapshotter>,
    /// Changes files in snapshots.
    pub workbench: Arc<dyn Workbench>,
    /// Runs programs.
    pub steps: Arc<dyn StepRunner>,
    /// Finds images.
    pub images: Arc<dyn ImageResolver>,
    /// Records images.
    pub transfer: Arc<dyn Transfer>,
    /// What is known of earlier builds; opened before the solver, as collections must know it.
    pub cache: Arc<Cache>,
    /// Where client directories and downloads are kept; ours alone.
    pub directory: PathBuf,
    /// A directory of ours in memory, for secrets and agents; `None` where the host has none, and then they are refused.
    pub memory: Option<PathBuf>,
}

/// Settings of a solver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Steps at work at a time, of all builds together.
    pub parallel: usize,
    /// Bytes that the cache may hold; what was used longest ago goes first. `None`: no bound.
    pub keep: Option<u64>,
    /// Builds may ask for the host's network.
    pub allow_host_network: bool,
    /// Builds may ask for all privileges.
    pub allow_insecure: bool,
}

impl Default for Options {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        // COMPAT: what dockerd's builder grants.
        Self { parallel: cores.max(2), keep: None, allow_host_network: true, allow_insecure: false }
    }
}

/// Executes build graphs.
#[derive(Clone)]
pub struct Solver(Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) parts: Parts,
    pub(crate) options: Options,
    pub(crate) flights: Flights,
    pub(crate) mirrors: Mirrors,
    pub(crate) slots: Arc<Semaphore>,
    /// Cache mounts that one step at a time may use, and repositories that one fetch at a time may change.
    pub(crate) mounts: KeyedLocks<String>,
}

impl Solver {
    /// Assembles a solver, and sweeps what an earlier life left half-made in its directory. Blocking.
    pub fn open(parts: Parts, options: Options) -> Result<Self, Error> {
        let mirrors = Mirrors::open(&parts.directory)?;
        let arrivals = parts.directory.join("arrivals");
        match std::fs::remove_dir_all(&arrivals) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error::other("remove what was not wholly fetched")(error));
            }
            _ => {}
        }
        std::fs::create_dir_all(&arrivals).map_err(error::other("make a place for downloads"))?;
        let slots = Arc::new(Semaphore::new(options.parallel));
        let inner = Inner {
            parts,
            options,
            flights: Flights::default(),
            mirrors,
            slots,
            mounts: KeyedLocks::default(),
        };
        Ok(Self(Arc::new(inner)))
    }

    /// Makes the wanted states, in their order.
    ///
    /// # Cancellation
    ///
    /// When the job's token fires or the future is dropped, everything ends at once that no other build waits for.
    /// Steps that were finished by then stay known.
    pub async fn solve(
        &self,
        graph: Arc<Graph>,
        wanted: &[OutputRef],
        job: &Job,
    ) -> Result<Vec<State>, Error> {
        let build = self.begin(graph, job);
        let result = build.states(wanted).await;
        self.0.parts.cache.trim(self.0.options.keep, &self.0.parts).await;
        result
    }

    /// Begins a build whose states are asked for one by one.
    pub fn begin(&self, graph: Arc<Graph>, job: &Job) -> Building {
        let walk = walk::Walk::new(Arc::clone(&self.0), graph, job.clone());
        Building { walk, cancel: job.cancel.clone() }
    }

    /// Counts the builds that wait for steps under way, each as often as it waits.
    pub fn waiting(&self) -> usize {
        self.0.flights.waiting()
    }

    /// Lists what the cache holds.
    pub async fn usage(&self) -> Result<Vec<CacheEntry>, Error> {
        self.0.parts.cache.usage(&self.0.parts).await
    }

    /// Takes records and cache mounts away; the space comes back with the next collection, which the caller starts.
    pub async fn prune(&self, request: PruneRequest) -> Result<Pruned, Error> {
        self.0.parts.cache.prune(&self.0.parts, request).await
    }
}

/// A build under way. Dropping it ends what no other build waits for.
pub struct Building {
    walk: walk::Walk,
    cancel: tokio_util::sync::CancellationToken,
}

impl Building {
    /// Makes the wanted states, in their order; what an earlier call made is not made again.
    pub async fn states(&self, wanted: &[OutputRef]) -> Result<Vec<State>, Error> {
        tokio::select! {
            biased;
            () = self.cancel.cancelled() => Err(Error::Cancelled),
            result = self.walk.run(wanted) => result,
        }
    }

    /// Makes one state.
    pub async fn state(&self, wanted: Input) -> Result<State, Error> {
        match wanted {
            Input::Scratch => Ok(self.walk.scratch()),
            Input::Output(output) => {
                let mut states = self.states(&[output]).await?;
                Ok(states.pop().unwrap_or_else(|| self.walk.scratch()))
            }
        }
    }
}

//! The builder of this daemon: the solver with the engine's steps and the local images behind it.

mod attest;
mod buildkit;
mod caches;
mod classic;
mod context;
mod images;
mod logins;
mod lookup;
mod outbox;
mod outputs;
mod remote;
mod steps;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rorqual_build::solver::{Cache, Options, Parts, Solver};
use rorqual_content::{Blobs, Images};
use rorqual_core::BoxError;
use rorqual_engine::Steps;
use rorqual_snapshot::{Snapshotter, Workbench};
use rorqual_transfer::{Artifacts, Transfer};
use tokio_util::sync::CancellationToken;

use crate::builtin::Builtin;

pub(crate) use buildkit::BuildKit;
pub(crate) use classic::{ClassicRequest, build};
pub(crate) use images::LocalImages;
pub(crate) use logins::Logins;
pub(crate) use remote::Origin;

/// What builds need.
#[derive(Clone)]
pub(crate) struct Builder {
    pub(crate) solver: Solver,
    pub(crate) images: Arc<LocalImages>,
    pub(crate) workbench: Arc<dyn Workbench>,
    /// Where contexts of clients lie while they are built.
    contexts: PathBuf,
    /// Builds that can be cancelled by the name that their client gave them.
    running: Arc<Mutex<HashMap<String, CancellationToken>>>,
}

/// The stores of the data root.
pub(crate) struct Stores {
    pub(crate) snapshots: Arc<dyn Snapshotter>,
    pub(crate) workbench: Arc<dyn Workbench>,
    pub(crate) blobs: Arc<dyn Blobs>,
    pub(crate) images: Arc<dyn Images>,
    pub(crate) transfer: Arc<dyn Transfer>,
    pub(crate) artifacts: Arc<dyn Artifacts>,
    pub(crate) cache: Arc<Cache>,
}

/// Finds a place in memory that is ours alone, and empties it: the exec root as a rule, else the system's shared memory.
fn memory(exec_root: &Path) -> Option<PathBuf> {
    const TMPFS: i64 = 0x0102_1994;
    let places = [exec_root.to_owned(), PathBuf::from("/run"), PathBuf::from("/dev/shm")];
    let place = places
        .into_iter()
        .find(|place| rustix::fs::statfs(place).is_ok_and(|found| found.f_type == TMPFS))?;
    // Another daemon on this host has another exec root.
    let name = exec_root.to_string_lossy().replace('/', "-");
    let home = place.join(format!("rorqual-lent{name}"));
    // What a crash left there is nobody's.
    std::fs::remove_dir_all(&home).ok();
    Some(home)
}

impl Builder {
    /// Assembles it.
    pub(crate) async fn open(
        stores: Stores,
        steps: Steps,
        builtin: Builtin,
        (data, exec_root): (PathBuf, PathBuf),
        options: Options,
    ) -> Result<Self, BoxError> {
        let directory = data.join("build");
        let images = Arc::new(LocalImages {
            images: stores.images,
            blobs: stores.blobs,
            snapshots: Arc::clone(&stores.snapshots),
            transfer: Arc::clone(&stores.transfer),
            artifacts: stores.artifacts,
            builtin,
        });
        let workbench = Arc::clone(&stores.workbench);
        let resolver = Arc::clone(&images);
        let contexts = directory.join("contexts");
        let solver = {
            let contexts = contexts.clone();
            rorqual_store::blocking(move || -> Result<Solver, BoxError> {
                // What a crash left of them is nobody's.
                match std::fs::remove_dir_all(&contexts) {
                    Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                        return Err(error.into());
                    }
                    _ => std::fs::create_dir_all(&contexts)?,
                }
                let parts = Parts {
                    snapshots: stores.snapshots,
                    workbench: stores.workbench,
                    steps: Arc::new(steps::EngineSteps(steps)),
                    images: resolver,
                    transfer: stores.transfer,
                    cache: stores.cache,
                    memory: memory(&exec_root),
                    directory,
                };
                Ok(Solver::open(parts, options)?)
            })
            .await?
        };
        let running = Arc::default();
        Ok(Self { solver, images, workbench, contexts, running })
    }

    /// Where files of clients wait, on the disk of the data root.
    pub(crate) fn contexts(&self) -> &Path {
        &self.contexts
    }

    /// Remembers a build by the name that its client gave it, so that it can be cancelled.
    pub(crate) fn register(&self, name: &str, token: &CancellationToken) -> Registered {
        if !name.is_empty() {
            let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
            running.insert(name.to_owned(), token.clone());
        }
        Registered { name: name.to_owned(), running: Arc::clone(&self.running) }
    }

    /// Cancels a build by that name; one that is unknown has ended.
    pub(crate) fn cancel(&self, name: &str) {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(token) = running.get(name) {
            token.cancel();
        }
    }
}

/// A build that can be cancelled while this lives.
pub(crate) struct Registered {
    name: String,
    running: Arc<Mutex<HashMap<String, CancellationToken>>>,
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.name);
    }
}

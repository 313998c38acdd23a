//! Puts the parts together: the only place that names concrete implementations.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::StreamExt;
use rorqual_content::{Blobs, ImageConfig, ImageStore, Images, LocalBlobs};
use rorqual_core::{BoxError, Reference};
use rorqual_engine::{Engine, JournalState, LogRecords, LogSource, Options, Parts};
use rorqual_network::{BridgeOptions, Bridges};
use rorqual_shim::log::{LogQuery, LogTarget};
use rorqual_shim::{Shims, ShimsOptions};
use rorqual_snapshot::{Overlay, Snapshotter};
use rorqual_store::{Database, Journal};
use rorqual_transfer::{ImageFile, LocalTransfer};
use tokio::sync::watch;

/// Where a daemon keeps what.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    /// What outlives a reboot.
    pub(crate) data_root: PathBuf,
    /// What does not.
    pub(crate) exec_root: PathBuf,
}

/// The parts that more than the engine needs.
pub(crate) struct Assembled {
    pub(crate) engine: Engine,
    pub(crate) builtin: Builtin,
}

/// Opens all stores, starts the launcher and recovers the engine.
pub(crate) async fn assemble(
    places: &Places,
    options: Options,
    bridge: BridgeOptions,
    snapshots: rorqual_snapshot::Options,
) -> Result<Assembled, BoxError> {
    let shims = ShimsOptions { run_dir: places.exec_root.clone(), binary: None };
    let database_path = places.data_root.join("state.db");
    let data_root = places.data_root.clone();
    let journal_path = places.exec_root.join("journal");
    // Independent and each mostly waiting, so they start side by side.
    let (tasks, stores, networks) = tokio::try_join!(
        async { Shims::start(shims).await.map_err(BoxError::from) },
        blocking(move || {
            let database = Database::open(&database_path)?;
            let blobs = LocalBlobs::open(&data_root)?;
            let overlay = Overlay::open(&data_root, snapshots)?;
            let (journal, unfinished) = Journal::open(&journal_path)?;
            Ok((database, blobs, overlay, JournalState { journal: Arc::new(journal), unfinished }))
        }),
        blocking(move || Bridges::open(bridge).map_err(BoxError::from)),
    )?;
    let (database, blobs, overlay, journal) = stores;
    let images: Arc<dyn Images> = Arc::new(ImageStore::open(database.clone()).await?);
    let blobs: Arc<dyn Blobs> = Arc::new(blobs);
    let snapshots: Arc<dyn Snapshotter> = Arc::new(overlay);
    let transfer =
        LocalTransfer::new(Arc::clone(&blobs), Arc::clone(&images), Arc::clone(&snapshots));
    let parts = Parts {
        tasks,
        logs: Arc::new(FileLogs),
        snapshots,
        blobs,
        images,
        transfer: Arc::new(transfer.clone()),
        networks: Arc::new(networks),
        database,
    };
    let engine = Engine::open(options, parts, journal).await?;
    Ok(Assembled { engine, builtin: Builtin { transfer } })
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, BoxError> + Send + 'static,
) -> Result<T, BoxError> {
    tokio::task::spawn_blocking(work).await?
}

/// Reads the logs that shims write.
struct FileLogs;

impl LogSource for FileLogs {
    fn open(
        &self,
        target: &LogTarget,
        query: &LogQuery,
        running: watch::Receiver<bool>,
    ) -> Option<LogRecords> {
        let records = rorqual_shim::log::read(target, query, running)?;
        Some(Box::pin(records.map(|record| record.map_err(BoxError::from))))
    }
}

/// Images that need no registry: made of the daemon's own binary.
#[derive(Clone)]
pub(crate) struct Builtin {
    transfer: LocalTransfer,
}

/// The only one so far.
const HELLO: &str = "rorqual/hello:latest";

impl Builtin {
    /// Makes the image that `reference` names, if it is one of ours; tells whether it is.
    pub(crate) async fn install(&self, reference: &Reference) -> Result<bool, BoxError> {
        let hello: Reference = HELLO.parse()?;
        if *reference != hello {
            return Ok(false);
        }
        let bytes = blocking(|| Ok(read_whole(Path::new("/proc/self/exe"))?)).await?;
        let files = vec![ImageFile { path: "hello".to_owned(), mode: 0o755, bytes }];
        let config = ImageConfig { cmd: Some(vec!["/hello".to_owned()]), ..ImageConfig::default() };
        self.transfer.install(hello, files, config).await?;
        Ok(true)
    }
}

fn read_whole(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.read_to_end(&mut bytes)?;
    Ok(bytes)
}

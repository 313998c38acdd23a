//! A host in memory for the engine's tests: fakes of all parts, fault points before each step, restarts of the daemon.

use std::collections::{BTreeMap, BTreeSet};
use std::future::poll_fn;
use std::io::Write;
use std::path::PathBuf;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use async_trait::async_trait;
use rorqual_content::ImageConfig;
use rorqual_content::fake::{FakeBlobs, FakeImages};
use rorqual_core::mount::RootfsPlan;
use rorqual_core::{ContainerId, DiffId, ErrorKind, NetworkId, Platform};
use rorqual_network::{
    Attach, Endpoint, EndpointRequest, NetworkRecord, NetworkRequest, Networks, Sandbox,
    SandboxKind,
};
use rorqual_shim::fake::FakeTasks;
use rorqual_shim::log::{LogQuery, LogTarget};
use rorqual_shim::{Adoption, Launch, Task, Tasks};
use rorqual_snapshot::fake::FakeSnapshotter;
use rorqual_snapshot::{Change, LayerInfo, LayerSource, SnapshotRequest, Snapshotter, Tree, Usage};
use rorqual_store::{Database, Journal};
use rorqual_transfer::fake::FakeTransfer;
use rorqual_volume::Drivers;
use rorqual_volume::fake::FakeMounts;
use tokio::sync::watch;

use crate::logs::{LogRecords, LogSource};
use crate::records::{ContainerRecord, StateRecord};
use crate::spec::ContainerSpec;
use crate::{Ending, Engine, Event, EventQuery, JournalState, Listener, Options, Parts, Phase};

/// The end of a daemon whose containers go on.
pub(crate) const LIVES_ON: Ending =
    Ending { live_restore: true, patience: Duration::from_secs(15) };

/// Which step shall fail next; every step is also a point where a future can be left.
#[derive(Default)]
pub(crate) struct Saboteur {
    failing: Mutex<Option<&'static str>>,
    visited: Mutex<BTreeSet<&'static str>>,
}

impl Saboteur {
    pub(crate) fn fail_at(&self, step: Option<&'static str>) {
        *self.failing.lock().unwrap() = step;
    }

    /// Returns the steps that were come by.
    pub(crate) fn visited(&self) -> BTreeSet<&'static str> {
        self.visited.lock().unwrap().clone()
    }

    async fn step(&self, step: &'static str) -> bool {
        self.visited.lock().unwrap().insert(step);
        tokio::task::yield_now().await;
        *self.failing.lock().unwrap() == Some(step)
    }
}

/// The failure of a sabotaged task.
fn sabotaged() -> rorqual_shim::Error {
    rorqual_shim::Error::Unreachable { who: "shim", source: "sabotage".into() }
}

/// Networks that only remember who is attached.
pub(crate) struct Nets {
    pub(crate) attached: Mutex<BTreeSet<ContainerId>>,
    sabotage: Arc<Saboteur>,
}

fn bridge() -> NetworkRecord {
    NetworkRecord {
        id: NetworkId::from_random([7; 32]),
        name: "bridge".to_owned(),
        driver: "bridge".to_owned(),
        created: rorqual_core::Timestamp::default(),
        subnets: Vec::new(),
        unused: Vec::new(),
        ipam: rorqual_network::AddressDriver::default(),
        options: BTreeMap::new(),
        labels: BTreeMap::new(),
        ipv4: true,
        ipv6: false,
        internal: false,
        attachable: false,
        config_only: false,
        config_from: String::new(),
    }
}

#[async_trait]
impl Networks for Nets {
    async fn list(&self) -> Result<Vec<NetworkRecord>, rorqual_network::Error> {
        Ok(vec![bridge()])
    }
    async fn find(&self, _text: &str) -> Result<NetworkRecord, rorqual_network::Error> {
        Ok(bridge())
    }
    async fn create(
        &self,
        _request: NetworkRequest,
    ) -> Result<NetworkRecord, rorqual_network::Error> {
        Err(rorqual_network::Error::Unsupported("these networks stay as they are".to_owned()))
    }
    async fn remove(&self, network: &NetworkId) -> Result<(), rorqual_network::Error> {
        Err(rorqual_network::Error::NoSuchNetwork(network.to_string()))
    }
    async fn connect(
        &self,
        _container: &ContainerId,
        _pid: i32,
        _request: EndpointRequest,
    ) -> Result<Vec<Endpoint>, rorqual_network::Error> {
        Err(rorqual_network::Error::Unsupported("these networks stay as they are".to_owned()))
    }
    async fn rename(
        &self,
        _container: &ContainerId,
        _name: &str,
    ) -> Result<(), rorqual_network::Error> {
        Ok(())
    }
    async fn disconnect(
        &self,
        _container: &ContainerId,
        _pid: i32,
        network: &NetworkId,
    ) -> Result<Vec<Endpoint>, rorqual_network::Error> {
        Err(rorqual_network::Error::NoSuchNetwork(network.to_string()))
    }
    async fn endpoints(
        &self,
        _network: &NetworkId,
    ) -> Result<Vec<(ContainerId, String, Endpoint)>, rorqual_network::Error> {
        Ok(Vec::new())
    }
    async fn attach(&self, attach: Attach) -> Result<Sandbox, rorqual_network::Error> {
        if self.sabotage.step("attach").await {
            return Err(rorqual_network::Error::Conflict("port is already allocated".to_owned()));
        }
        let own = matches!(attach.kind, SandboxKind::Own(_));
        if own {
            self.attached.lock().unwrap().insert(attach.container);
        }
        let namespace = own.then(|| std::fs::File::open("/proc/self/ns/net").unwrap().into());
        let endpoint = Endpoint {
            network: bridge().id,
            network_name: "bridge".to_owned(),
            id: String::new(),
            interface: "eth0".to_owned(),
            mac: String::new(),
            ipv4: None,
            gateway: None,
            ipv6: None,
            gateway6: None,
            aliases: Vec::new(),
            gateway_priority: 0,
            direct: false,
            links: Vec::new(),
        };
        Ok(Sandbox {
            namespace,
            user: None,
            endpoints: if own { vec![endpoint] } else { Vec::new() },
            ports: attach.ports,
            files: rorqual_network::HostFiles::default(),
            warnings: Vec::new(),
        })
    }
    async fn detach(&self, container: &ContainerId) -> Result<(), rorqual_network::Error> {
        if self.sabotage.step("detach").await {
            return Err(rorqual_network::Error::Conflict("sabotage".to_owned()));
        }
        self.attached.lock().unwrap().remove(container);
        Ok(())
    }
    async fn adopt(
        &self,
        container: &ContainerId,
        _pid: i32,
    ) -> Result<Vec<Endpoint>, rorqual_network::Error> {
        if self.sabotage.step("adopt network").await {
            return Err(rorqual_network::Error::Conflict("sabotage".to_owned()));
        }
        self.attached.lock().unwrap().insert(*container);
        Ok(Vec::new())
    }
    async fn sweep(&self, known: &[ContainerId]) -> Result<(), rorqual_network::Error> {
        self.attached.lock().unwrap().retain(|id| known.contains(id));
        Ok(())
    }
}

struct FaultyTasks {
    inner: Arc<FakeTasks>,
    sabotage: Arc<Saboteur>,
}

#[async_trait]
impl Tasks for FaultyTasks {
    async fn launch(&self, launch: Launch) -> Result<Arc<dyn Task>, rorqual_shim::Error> {
        if self.sabotage.step("launch").await {
            return Err(rorqual_shim::Error::Start {
                message: "exec: \"x\": permission denied".to_owned(),
                exit_code: 126,
                kind: ErrorKind::InvalidArgument,
            });
        }
        let task = self.inner.launch(launch).await;
        tokio::task::yield_now().await;
        task
    }
    async fn adopt(&self, container: ContainerId) -> Result<Adoption, rorqual_shim::Error> {
        if self.sabotage.step("adopt task").await {
            return Err(sabotaged());
        }
        self.inner.adopt(container).await
    }
    async fn put_down(
        &self,
        container: ContainerId,
        init: Option<i32>,
    ) -> Result<(), rorqual_shim::Error> {
        self.inner.put_down(container, init).await
    }
    async fn forget(&self, container: ContainerId) -> Result<(), rorqual_shim::Error> {
        if self.sabotage.step("forget").await {
            return Err(sabotaged());
        }
        self.inner.forget(container).await
    }
    async fn sweep(&self, known: &[ContainerId]) -> Result<Vec<ContainerId>, rorqual_shim::Error> {
        if self.sabotage.step("sweep").await {
            return Err(sabotaged());
        }
        self.inner.sweep(known).await
    }
}

struct FaultySnapshots {
    inner: FakeSnapshotter,
    sabotage: Arc<Saboteur>,
}

type Snap<T> = Result<T, rorqual_snapshot::Error>;

impl FaultySnapshots {
    async fn step(&self, step: &'static str) -> Snap<()> {
        if self.sabotage.step(step).await {
            Err(rorqual_snapshot::Error::InvalidArgument(step.to_owned()))
        } else {
            Ok(())
        }
    }
}

#[async_trait]
impl Snapshotter for FaultySnapshots {
    async fn find_layer(&self, layer: &DiffId) -> Snap<Option<LayerInfo>> {
        self.inner.find_layer(layer).await
    }
    async fn apply(&self, source: LayerSource) -> Snap<LayerInfo> {
        self.inner.apply(source).await
    }
    async fn prepare(&self, request: SnapshotRequest) -> Snap<()> {
        self.step("before prepare").await?;
        self.inner.prepare(request).await?;
        self.step("after prepare").await
    }
    async fn rootfs(&self, container: &ContainerId) -> Snap<RootfsPlan> {
        self.step("rootfs").await?;
        self.inner.rootfs(container).await
    }
    async fn remove(&self, container: &ContainerId) -> Snap<()> {
        self.step("remove snapshot").await?;
        self.inner.remove(container).await
    }
    async fn usage(&self, container: &ContainerId) -> Snap<Usage> {
        self.inner.usage(container).await
    }
    async fn changes(&self, container: &ContainerId) -> Snap<Vec<Change>> {
        self.inner.changes(container).await
    }
    async fn diff(&self, container: &ContainerId, sink: Box<dyn Write + Send>) -> Snap<LayerInfo> {
        self.inner.diff(container, sink).await
    }
    async fn layer_tar(&self, layer: &DiffId, sink: Box<dyn Write + Send>) -> Snap<()> {
        self.inner.layer_tar(layer, sink).await
    }
    async fn open(&self, container: &ContainerId, pid: Option<i32>) -> Snap<Arc<dyn Tree>> {
        self.inner.open(container, pid).await
    }
    async fn view(&self, layers: &[DiffId]) -> Snap<Arc<dyn Tree>> {
        self.step("view").await?;
        self.inner.view(layers).await
    }
    fn layer_trees(&self, layers: &[DiffId]) -> Vec<PathBuf> {
        self.inner.layer_trees(layers)
    }
    async fn retain(&self, layers: &[DiffId], containers: &[ContainerId]) -> Snap<u64> {
        self.inner.retain(layers, containers).await
    }
    fn container_dir(&self, container: &ContainerId) -> PathBuf {
        self.inner.container_dir(container)
    }
}

struct NoLogs;

impl LogSource for NoLogs {
    fn open(
        &self,
        _target: &LogTarget,
        _query: &LogQuery,
        _running: watch::Receiver<bool>,
    ) -> Option<LogRecords> {
        Some(Box::pin(futures_util::stream::empty()))
    }
}

/// A host on which engines come and go.
pub(crate) struct Host {
    directory: tempfile::TempDir,
    pub(crate) tasks: Arc<FakeTasks>,
    pub(crate) nets: Arc<Nets>,
    pub(crate) sabotage: Arc<Saboteur>,
    pub(crate) snapshots: FakeSnapshotter,
    pub(crate) mounts: FakeMounts,
    images: Arc<FakeImages>,
    database: Database,
}

impl Host {
    /// Makes a host with the image `app:latest`, which runs `sleep`.
    pub(crate) async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let sabotage = Arc::new(Saboteur::default());
        let images = Arc::new(FakeImages::new());
        let config = ImageConfig {
            cmd: Some(vec!["sleep".to_owned(), "9".to_owned()]),
            ..ImageConfig::default()
        };
        let transfer = FakeTransfer::new(Arc::clone(&images));
        let names = vec!["app:latest".parse().unwrap()];
        transfer.put(config, Platform::host(), names).await.unwrap();
        Self {
            tasks: FakeTasks::new(),
            nets: Arc::new(Nets { attached: Mutex::default(), sabotage: Arc::clone(&sabotage) }),
            snapshots: FakeSnapshotter::new(directory.path().join("layers")),
            mounts: FakeMounts::default(),
            database: Database::open(&directory.path().join("state.db")).unwrap(),
            directory,
            sabotage,
            images,
        }
    }

    fn parts(&self) -> Parts {
        Parts {
            tasks: Arc::new(FaultyTasks {
                inner: Arc::clone(&self.tasks),
                sabotage: Arc::clone(&self.sabotage),
            }),
            logs: Arc::new(NoLogs),
            snapshots: Arc::new(FaultySnapshots {
                inner: self.snapshots.clone(),
                sabotage: Arc::clone(&self.sabotage),
            }),
            blobs: Arc::new(FakeBlobs::new()),
            images: Arc::clone(&self.images) as _,
            transfer: Arc::new(FakeTransfer::new(Arc::clone(&self.images))),
            networks: Arc::clone(&self.nets) as _,
            volumes: Arc::new(Drivers::new(
                Arc::new(self.mounts.driver(self.directory.path().join("volumes"))),
                None,
            )),
            database: self.database.clone(),
        }
    }

    /// Lets the database refuse to write records of a kind, or none.
    pub(crate) fn refuse_records(&self, kind: Option<&str>) {
        let connection =
            rusqlite::Connection::open(self.directory.path().join("state.db")).unwrap();
        let mut sql = String::new();
        for (change, row) in [("INSERT", "NEW"), ("UPDATE", "NEW"), ("DELETE", "OLD")] {
            sql += &format!("DROP TRIGGER IF EXISTS refuse_{change};");
            if let Some(kind) = kind {
                sql += &format!(
                    "CREATE TRIGGER refuse_{change} BEFORE {change} ON records WHEN {row}.kind = '{kind}'
                     BEGIN SELECT RAISE(ABORT, 'sabotage'); END;"
                );
            }
        }
        connection.execute_batch(&sql).unwrap();
    }

    /// Starts a daemon, as after the death of the last one.
    pub(crate) async fn boot(&self) -> Engine {
        self.boot_with(|_| {}).await
    }

    pub(crate) async fn boot_with(&self, change: impl FnOnce(&mut Options)) -> Engine {
        let path = self.directory.path().join("journal");
        let (journal, unfinished) = Journal::open(&path).unwrap();
        let mut options = Options::docker_defaults();
        change(&mut options);
        let state = JournalState { journal: Arc::new(journal), unfinished };
        Engine::open(options, self.parts(), state).await.unwrap()
    }

    /// Lists everything that an engine may have left on the host.
    pub(crate) async fn leftovers(&self) -> Vec<String> {
        let mut all = Vec::new();
        all.extend(self.snapshots.containers().iter().map(|id| format!("snapshot {}", id.short())));
        let attached = self.nets.attached.lock().unwrap().clone();
        all.extend(attached.iter().map(|id| format!("network {}", id.short())));
        let records: Vec<ContainerRecord> = self.database.list().await.unwrap();
        all.extend(records.iter().map(|record| format!("record {}", record.id.short())));
        let states: Vec<StateRecord> = self.database.list().await.unwrap();
        all.extend(states.iter().map(|record| format!("state {}", record.id.short())));
        let volumes = std::fs::read_dir(self.directory.path().join("volumes"));
        let volumes = volumes.into_iter().flatten().flatten();
        let volumes = volumes.filter(|entry| entry.file_name() != ".staging");
        all.extend(self.mounts.mounted().into_iter().map(|mount| format!("mount {mount}")));
        all.extend(volumes.map(|entry| format!("volume {}", entry.file_name().display())));
        all
    }

    pub(crate) async fn is_clean(&self) -> bool {
        self.leftovers().await.is_empty()
    }
}

/// A request for a container of the image `app`.
pub(crate) fn spec(name: &str, command: &[&str]) -> ContainerSpec {
    let mut spec = ContainerSpec {
        name: Some(name.parse().unwrap()),
        image: "app".to_owned(),
        ..ContainerSpec::default()
    };
    if !command.is_empty() {
        spec.process.cmd = Some(command.iter().map(|&word| word.to_owned()).collect());
    }
    spec
}

/// Waits until `test` holds, for at most some seconds.
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, test: impl Fn() -> F) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while !test().await {
        assert!(tokio::time::Instant::now() < deadline, "never: {what}");
        tokio::task::yield_now().await;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

pub(crate) async fn phase(engine: &Engine, container: &str) -> Phase {
    engine.containers.inspect(container, false).await.unwrap().state.phase
}

/// Polls `future` at most `polls` times.
pub(crate) async fn poll_some<T>(
    future: &mut Pin<&mut impl Future<Output = T>>,
    polls: usize,
) -> Option<T> {
    for _ in 0..polls {
        let polled = poll_fn(|context| Poll::Ready(future.as_mut().poll(context))).await;
        if let Poll::Ready(output) = polled {
            return Some(output);
        }
        // What the future waits for may need a turn.
        tokio::time::sleep(Duration::from_micros(200)).await;
    }
    None
}

/// Polls `future` at most `polls` times and then drops it, as a vanishing client does.
pub(crate) async fn poll_and_drop<T>(future: impl Future<Output = T>, polls: usize) -> Option<T> {
    let mut future = pin!(future);
    poll_some(&mut future, polls).await
}

/// Hears everything from now on.
pub(crate) fn listen(engine: &Engine) -> Listener {
    engine.events.listen(EventQuery::default())
}

/// Returns the events up to one with `last` as `type action`.
pub(crate) async fn heard(listener: &mut Listener, last: &str) -> Vec<String> {
    let mut all = Vec::new();
    loop {
        let next = tokio::time::timeout(Duration::from_secs(10), listener.next());
        let event: Arc<Event> = next.await.expect("an event in time").expect("a next event");
        all.push(format!("{} {}", event.kind.word(), event.action));
        if all.last().is_some_and(|event| event == last) {
            return all;
        }
    }
}

//! What handlers need: the engine, the daemon's settings as clients see them, facts about the host.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use http::StatusCode;
use rorqual_engine::Engine;
use rorqual_plugin::Plugins;
use rorqual_transfer::LocalTransfer;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::authz::Authorization;
use crate::builder::Builder;
use crate::builtin::Builtin;
use crate::convert::view::Shown;
use crate::error::ApiError;
use crate::facts::Facts;

/// Shared by all handlers.
pub(crate) struct Context {
    pub(crate) engine: Engine,
    pub(crate) builtin: Builtin,
    /// For new settings of registries.
    pub(crate) transfer: LocalTransfer,
    pub(crate) builder: Builder,
    /// The same builder as clients of BuildKit know it.
    pub(crate) builds: rorqual_buildkit::Server,
    pub(crate) facts: Facts,
    /// Who must agree to each request.
    pub(crate) authorization: Authorization,
    settings: RwLock<Arc<Settings>>,
    archives: Arc<Semaphore>,
}

// LIMIT: archives on the move at a time; each holds blocking threads for as long as its client takes.
const ARCHIVES: usize = 64;
// LIMIT: long for a busy moment, short for somebody who waits behind clients that hang.
const ARCHIVE_PATIENCE: Duration = Duration::from_secs(30);

/// The right to move an archive, given back when this is dropped.
pub(crate) struct ArchiveSlot {
    _permit: OwnedSemaphorePermit,
    archives: Arc<Semaphore>,
}

impl Drop for ArchiveSlot {
    /// Gives memory back to the kernel behind the last archive: buffers of many threads leave the heap full of holes,
    /// which an idle daemon would keep.
    fn drop(&mut self) {
        let is_last = self.archives.available_permits() + 1 == ARCHIVES;
        if let (true, Ok(runtime)) = (is_last, tokio::runtime::Handle::try_current()) {
            drop(runtime.spawn_blocking(rorqual_sys::fork::trim_heap));
        }
    }
}

/// The daemon's settings as clients see them.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a setting of its own")]
pub(crate) struct Settings {
    pub(crate) debug: bool,
    pub(crate) experimental: bool,
    pub(crate) live_restore: bool,
    pub(crate) labels: Vec<String>,
    pub(crate) data_root: String,
    pub(crate) http_proxy: String,
    pub(crate) https_proxy: String,
    pub(crate) no_proxy: String,
    /// Plugins that must agree to each request, in order.
    pub(crate) authorization: Vec<String>,
    pub(crate) insecure_registries: Vec<String>,
    pub(crate) registry_mirrors: Vec<String>,
    pub(crate) runtimes: Vec<String>,
    pub(crate) seccomp_profile: String,
    pub(crate) no_new_privileges: bool,
    /// Whether containers are labelled by SELinux.
    pub(crate) selinux: bool,
    /// Users of containers are somebody else on the host.
    pub(crate) remapped: bool,
    /// Binds are id-mapped to who asks, unless they say otherwise.
    pub(crate) idmap_binds: bool,
    pub(crate) warnings: Vec<String>,
    /// `cgroupfs` or `systemd`.
    pub(crate) cgroup_driver: &'static str,
    pub(crate) shown: Shown,
}

impl Context {
    pub(crate) fn new(
        engine: Engine,
        (transfer, builder): (LocalTransfer, Builder),
        facts: Facts,
        settings: Arc<Settings>,
        plugins: Arc<Plugins>,
    ) -> Self {
        let authorization = Authorization::new(plugins, &settings.authorization);
        let archives = Arc::new(Semaphore::new(ARCHIVES));
        let backend =
            Arc::new(crate::builder::BuildKit::new(builder.clone(), engine.clone(), &facts));
        let spool = builder.contexts().to_owned();
        let builds = rorqual_buildkit::Server::new(Arc::clone(&backend) as _, spool);
        backend.set_sessions(builds.sessions().clone());
        let settings = RwLock::new(settings);
        let builtin = Builtin::new(transfer.clone());
        Self {
            engine,
            builtin,
            transfer,
            builder,
            builds,
            facts,
            authorization,
            settings,
            archives,
        }
    }

    /// Waits for its turn to move an archive.
    pub(crate) async fn archive_slot(&self) -> Result<ArchiveSlot, ApiError> {
        let slot = Arc::clone(&self.archives).acquire_owned();
        match tokio::time::timeout(ARCHIVE_PATIENCE, slot).await {
            Ok(Ok(permit)) => {
                Ok(ArchiveSlot { _permit: permit, archives: Arc::clone(&self.archives) })
            }
            _ => Err(ApiError {
                status: StatusCode::SERVICE_UNAVAILABLE,
                message: format!(
                    "{ARCHIVES} archives are being read or written already: try again when one of them has ended"
                ),
            }),
        }
    }

    pub(crate) fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.settings.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn set_settings(&self, settings: Arc<Settings>) {
        self.authorization.set(&settings.authorization);
        *self.settings.write().unwrap_or_else(PoisonError::into_inner) = settings;
    }
}

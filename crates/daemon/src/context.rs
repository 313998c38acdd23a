//! What handlers need: the engine, the daemon's settings as clients see them, facts about the host.

use std::sync::{Arc, PoisonError, RwLock};

use rorqual_engine::Engine;

use crate::builtin::Builtin;
use crate::convert::view::Shown;
use crate::facts::Facts;

/// Shared by all handlers.
pub(crate) struct Context {
    pub(crate) engine: Engine,
    pub(crate) builtin: Builtin,
    pub(crate) facts: Facts,
    settings: RwLock<Arc<Settings>>,
}

/// The daemon's settings as clients see them.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) debug: bool,
    pub(crate) experimental: bool,
    pub(crate) live_restore: bool,
    pub(crate) labels: Vec<String>,
    pub(crate) data_root: String,
    pub(crate) http_proxy: String,
    pub(crate) https_proxy: String,
    pub(crate) no_proxy: String,
    pub(crate) insecure_registries: Vec<String>,
    pub(crate) registry_mirrors: Vec<String>,
    pub(crate) runtimes: Vec<String>,
    pub(crate) seccomp_profile: String,
    pub(crate) no_new_privileges: bool,
    pub(crate) warnings: Vec<String>,
    /// `cgroupfs` or `systemd`.
    pub(crate) cgroup_driver: &'static str,
    pub(crate) shown: Shown,
}

impl Context {
    pub(crate) const fn new(
        engine: Engine,
        builtin: Builtin,
        facts: Facts,
        settings: Arc<Settings>,
    ) -> Self {
        Self { engine, builtin, facts, settings: RwLock::new(settings) }
    }

    pub(crate) fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.settings.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn set_settings(&self, settings: Arc<Settings>) {
        *self.settings.write().unwrap_or_else(PoisonError::into_inner) = settings;
    }
}

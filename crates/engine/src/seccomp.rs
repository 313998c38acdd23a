//! Seccomp profiles of containers, resolved once per profile and set of capabilities.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use oci_spec::runtime::LinuxSeccomp;
use rorqual_core::Platform;
use rorqual_core::capability::Capabilities;
use rorqual_core::seccomp::{Document, Environment, KernelVersion};

use crate::error::{Error, Result};
use crate::spec::ContainerSpec;

/// A profile and the capabilities it is resolved for.
type Key = (Option<String>, u64);

/// Profiles that were resolved before.
pub(crate) struct Profiles {
    kernel: KernelVersion,
    architecture: String,
    /// The daemon's own default as JSON or `unconfined`; `None` is the built-in one.
    default: Option<String>,
    // LIMIT: a handful of entries in practice; emptied when it outgrows this bound.
    resolved: Mutex<HashMap<Key, Arc<LinuxSeccomp>>>,
}

const KEPT: usize = 64;

impl Profiles {
    pub(crate) fn new(default: Option<String>) -> Self {
        let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let kernel = release.trim().parse().unwrap_or(KernelVersion { major: 5, minor: 14 });
        let architecture = Platform::host().architecture;
        Self { kernel, architecture, default, resolved: Mutex::default() }
    }

    /// Returns the filter of a container; `None` when it has none. Equal filters are one value, which the tasks compile
    /// once.
    pub(crate) fn of(
        &self,
        spec: &ContainerSpec,
        capabilities: Capabilities,
    ) -> Result<Option<Arc<LinuxSeccomp>>> {
        let own = spec.security.options.iter().rev().find_map(|option| {
            option.split_once(['=', ':']).filter(|(key, _)| *key == "seccomp").map(|(_, text)| text)
        });
        let profile = match (own, &self.default) {
            (Some("unconfined"), _) => return Ok(None),
            (None, _) if spec.security.privileged => return Ok(None),
            (None, Some(default)) if default == "unconfined" => return Ok(None),
            (Some("builtin"), _) | (None, None) => None,
            (Some(json), _) => Some(json.to_owned()),
            (None, Some(json)) => Some(json.clone()),
        };
        self.resolve(profile, capabilities).map(Some)
    }

    fn resolve(
        &self,
        profile: Option<String>,
        capabilities: Capabilities,
    ) -> Result<Arc<LinuxSeccomp>> {
        let key = (profile, capabilities.bits());
        let mut resolved = self.resolved.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = resolved.get(&key) {
            return Ok(Arc::clone(known));
        }
        let environment = Environment {
            capabilities,
            architecture: self.architecture.clone(),
            kernel: self.kernel,
        };
        let invalid = |error: &dyn std::error::Error| {
            let message = rorqual_core::full_message(error);
            Error::Invalid(format!("Decoding seccomp profile failed: {message}"))
        };
        let document = match &key.0 {
            Some(json) => Document::parse(json).map_err(|error| invalid(&error))?,
            None => Document::docker_default(),
        };
        let profile = document.resolve(&environment).map_err(|error| invalid(&error))?;
        let built: LinuxSeccomp = serde_json::to_value(&profile)
            .and_then(serde_json::from_value)
            .map_err(|error| invalid(&error))?;
        if resolved.len() >= KEPT {
            resolved.clear();
        }
        let built = Arc::new(built);
        resolved.insert(key, Arc::clone(&built));
        Ok(built)
    }
}

//! Volumes whose mounts are only remembered.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::Local;
use crate::local::mounter::Mounter;
use crate::options::MountPlan;

/// The mounts of a host that has none.
#[derive(Clone, Default)]
pub struct FakeMounts {
    mounted: Arc<Mutex<BTreeMap<PathBuf, String>>>,
    failing: Arc<Mutex<bool>>,
}

impl FakeMounts {
    /// Returns the driver `local` over these mounts; several over the same ones are lives of one daemon.
    pub fn driver(&self, root: PathBuf) -> Local {
        Local::with(root, Arc::new(self.clone()))
    }

    /// Returns what is mounted, as `device at mount point`.
    pub fn mounted(&self) -> Vec<String> {
        let mounted = self.mounted.lock().unwrap_or_else(PoisonError::into_inner);
        mounted.iter().map(|(path, device)| format!("{device} at {}", path.display())).collect()
    }

    /// Lets further mounts fail, or no longer.
    pub fn fail(&self, fail: bool) {
        *self.failing.lock().unwrap_or_else(PoisonError::into_inner) = fail;
    }
}

impl Mounter for FakeMounts {
    fn mount(&self, plan: &MountPlan, target: &Path) -> io::Result<()> {
        if *self.failing.lock().unwrap_or_else(PoisonError::into_inner) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let mut mounted = self.mounted.lock().unwrap_or_else(PoisonError::into_inner);
        mounted.insert(target.to_owned(), plan.device.clone());
        Ok(())
    }

    fn unmount(&self, target: &Path) -> io::Result<()> {
        self.mounted.lock().unwrap_or_else(PoisonError::into_inner).remove(target);
        Ok(())
    }

    fn is_mounted(&self, target: &Path) -> io::Result<bool> {
        Ok(self.mounted.lock().unwrap_or_else(PoisonError::into_inner).contains_key(target))
    }
}

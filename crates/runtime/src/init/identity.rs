//! Who the program runs as: user, groups, capabilities.

use std::io::Read as _;
use std::path::Path;

use rorqual_sys::capability::{self, Capabilities};
use rustix::fs::{FileType, OFlags};
use rustix::process::{Gid, Uid};

use super::{Init, StepError, Tried, own_capabilities};
use crate::StartFailure;
use crate::channel::Report;
use crate::passwd::{self, Identity, MAX_FILE};
use crate::plan::Step;
use crate::request::ProcessUser;

/// Takes ids 0 where they exist in this user namespace.
pub(super) fn become_root() {
    // A namespace without a group 0, or one that denies setgroups(2), keeps what it has.
    let _ = rustix::thread::set_thread_groups(&[]);
    let root = Gid::ROOT;
    let _ = rustix::thread::set_thread_res_gid(root, root, root);
    let _ = rustix::thread::set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT);
}

impl Init<'_> {
    pub(super) fn identity(&mut self, step: &Step) -> Result<(), StepError> {
        match step {
            Step::FindUser { user, uid, gid, groups } => self.find_user(user, *uid, *gid, groups),
            Step::LimitCapabilities { bounding } => limit_capabilities(*bounding),
            Step::SetUser => self.set_user(),
            Step::NoNewPrivileges => {
                rustix::thread::set_no_new_privs(true).tried(|| "cannot set no_new_privs".into())
            }
            Step::SetCapabilities(sets) => self.set_capabilities(sets),
            _ => Ok(()),
        }
    }

    fn find_user(
        &mut self,
        user: &ProcessUser,
        uid: u32,
        gid: u32,
        groups: &[u32],
    ) -> Result<(), StepError> {
        let home_missing =
            !self.prepared.env.iter().any(|entry| entry.as_bytes().starts_with(b"HOME="));
        match user {
            ProcessUser::Spec => {
                self.identity = Identity { uid, gid, groups: groups.to_vec(), home: None };
            }
            ProcessUser::Lookup { user, groups } => {
                let (passwd, group) =
                    (self.small_file("/etc/passwd"), self.small_file("/etc/group"));
                self.identity = passwd::look_up(user, groups, &passwd, &group)
                    .map_err(|message| StepError { failure: StartFailure::NoSuchUser, message })?;
            }
        }
        if home_missing {
            let home =
                self.identity.home.take().or_else(|| {
                    passwd::home_of(self.identity.uid, &self.small_file("/etc/passwd"))
                });
            self.home = Some(home.unwrap_or_else(|| "/".to_owned()));
        }
        Ok(())
    }

    /// Reads a file of the image that need not exist and may be anything.
    fn small_file(&self, path: &str) -> String {
        let read = || -> Option<String> {
            let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
            let fd = if let Some(root) = &self.root {
                root.open(Path::new(path), flags).ok()?
            } else {
                let mode = rustix::fs::Mode::empty();
                rustix::fs::open(path, flags | OFlags::CLOEXEC, mode).ok()?
            };
            let stat = rustix::fs::fstat(&fd).ok()?;
            if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
                return None;
            }
            let mut bytes = Vec::new();
            std::fs::File::from(fd).take(MAX_FILE).read_to_end(&mut bytes).ok()?;
            Some(String::from_utf8_lossy(&bytes).into_owned())
        };
        read().unwrap_or_default()
    }

    fn set_user(&mut self) -> Result<(), StepError> {
        let before = own_capabilities()?;
        let Identity { uid, gid, groups, .. } = &self.identity;
        let (uid, gid) = (Uid::from_raw(*uid), Gid::from_raw(*gid));
        let groups: Vec<Gid> = groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
        match rustix::thread::set_thread_groups(&groups) {
            // A user namespace of an unprivileged user denies it.
            Err(rustix::io::Errno::PERM) if groups.is_empty() => {}
            other => other.tried(|| "cannot set supplementary groups".into())?,
        }
        rustix::thread::set_thread_res_gid(gid, gid, gid)
            .tried(|| format!("cannot set group id {}", gid.as_raw()))?;
        capability::keep_over_user_change(true).tried(|| "cannot keep capabilities".into())?;
        rustix::thread::set_thread_res_uid(uid, uid, uid)
            .tried(|| format!("cannot set user id {}", uid.as_raw()))?;
        capability::keep_over_user_change(false).tried(|| "cannot keep capabilities".into())?;
        self.allowed = before;
        self.enter_working_directory_as_user();
        Ok(())
    }

    /// Puts everything permitted back in force, which the change of user has taken away.
    pub(super) fn restore_effective(&self) -> Result<(), StepError> {
        let sets = Capabilities { effective: self.allowed.permitted, ..self.allowed };
        capability::set(&sets).tried(|| "cannot keep capabilities in force".into())
    }

    fn set_capabilities(&self, wanted: &Capabilities) -> Result<(), StepError> {
        let possible = self.allowed.permitted;
        let sets = Capabilities {
            bounding: wanted.bounding,
            effective: wanted.effective & wanted.permitted & possible,
            inheritable: wanted.inheritable & possible,
            permitted: wanted.permitted & possible,
            ambient: wanted.ambient & wanted.permitted & wanted.inheritable & possible,
        };
        capability::set(&sets).tried(|| "unable to apply caps".into())?;
        capability::set_ambient(sets.ambient).tried(|| "unable to apply ambient caps".into())
    }

    /// Tells which wanted capabilities this host cannot give.
    pub(super) fn warn_of_missing_capabilities(&self, wanted: &Capabilities) {
        let missing = wanted.permitted & !self.allowed.permitted;
        if missing == 0 {
            return;
        }
        let names: Vec<_> = capability::NAMES
            .iter()
            .enumerate()
            .filter(|(bit, _)| missing & (1 << bit) != 0)
            .map(|(_, name)| format!("CAP_{name}"))
            .collect();
        let text = format!("capabilities not available here: {}", names.join(", "));
        let _ = self.tell(&Report::Warning(text));
    }
}

fn limit_capabilities(bounding: u64) -> Result<(), StepError> {
    capability::limit_bounding_set(bounding)
        .tried(|| "cannot limit the capability bounding set".into())
}

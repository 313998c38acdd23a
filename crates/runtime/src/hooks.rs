//! Hooks: programs of the host that run at certain points of a container's life.

use std::collections::HashMap;
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use oci_spec::runtime::{Hook, Spec};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::MemfdFlags;

use crate::text::reason;

/// LIMIT: of a failed hook's output only this much gets into the error.
const MAX_OUTPUT: u64 = 4096;

/// The hooks of a container and what they are told.
#[derive(Clone, Debug, Default)]
pub(crate) struct HookSet {
    pub prestart: Vec<Hook>,
    pub create_runtime: Vec<Hook>,
    pub create_container: Vec<Hook>,
    pub start_container: Vec<Hook>,
    pub poststart: Vec<Hook>,
    pub poststop: Vec<Hook>,
    id: String,
    bundle: PathBuf,
    version: String,
    annotations: HashMap<String, String>,
}

impl HookSet {
    /// Takes the hooks out of a specification.
    pub(crate) fn new(id: &str, bundle: PathBuf, spec: &Spec) -> Self {
        let mut set = Self { id: id.to_owned(), bundle, ..Self::default() };
        set.version.clone_from(spec.version());
        set.annotations = spec.annotations().clone().unwrap_or_default();
        let Some(hooks) = spec.hooks().as_ref() else { return set };
        let list = |hooks: &Option<Vec<Hook>>| hooks.clone().unwrap_or_default();
        set.prestart = list(hooks.prestart());
        set.create_runtime = list(hooks.create_runtime());
        set.create_container = list(hooks.create_container());
        set.start_container = list(hooks.start_container());
        set.poststart = list(hooks.poststart());
        set.poststop = list(hooks.poststop());
        set
    }

    /// Tells whether the child runs any hook.
    pub(crate) fn has_inner(&self) -> bool {
        !self.create_container.is_empty() || !self.start_container.is_empty()
    }

    /// Returns the state document that hooks read from their standard input.
    pub(crate) fn state(&self, status: &str, pid: i32) -> String {
        self.document(status, pid).to_string()
    }

    /// Returns the container's state.
    pub(crate) fn document(&self, status: &str, pid: i32) -> serde_json::Value {
        let mut state = serde_json::json!({
            "ociVersion": self.version,
            "id": self.id,
            "status": status,
            "bundle": self.bundle,
        });
        if pid > 0 {
            state["pid"] = pid.into();
        }
        if !self.annotations.is_empty() {
            state["annotations"] = serde_json::json!(self.annotations);
        }
        state
    }
}

/// Runs hooks one after the other; the first that fails ends it.
pub(crate) fn run(point: &str, hooks: &[Hook], state: &str) -> Result<(), String> {
    for (index, hook) in hooks.iter().enumerate() {
        run_one(hook, state)
            .map_err(|error| format!("error running {point} hook #{index}: {error}"))?;
    }
    Ok(())
}

/// Runs hooks one after the other, whatever becomes of the others; returns what went wrong.
pub(crate) fn run_all(point: &str, hooks: &[Hook], state: &str) -> Vec<String> {
    let one = |(index, hook)| {
        let failed = run_one(hook, state).err()?;
        Some(format!("error running {point} hook #{index}: {failed}"))
    };
    hooks.iter().enumerate().filter_map(one).collect()
}

fn run_one(hook: &Hook, state: &str) -> Result<(), String> {
    let text = |error: io::Error| format!("{}: {}", hook.path().display(), reason(&error));
    let mut input = memory_file().map_err(text)?;
    input.write_all(state.as_bytes()).and_then(|()| input.rewind()).map_err(text)?;
    let mut output = memory_file().map_err(text)?;
    let mut command = Command::new(hook.path());
    let args = hook.args().as_deref().unwrap_or_default();
    if let Some((name, rest)) = args.split_first() {
        command.arg0(name).args(rest);
    }
    let env = hook.env().iter().flatten().filter_map(|entry| entry.split_once('='));
    command.env_clear().envs(env).stdin(Stdio::from(input));
    command.stdout(Stdio::from(output.try_clone().map_err(text)?));
    command.stderr(Stdio::from(output.try_clone().map_err(text)?));
    let mut child = command.spawn().map_err(text)?;

    if let Some(seconds) = hook.timeout().filter(|seconds| *seconds > 0) {
        let pidfd = rorqual_sys::process::pidfd_open(child.id() as i32).map_err(text)?;
        let limit = Duration::from_secs(seconds.unsigned_abs());
        let ended = wait_readable(pidfd.as_fd(), limit).map_err(text)?;
        if !ended {
            let _ = child.kill();
            let _ = child.wait();
            return Err(format!("hook ran past specified timeout of {seconds}.0s"));
        }
    }
    let status = child.wait().map_err(text)?;
    if status.success() {
        return Ok(());
    }
    let mut said = String::new();
    // The text is a courtesy.
    let _ = output.rewind();
    let _ = output.take(MAX_OUTPUT).read_to_string(&mut said);
    Err(format!("{status}, output: {}", said.trim_end()))
}

fn memory_file() -> io::Result<std::fs::File> {
    Ok(rustix::fs::memfd_create("hook", MemfdFlags::CLOEXEC)?.into())
}

fn wait_readable(fd: std::os::fd::BorrowedFd<'_>, limit: Duration) -> io::Result<bool> {
    let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
    let limit = Timespec { tv_sec: limit.as_secs() as i64, tv_nsec: 0 };
    Ok(rustix::io::retry_on_intr(|| rustix::event::poll(&mut fds, Some(&limit)))? > 0)
}

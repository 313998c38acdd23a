//! OCI runtime: turns a specification into a printable plan, and the plan into a process.
//!
//! A library without a database, a daemon or an async runtime; `cli` is the runc-compatible command line over it.

#![expect(
    clippy::unnecessary_debug_formatting,
    reason = "paths in messages are quoted and escaped on purpose"
)]

mod cgroup;
mod channel;
pub mod cli;
mod create;
mod error;
mod hooks;
mod init;
mod inroot;
mod listener;
mod netdev;
mod passwd;
pub mod pid1;
mod plan;
mod rdt;
mod request;
mod seccomp;
mod sources;
mod text;
mod users;

use std::os::fd::AsFd as _;
use std::path::PathBuf;

use oci_spec::runtime::Spec;

pub use cgroup::convert as cgroup_resources;
pub use error::{Error, StartFailure};
pub use request::{
    Barrier, ContainerRequest, Created, ExecRequest, Executed, Joined, Namespace, ProcessUser,
    Stdio,
};
pub use seccomp::Filter;

/// Creates a container: clones init with its namespaces and lets it carry out the plan.
///
/// Single-threaded callers only: the child of `clone3(2)` allocates. Whatever was made for the container
/// (processes, cgroups) is gone again when this fails. Init is killed when the calling thread ends.
///
/// All hooks run but `poststop`, see [`deleted`].
///
/// A `cgroupsPath` of the form `slice:prefix:name` is a scope that systemd makes.
pub fn create(request: ContainerRequest) -> Result<Created, Error> {
    let path = request.spec.linux().as_ref().and_then(|linux| linux.cgroups_path().as_ref());
    let path = path.map(|path| path.to_string_lossy()).unwrap_or_default();
    let driver = rorqual_sys::cgroup::Driver::of_path(&path);
    let cgroup = cgroup::Maker { driver, ..cgroup::Maker::default() };
    let mut created =
        create::create(request, create::Extras { cgroup, ..create::Extras::default() })?;
    if created.barrier.is_none() {
        created.tell_of_start();
    }
    Ok(created)
}

/// Runs the hooks that come after a container's deletion, which is the caller's work; returns what went wrong.
pub fn deleted(id: &str, bundle: PathBuf, spec: &Spec) -> Vec<String> {
    let set = hooks::HookSet::new(id, bundle, spec);
    hooks::run_all("poststop", &set.poststop, &set.state("stopped", 0))
}

/// Starts an extra process in a running container; returns once `execve(2)` has succeeded or failed. The process is
/// killed when the calling thread ends.
///
/// Refuses a frozen container: the process would freeze with it on its way in, and the caller would wait for it.
pub fn exec(request: ExecRequest) -> Result<Executed, Error> {
    if cgroup::open(&request.cgroup)?.is_frozen() {
        return Err(Error::Unsupported("cannot start a process in a paused container".into()));
    }
    create::exec(request, &create::Extras::default())
}

impl Created {
    /// Lets init pass the barrier; returns once `execve(2)` has succeeded or failed.
    ///
    /// After a failure init is gone and reaped; the cgroup is the caller's to delete. Does nothing when it has started
    /// already.
    pub fn start(&mut self) -> Result<(), Error> {
        let process = (self.pid, self.pidfd.as_fd());
        let agent = self.agent.as_ref();
        let Some(socket) = self.barrier.take() else { return Ok(()) };
        create::start(&socket, process, agent)?;
        self.tell_of_start();
        Ok(())
    }

    fn tell_of_start(&mut self) {
        // The specification wants failures of these hooks told and nothing more.
        let state = self.hooks.state("running", self.pid);
        self.warnings.extend(hooks::run_all("poststart", &self.hooks.poststart, &state));
    }
}

//! OCI runtime: turns a specification into a printable plan, and the plan into a process.
//!
//! A library without a database, a daemon or an async runtime; `cli` is the runc-compatible command line over it.

mod error;
pub mod pid1;
mod request;

pub use error::{Error, StartFailure};
pub use request::{
    Barrier, ContainerRequest, Created, ExecRequest, Executed, Joined, Namespace, ProcessUser,
    Stdio,
};

/// Creates a container: clones init with its namespaces and lets it carry out the plan.
///
/// Single-threaded callers only: the child of `clone3(2)` allocates. Whatever was made for the container
/// (processes, cgroups) is gone again when this fails.
pub fn create(_request: ContainerRequest) -> Result<Created, Error> {
    Err(Error::Unsupported("contract only".into()))
}

/// Starts an extra process in a running container; returns once `execve(2)` has succeeded or failed.
pub fn exec(_request: ExecRequest) -> Result<Executed, Error> {
    Err(Error::Unsupported("contract only".into()))
}

impl Created {
    /// Lets init pass the barrier; returns once `execve(2)` has succeeded or failed.
    pub fn start(&mut self) -> Result<(), Error> {
        Err(Error::Unsupported("contract only".into()))
    }
}

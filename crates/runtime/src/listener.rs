//! Handing the listener of a system call filter to the agent that answers for it.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use oci_spec::runtime::Spec;
use rustix::net::sockopt::{self, Timeout};
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix,
    SocketFlags, SocketType,
};
use serde_json::{Value, json};

/// LIMIT: an agent that does not even take a connection for this long will not answer for calls either.
const PATIENCE: Duration = Duration::from_secs(10);

/// Who answers for the calls of a filter, and what it is told.
#[derive(Clone, Debug)]
pub(crate) struct Agent {
    socket: PathBuf,
    metadata: String,
    version: String,
    /// The container's state.
    state: Value,
}

impl Agent {
    /// Finds the agent that the specification names.
    pub(crate) fn new(spec: &Spec, state: Value) -> Option<Self> {
        let seccomp = spec.linux().as_ref()?.seccomp().as_ref()?;
        Some(Self {
            socket: seccomp.listener_path().clone()?,
            metadata: seccomp.listener_metadata().clone().unwrap_or_default(),
            version: spec.version().clone(),
            state,
        })
    }

    /// Fetches the listener out of the process that installed the filter, and sends it on.
    pub(crate) fn hand_over(&self, pidfd: BorrowedFd<'_>, pid: i32, number: i32) -> io::Result<()> {
        let listener = rorqual_sys::process::take_descriptor(pidfd, number)?;
        let mut state = self.state.clone();
        if state.get("pid").is_none() {
            state["pid"] = pid.into();
        }
        let mut document = json!({
            "ociVersion": self.version,
            "fds": ["seccompFd"],
            "pid": pid,
            "state": state,
        });
        if !self.metadata.is_empty() {
            document["metadata"] = json!(self.metadata);
        }
        self.send(document.to_string().as_bytes(), &listener)
    }

    fn send(&self, document: &[u8], listener: &OwnedFd) -> io::Result<()> {
        let (family, kind) = (AddressFamily::UNIX, SocketType::STREAM);
        let stream = rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC, None)?;
        // Holds for connecting, too.
        sockopt::set_socket_timeout(&stream, Timeout::Send, Some(PATIENCE))?;
        rustix::net::connect(&stream, &SocketAddrUnix::new(&self.socket)?)?;
        let fds = [listener.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        control.push(SendAncillaryMessage::ScmRights(&fds));
        let data = [io::IoSlice::new(document)];
        let mut sent = rustix::net::sendmsg(&stream, &data, &mut control, SendFlags::NOSIGNAL)?;
        while sent < document.len() {
            sent += rustix::net::send(&stream, &document[sent..], SendFlags::NOSIGNAL)?;
        }
        Ok(())
    }

    /// Names the agent in messages.
    pub(crate) fn socket(&self) -> &std::path::Path {
        &self.socket
    }
}

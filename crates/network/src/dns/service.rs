//! The resolver's role of the binary: talks to daemons, and ends when neither a daemon nor a container needs it.

use std::collections::HashMap;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::process::ExitCode;

use rorqual_sys::capability::{self, Capabilities};
use rorqual_sys::poll::{Interest, Poller};
use rorqual_sys::rlimit::{self, Rlimit};
use rorqual_sys::seqpacket;
use rustix::process::{Gid, Uid};

use super::resolver::Resolver;
use super::wire::{Answer, LARGEST_DOCUMENT, Request};
use crate::relay::Relay;

/// The argument that makes the binary a resolver.
pub const ROLE: &str = "resolver";

const LISTENER: u64 = 0;
/// Tokens of daemons' connections; those of the resolver itself are larger.
const CONNECTIONS: std::ops::Range<u64> = 1..1000;

/// Runs the role: standard input is the listening socket, the only argument the run directory, which names the daemon to
/// whoever lists processes.
pub fn main(_args: impl IntoIterator<Item = OsString>) -> ExitCode {
    match take_listener().and_then(|listener| confine().and_then(|()| serve(listener))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn take_listener() -> io::Result<OwnedFd> {
    let listener = rustix::io::fcntl_dupfd_cloexec(io::stdin(), 3)?;
    let null = std::fs::File::options().read(true).write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::thread::set_name(c"rq-resolver")?;
    Ok(listener)
}

/// Gives up all rights but that of entering containers' namespaces, from which name servers are asked.
fn confine() -> io::Result<()> {
    const NOBODY: u32 = 65534;
    // Each relayed connection has two descriptors.
    if let Some(number) = rlimit::number("NOFILE") {
        let Rlimit { hard, .. } = rlimit::get(number)?;
        rlimit::set(number, Rlimit { soft: hard, hard })?;
    }
    let kept = capability::number("SYS_ADMIN").map_or(0, |number| 1_u64 << number);
    // ORDER: the bounding set and the user while the right to change them is there.
    capability::limit_bounding_set(kept)?;
    capability::keep_over_user_change(true)?;
    let (user, group) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
    let changed = rustix::thread::set_thread_groups(&[])
        .and_then(|()| rustix::thread::set_thread_res_gid(group, group, group))
        .and_then(|()| rustix::thread::set_thread_res_uid(user, user, user));
    match changed {
        // A user namespace without such a user, or one that denies setgroups(2), keeps what it has.
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::PERM) | Ok(()) => {}
        Err(error) => return Err(error.into()),
    }
    let rights = Capabilities { effective: kept, permitted: kept, ..Capabilities::default() };
    capability::set(&rights)?;
    rustix::thread::set_no_new_privs(true)?;
    Ok(())
}

/// Serves until neither a daemon nor a container needs it.
pub(super) fn serve(listener: OwnedFd) -> io::Result<()> {
    let poller = Poller::new()?;
    poller.add(listener.as_fd(), LISTENER, Interest::READ)?;
    let mut service = Service {
        listener,
        poller,
        connections: HashMap::new(),
        next: CONNECTIONS.start,
        had_daemon: false,
    };
    let mut parts =
        Parts { resolver: Resolver::new(CONNECTIONS.end), relay: Relay::default(), firewall: None };
    let mut ready = Vec::new();
    loop {
        service.poller.wait(&mut ready, parts.resolver.next_deadline())?;
        for event in std::mem::take(&mut ready) {
            match event.token {
                LISTENER => service.accept(),
                token if CONNECTIONS.contains(&token) => service.hear(token, &mut parts),
                token => parts.resolver.ready(&service.poller, token),
            }
        }
        parts.resolver.expire(&service.poller);
        // A daemon that ended in order has left no container; one that was killed comes back to its own.
        if service.had_daemon && service.connections.is_empty() && parts.are_idle() {
            return Ok(());
        }
    }
}

/// What the process does for containers.
struct Parts {
    resolver: Resolver,
    relay: Relay,
    /// The socket that owns the firewall's table. It is only kept open: while it is, nobody else can change the table.
    firewall: Option<OwnedFd>,
}

impl Parts {
    fn are_idle(&self) -> bool {
        self.resolver.is_idle() && self.relay.is_idle() && self.firewall.is_none()
    }

    fn tell(&mut self, poller: &Poller, request: Request, descriptors: Vec<OwnedFd>) -> Answer {
        match request {
            Request::Relay(relayed) => match self.relay.put(relayed, descriptors) {
                Ok(true) => Answer::Done,
                Ok(false) => Answer::NotServed,
                Err(_) => Answer::Misunderstood,
            },
            Request::EndRelay(container) => {
                self.relay.remove(&container);
                Answer::Done
            }
            Request::KeepRelays(containers) => {
                self.relay.keep(&containers);
                Answer::Done
            }
            Request::HoldFirewall => match <[OwnedFd; 1]>::try_from(descriptors) {
                Ok([socket]) => {
                    self.firewall = Some(socket);
                    Answer::Done
                }
                Err(_) => Answer::Misunderstood,
            },
            Request::LetGoFirewall => {
                self.firewall = None;
                Answer::Done
            }
            of_names => self.resolver.tell(poller, of_names, descriptors),
        }
    }
}

struct Service {
    listener: OwnedFd,
    poller: Poller,
    connections: HashMap<u64, OwnedFd>,
    next: u64,
    had_daemon: bool,
}

impl Service {
    fn accept(&mut self) {
        let Ok(connection) = seqpacket::accept(self.listener.as_fd()) else { return };
        let free = CONNECTIONS.clone().find(|token| !self.connections.contains_key(token));
        let Some(token) = free else { return };
        self.next = token;
        let added = rustix::io::ioctl_fionbio(&connection, true)
            .map_err(io::Error::from)
            .and_then(|()| self.poller.add(connection.as_fd(), token, Interest::READ));
        if added.is_ok() {
            self.had_daemon = true;
            self.connections.insert(token, connection);
        }
    }

    /// Does what a daemon asks; one that has gone, or makes no sense, is let go.
    fn hear(&mut self, token: u64, parts: &mut Parts) {
        let Some(connection) = self.connections.get(&token) else { return };
        let heard = match seqpacket::receive(connection.as_fd(), LARGEST_DOCUMENT) {
            Ok(Some(packet)) => {
                let request = serde_json::from_slice::<Request>(&packet.bytes);
                let answer = request.map_or(Answer::Misunderstood, |request| {
                    parts.tell(&self.poller, request, packet.descriptors)
                });
                let bytes = serde_json::to_vec(&answer).unwrap_or_default();
                seqpacket::send(connection.as_fd(), &bytes, &[]).is_ok()
            }
            Ok(None) => false,
            Err(error) => {
                matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
            }
        };
        if !heard && let Some(connection) = self.connections.remove(&token) {
            // Closing takes it off the poller as well.
            self.poller.remove(connection.as_fd()).ok();
        }
    }
}

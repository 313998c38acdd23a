//! What daemon and resolver say to each other: one packet with a document, and the descriptors it speaks of; then one
//! packet back.

use std::fs::File;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::Arc;
use std::time::Duration;

use rorqual_sys::seqpacket;
use rustix::net::sockopt;
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::relay::Relayed;

/// The resolver's socket in the run directory.
const SOCKET: &str = "resolver.sock";
/// LIMIT: a container on a thousand networks fits; a packet of the kernel's default size holds it.
pub(super) const LARGEST_DOCUMENT: usize = 160 * 1024;
/// LIMIT: how long the resolver may take to answer; it does nothing that waits.
const PATIENCE: Duration = Duration::from_secs(5);

/// LIMIT: between two attempts to ask; four of them take a fifth of a second.
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// A container's place in a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Place {
    /// Id of the network.
    pub(crate) network: String,
    /// Its name.
    pub(crate) network_name: String,
    /// What the container is called there, its main name first.
    pub(crate) names: Vec<String>,
    /// Its addresses there.
    pub(crate) addresses: Vec<IpAddr>,
    /// `(alias, name)`: names that this container alone has for others.
    #[serde(default)]
    pub(crate) links: Vec<(String, String)>,
    /// The network's subnets.
    pub(crate) subnets: Vec<String>,
}

/// A name server for what is not ours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Upstream {
    /// Its address.
    pub(crate) address: IpAddr,
    /// It is reached from the host's namespace, not from the container's.
    pub(crate) on_host: bool,
}

/// A container that the resolver serves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Guest {
    /// Its id.
    pub(crate) container: String,
    /// Where it is.
    pub(crate) places: Vec<Place>,
    /// Whom to ask for other names, in order.
    pub(crate) upstream: Vec<Upstream>,
}

/// What the daemon asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Request {
    /// Serve a container from now on (with its namespace, UDP and TCP socket), or know this of one that is served.
    Put(Guest),
    /// Serve a container no more.
    Remove(String),
    /// Serve only these.
    Keep(Vec<String>),
    /// Relay ports to a container from now on (with a socket for each), or (without any) to this address of it.
    Relay(Relayed),
    /// Relay nothing to a container any more.
    EndRelay(String),
    /// Relay to these only.
    KeepRelays(Vec<String>),
    /// Keep the socket that owns the firewall's table open, so that the table stays owned while there is no daemon.
    HoldFirewall,
    /// Close it.
    LetGoFirewall,
}

/// What the resolver says to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Answer {
    /// Done.
    Done,
    /// A container without sockets is not served yet.
    NotServed,
    /// That cannot be understood.
    Misunderstood,
}

fn failed(source: io::Error) -> Error {
    Error::Os {
        action: "talk to the resolver of containers' names".to_owned(),
        source: source.into(),
    }
}

/// The daemon's end.
#[derive(Debug)]
pub(crate) struct Client {
    run_dir: PathBuf,
    connection: Option<OwnedFd>,
    /// How many connections there have been.
    connections: u64,
    /// Rung whenever there is another connection.
    bell: Arc<OwnedFd>,
    /// Kept to be waited for, when it was this daemon that started it.
    child: Option<Child>,
}

impl Client {
    /// Makes a client that starts a resolver when it is first needed.
    pub(crate) const fn new(run_dir: PathBuf, bell: Arc<OwnedFd>) -> Self {
        Self { run_dir, connection: None, connections: 0, bell, child: None }
    }

    /// Returns the connection for somebody who waits for its end.
    pub(crate) fn connection(&self) -> Option<OwnedFd> {
        self.connection.as_ref()?.try_clone().ok()
    }

    /// Lets go of a resolver that has ended, and reaps it.
    pub(crate) fn let_go(&mut self) {
        self.connection = None;
        if let Some(mut child) = self.child.take() {
            // One that let go of its daemon has ended, or is of no more use.
            child.kill().and_then(|()| child.wait()).ok();
        }
    }

    /// Serves a container, or changes what is known of it; tells whether it is served.
    pub(crate) fn put(&mut self, guest: Guest, sockets: &[BorrowedFd<'_>]) -> Result<bool, Error> {
        match self.ask(&Request::Put(guest), sockets, true)? {
            Answer::Done => Ok(true),
            Answer::NotServed => Ok(false),
            Answer::Misunderstood => Err(failed(io::ErrorKind::InvalidData.into())),
        }
    }

    /// Serves a container no more.
    pub(crate) fn remove(&mut self, container: String) -> Result<(), Error> {
        self.ask(&Request::Remove(container), &[], false).map(drop)
    }

    /// Serves only these containers.
    pub(crate) fn keep(&mut self, containers: Vec<String>) -> Result<(), Error> {
        self.ask(&Request::Keep(containers), &[], false).map(drop)
    }

    /// Has ports relayed by sockets, or tells where they lead from now on; tells whether any are relayed.
    pub(crate) fn relay(
        &mut self,
        relayed: Relayed,
        sockets: &[BorrowedFd<'_>],
    ) -> Result<bool, Error> {
        let Relayed { container, to, ports } = relayed;
        let all = ports.into_iter().zip(sockets.iter().copied()).collect::<Vec<_>>();
        // Without sockets there is one question all the same.
        let chunks = all.chunks(seqpacket::MAX_DESCRIPTORS);
        let first = all.is_empty().then_some(&[][..]);
        for chunk in first.into_iter().chain(chunks) {
            let (ports, sockets): (Vec<_>, Vec<_>) = chunk.iter().copied().unzip();
            let request = Request::Relay(Relayed { container: container.clone(), to, ports });
            match self.ask(&request, &sockets, !sockets.is_empty())? {
                Answer::Done if sockets.is_empty() => return Ok(self.connection.is_some()),
                Answer::Done => {}
                Answer::NotServed => return Ok(false),
                Answer::Misunderstood => return Err(failed(io::ErrorKind::InvalidData.into())),
            }
        }
        Ok(true)
    }

    /// Has nothing relayed to a container any more.
    pub(crate) fn end_relay(&mut self, container: String) -> Result<(), Error> {
        self.ask(&Request::EndRelay(container), &[], false).map(drop)
    }

    /// Has ports relayed to these containers only.
    pub(crate) fn keep_relays(&mut self, containers: Vec<String>) -> Result<(), Error> {
        self.ask(&Request::KeepRelays(containers), &[], false).map(drop)
    }

    /// Has the resolver keep the firewall's socket; one is started where there is none. Returns which one it is.
    pub(crate) fn hold_firewall(&mut self, socket: BorrowedFd<'_>) -> Result<u64, Error> {
        match self.ask(&Request::HoldFirewall, &[socket], true)? {
            Answer::Done => Ok(self.connections),
            Answer::NotServed | Answer::Misunderstood => {
                Err(failed(io::ErrorKind::InvalidData.into()))
            }
        }
    }

    /// Has it let go of that socket.
    pub(crate) fn let_go_firewall(&mut self) -> Result<(), Error> {
        self.ask(&Request::LetGoFirewall, &[], false).map(drop)
    }

    /// Tells whether that resolver is still the one that is talked to.
    pub(crate) const fn is(&self, which: u64) -> bool {
        self.connection.is_some() && self.connections == which
    }

    /// Tells whether the resolver that was talked to last has ended.
    pub(crate) fn is_lost(&self) -> bool {
        let Some(connection) = &self.connection else { return false };
        let mut polled = [rustix::event::PollFd::new(connection, rustix::event::PollFlags::RDHUP)];
        rustix::event::poll(&mut polled, Some(&rustix::time::Timespec::default()))
            .is_ok_and(|ready| ready > 0)
    }

    /// Asks; without a resolver there is nothing to ask unless one may be started.
    fn ask(
        &mut self,
        request: &Request,
        sockets: &[BorrowedFd<'_>],
        start: bool,
    ) -> Result<Answer, Error> {
        let bytes = serde_json::to_vec(request).map_err(|error| failed(error.into()))?;
        let mut pause = Duration::from_millis(1);
        loop {
            if self.connection.is_none() && !self.connect(start).map_err(failed)? {
                return Ok(Answer::Done);
            }
            let error = match self.exchange(&bytes, sockets) {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            self.connection = None;
            if pause > LONGEST_PAUSE {
                return Err(failed(error));
            }
            tracing::debug!(%error, "the resolver does not answer, asking anew");
            // One that ends may take connections for some moments still.
            std::thread::sleep(pause);
            pause *= 4;
        }
    }

    fn exchange(&self, bytes: &[u8], sockets: &[BorrowedFd<'_>]) -> io::Result<Answer> {
        let Some(connection) = &self.connection else {
            return Err(io::ErrorKind::NotConnected.into());
        };
        seqpacket::send(connection.as_fd(), bytes, sockets)?;
        let packet = seqpacket::receive(connection.as_fd(), LARGEST_DOCUMENT)?;
        let packet = packet.ok_or(io::ErrorKind::UnexpectedEof)?;
        Ok(serde_json::from_slice(&packet.bytes)?)
    }

    /// Connects to the resolver that is there, or starts one; tells whether there is one now.
    fn connect(&mut self, start: bool) -> io::Result<bool> {
        let directory = File::open(&self.run_dir)?;
        let nobody = |error: &io::Error| {
            matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
        };
        let connection = match seqpacket::connect(directory.as_fd(), SOCKET) {
            Err(error) if nobody(&error) && !start => return Ok(false),
            Err(error) if nobody(&error) => {
                self.start(&directory)?;
                seqpacket::connect(directory.as_fd(), SOCKET)?
            }
            other => other?,
        };
        for side in [sockopt::Timeout::Recv, sockopt::Timeout::Send] {
            sockopt::set_socket_timeout(&connection, side, Some(PATIENCE))?;
        }
        self.connection = Some(connection);
        self.connections += 1;
        // A counter that is full has been rung already.
        rustix::io::write(&*self.bell, &1_u64.to_ne_bytes()).ok();
        Ok(true)
    }

    fn start(&mut self, directory: &File) -> io::Result<()> {
        if let Some(mut old) = self.child.take() {
            // It has ended, since nobody listens; this only reaps it.
            old.wait()?;
        }
        let path = Path::new(&self.run_dir).join(SOCKET);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        // ORDER: the daemon listens, so that it can connect before the resolver has begun.
        let listener = seqpacket::listen(directory.as_fd(), SOCKET, 8)?;
        self.child = launch(listener, &self.run_dir)?;
        Ok(())
    }
}

/// Starts the resolver's process.
#[cfg(not(test))]
fn launch(listener: OwnedFd, run_dir: &Path) -> io::Result<Option<Child>> {
    use std::os::unix::process::CommandExt as _;
    use std::process::{Command, Stdio};
    let mut command = Command::new("/proc/self/exe");
    // A signal to the daemon's group, as from a terminal, is not for the resolver.
    command.arg0("rorqual").process_group(0);
    command.arg(super::service::ROLE).arg(run_dir).current_dir("/");
    command.stdin(Stdio::from(listener)).stdout(Stdio::null());
    command.spawn().map(Some)
}

/// The test program has no such role, so a thread of it plays the resolver.
#[cfg(test)]
fn launch(listener: OwnedFd, _run_dir: &Path) -> io::Result<Option<Child>> {
    std::thread::Builder::new()
        .name("resolver".to_owned())
        .spawn(move || super::service::serve(listener))?;
    Ok(None)
}

//! The shim: one per container, forked from the launcher, single-threaded around one epoll.
//!
//! Life: receive the launch, start init, answer, then pump streams and serve the daemon until init has ended and its
//! exit is written down. A daemon that dies is not missed: the next one connects to the socket in the shim's directory.
//! With the exit recorded and no daemon connected the shim ends; the record stays.

mod client;
mod daemon;
mod ending;
mod oom;
mod start;
mod streams;
mod token;

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime};

use rorqual_core::{ContainerId, ExecId, Timestamp};
use rorqual_sys::poll::{Interest, Poller, Ready, Signals, Timer};
use rorqual_sys::{fork, pty, seqpacket};

use self::daemon::DaemonLine;
use self::ending::Ending;
use self::oom::OomWatch;
use self::start::internal;
use self::streams::{CHUNK, Streams};
use self::token::Token;
use crate::log::sink::Sink;
use crate::record::{SOCKET, ShimDirectory, TaskRecord};
use crate::task::{Exit, WindowSize};
use crate::wire::{
    self, Answer, Call, ExecDocument, Failure, Kind, LaunchDocument, Message, Request, Running,
    Wanted,
};

/// LIMIT: exits of execs remembered for a daemon that was away.
const REMEMBERED: usize = 64;
/// LIMIT: execs at the same time; tokens have 16 bits for them.
const EXECS: usize = 1024;

/// LIMIT: how soon a slow log server is tried again.
const LOG_RETRY: Duration = Duration::from_millis(100);
/// LIMIT: how long an ended container's shim stays for a slow log server.
const LAST_LOG: Duration = Duration::from_secs(5);

/// A process with streams: init or an exec.
struct Child {
    id: Option<ExecId>,
    pid: i32,
    pidfd: OwnedFd,
    streams: Streams,
    /// Ended, but somebody else still holds its streams.
    ended: bool,
}

struct EndedExec {
    id: ExecId,
    pid: i32,
    exit: Exit,
}

struct Shim {
    poller: Poller,
    signals: Signals,
    timer: Timer,
    listener: OwnedFd,
    daemon: Option<DaemonLine>,
    directory: ShimDirectory,
    /// The launch document, which execs need again; kept outside of this process's memory.
    document: File,
    running: Running,
    /// Keeps the root's overlay alive until this process ends: its unmounting syncs the file system of the writable layer,
    /// which neither the exit nor the release may wait for.
    _rootfs: Option<OwnedFd>,
    oom: OomWatch,
    ending: Ending,
    ended_at: Option<Instant>,
    /// Slot 0 is init.
    children: Vec<Option<Child>>,
    ended_execs: VecDeque<EndedExec>,
    buffer: Box<[u8]>,
}

fn now() -> Timestamp {
    SystemTime::now().into()
}

/// Runs the shim's role in a process just forked; `connection` leads to the daemon, which sends the launch.
pub(crate) fn main(connection: OwnedFd, run_dir: &Path) -> ExitCode {
    match Shim::start(connection, run_dir) {
        Ok(Some(mut shim)) => match shim.run() {
            Ok(()) => ExitCode::SUCCESS,
            // The daemon sees the connection end and takes the container down.
            Err(_) => ExitCode::FAILURE,
        },
        // The failure was answered, or there is nobody to answer.
        Ok(None) | Err(_) => ExitCode::FAILURE,
    }
}

/// Becomes independent of launcher and daemon.
fn detach() -> io::Result<Signals> {
    rustix::process::setsid()?;
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    rustix::thread::set_name(c"rq-shim")?;
    let null = File::options().read(true).write(true).open("/dev/null")?;
    rustix::stdio::dup2_stderr(&null)?;
    Signals::block(&[libc::SIGCHLD])
}

impl Shim {
    /// Receives the launch and performs it; `None` when it failed and that was answered.
    fn start(connection: OwnedFd, run_dir: &Path) -> io::Result<Option<Self>> {
        let signals = detach()?;
        let Some(incoming) = wire::receive::<Call>(connection.as_fd())? else { return Ok(None) };
        let mut daemon = DaemonLine::new(connection)?;
        // Whoever asked can end this process whatever happens from here on.
        let own = rustix::process::pidfd_open(
            rustix::process::getpid(),
            rustix::process::PidfdFlags::empty(),
        )?;
        daemon.say(&Message::Born, Some(own));
        let Call { number, request: Request::Launch(document) } = incoming.body else {
            return Ok(None);
        };
        let Some(file) = incoming.document else { return Ok(None) };
        let place = claim_directory(run_dir, document.container);
        // ORDER: the directory first. A daemon that comes later finds it and ends what is in it; one that died before
        // would never be missed, and nobody would know of the container.
        if daemon.has_left() {
            if let Ok(place) = place {
                place.remove()?;
            }
            return Ok(None);
        }
        let descriptors = incoming.descriptors;
        let launched =
            place.and_then(|place| Self::launch(*document, file, descriptors, place, signals));
        // What parsing the document took is not needed again.
        fork::trim_heap();
        match launched {
            Ok(mut shim) => {
                let result = Ok(Answer::Running(shim.running.clone()));
                let pidfd = shim.init().map(|init| init.pidfd.try_clone()).transpose()?;
                daemon.say(&Message::Reply { number, result }, pidfd);
                shim.adopt_line(daemon)?;
                Ok(Some(shim))
            }
            Err(failure) => {
                daemon.say(&Message::Reply { number, result: Err(failure) }, None);
                Ok(None)
            }
        }
    }

    fn launch(
        mut document: LaunchDocument,
        file: File,
        mut descriptors: Vec<OwnedFd>,
        directory: ShimDirectory,
        signals: Signals,
    ) -> Result<Self, Failure> {
        let spare = directory.try_clone().map_err(internal)?;
        let wanted = std::mem::take(&mut document.attachments);
        let shim = if descriptors.len() == document.namespaces.len() + wanted.len() {
            let sockets = descriptors.split_off(document.namespaces.len());
            let clients = wanted.into_iter().zip(sockets).collect();
            Self::launch_in(directory, document, (file, signals), descriptors, clients)
        } else {
            Err(internal("descriptors were lost on their way"))
        };
        if shim.is_err() {
            let _ = spare.remove();
        }
        shim
    }

    fn launch_in(
        directory: ShimDirectory,
        document: LaunchDocument,
        (file, signals): (File, Signals),
        namespaces: Vec<OwnedFd>,
        clients: Vec<(Wanted, OwnedFd)>,
    ) -> Result<Self, Failure> {
        let task = document.task;
        let listener = seqpacket::listen(directory.fd(), SOCKET, 8).map_err(internal)?;
        let (poller, timer) = (Poller::new().map_err(internal)?, Timer::new().map_err(internal)?);
        for (fd, token) in [
            (signals.as_fd(), Token::Signals),
            (listener.as_fd(), Token::Listener),
            (timer.as_fd(), Token::Timer),
        ] {
            poller.add(fd, token.number(), Interest::READ).map_err(internal)?;
        }
        let log = Sink::open(&document.log)
            .map_err(|error| internal(format!("cannot open the container's log: {error}")))?;

        let (created, ends) = start::launch(document, &directory, namespaces)?;
        let running = Running {
            task,
            pid: created.pid,
            shim_pid: rustix::process::getpid().as_raw_nonzero().get(),
            started_at: now(),
            cgroup: created.cgroup,
            warnings: created.warnings,
            exit: None,
        };
        let finish = || -> io::Result<(Child, OomWatch)> {
            let mut streams = Streams::new(0, ends, Some(log))?;
            for (wanted, socket) in clients {
                streams.attach(socket, wanted)?;
            }
            directory.write_task(&TaskRecord {
                task,
                shim_pid: running.shim_pid,
                pid: running.pid,
                started_at: running.started_at,
                cgroup: running.cgroup.clone(),
            })?;
            let oom = OomWatch::start(&running.cgroup, &poller)?;
            let (pid, pidfd) = (created.pid, created.pidfd);
            Ok((Child { id: None, pid, pidfd, streams, ended: false }, oom))
        };
        let (init, oom) = finish().map_err(|error| {
            ending::abandon(running.pid, &running.cgroup);
            internal(error)
        })?;
        Ok(Self {
            poller,
            signals,
            timer,
            listener,
            daemon: None,
            directory,
            document: file,
            running,
            _rootfs: created.rootfs,
            oom,
            ending: Ending::NotYet,
            ended_at: None,
            children: vec![Some(init)],
            ended_execs: VecDeque::new(),
            buffer: vec![0; CHUNK].into_boxed_slice(),
        })
    }

    fn init(&self) -> Option<&Child> {
        self.children.first().and_then(Option::as_ref)
    }

    /// Takes a connection to a daemon in place of an earlier one.
    fn adopt_line(&mut self, line: DaemonLine) -> io::Result<()> {
        self.poller.add(line.as_fd(), Token::Daemon.number(), line.interest())?;
        self.daemon = Some(line);
        Ok(())
    }

    /// Serves until nothing is left to be done.
    fn run(&mut self) -> io::Result<()> {
        let mut ready = Vec::with_capacity(32);
        self.settle()?;
        while !self.is_through() {
            let log_waits = self.children[0].as_mut().is_some_and(|init| init.streams.retry_log());
            self.poller.wait(&mut ready, log_waits.then_some(LOG_RETRY))?;
            for event in &ready {
                match Token::from_number(event.token) {
                    Some(Token::Signals) => self.on_signal()?,
                    Some(Token::Listener) => self.on_listener()?,
                    Some(Token::Daemon) => self.on_daemon(*event),
                    Some(Token::Timer) => self.on_timer()?,
                    Some(Token::Memory) => self.oom.on_ready()?,
                    Some(Token::Stream(slot, place)) => {
                        if let Some(Some(child)) = self.children.get_mut(usize::from(slot)) {
                            child.streams.on_ready(place, *event, &mut self.buffer);
                        }
                    }
                    None => {}
                }
            }
            self.settle()?;
        }
        Ok(())
    }

    /// Brings epoll in line with the state, and lets go what is through.
    fn settle(&mut self) -> io::Result<()> {
        let mut lost = None;
        for slot in &mut self.children {
            let Some(child) = slot else { continue };
            child.streams.settle(&self.poller, &mut self.buffer)?;
            lost = lost.or_else(|| child.streams.take_lost());
            if child.ended && child.id.is_some() && child.streams.is_idle() {
                *slot = None;
            }
        }
        if let (Some((lines, cause)), Some(daemon)) = (lost, &mut self.daemon) {
            daemon.say(&Message::LogLost { lines, cause }, None);
        }
        self.advance_ending()?;
        if let Some(daemon) = &mut self.daemon {
            if daemon.is_broken() {
                self.poller.remove(daemon.as_fd())?;
                self.daemon = None;
            } else {
                daemon.register(&self.poller)?;
            }
        }
        Ok(())
    }

    /// Tells whether the shim has no more use.
    fn is_through(&self) -> bool {
        let log_time = self.ended_at.is_some_and(|at| at.elapsed() < LAST_LOG);
        let waiting = || {
            self.children.iter().flatten().any(|child| {
                child.streams.has_waiting_clients() || (log_time && child.streams.log_waits())
            })
        };
        match self.ending {
            Ending::NotYet | Ending::Draining { .. } => false,
            Ending::Recorded => self.daemon.is_none() && !waiting(),
            Ending::Released => !waiting() && self.daemon.as_ref().is_none_or(DaemonLine::is_idle),
        }
    }

    fn on_listener(&mut self) -> io::Result<()> {
        match seqpacket::accept(self.listener.as_fd()) {
            Ok(connection) => {
                if let Some(before) = self.daemon.take() {
                    self.poller.remove(before.as_fd())?;
                }
                self.adopt_line(DaemonLine::new(connection)?)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            // Out of descriptors, or the peer has gone again: the daemon will try again.
            Err(_) => Ok(()),
        }
    }

    fn on_daemon(&mut self, ready: Ready) {
        let Some(daemon) = &mut self.daemon else { return };
        if ready.writable {
            daemon.flush();
        }
        if !ready.readable {
            return;
        }
        let Some(incoming) = daemon.receive() else { return };
        let Call { number, request } = incoming.body;
        let (result, descriptor) = match self.answer(request, incoming.descriptors) {
            Ok((answer, descriptor)) => (Ok(answer), descriptor),
            Err(failure) => (Err(failure), None),
        };
        if let Some(daemon) = &mut self.daemon {
            daemon.say(&Message::Reply { number, result }, descriptor);
        }
    }

    fn answer(
        &mut self,
        request: Request,
        descriptors: Vec<OwnedFd>,
    ) -> Result<(Answer, Option<OwnedFd>), Failure> {
        match request {
            Request::Launch(_) => Err(Failure::refused("runs already", Kind::Conflict)),
            Request::Hello => {
                let pidfd = self.init().map(|init| init.pidfd.try_clone()).transpose();
                Ok((Answer::Running(self.running.clone()), pidfd.map_err(internal)?))
            }
            Request::Attach(wants) => {
                let socket = descriptors.into_iter().next().ok_or_else(|| internal("no socket"))?;
                self.attach(wants, socket)
            }
            Request::Resize { exec, window } => self.resize(exec, window),
            Request::Exec(document) => self.exec(*document, descriptors.into_iter().next()),
            Request::FindExec(id) => self.find_exec(id),
            Request::Release => self.release(),
        }
    }

    fn attach(
        &mut self,
        wants: Wanted,
        socket: OwnedFd,
    ) -> Result<(Answer, Option<OwnedFd>), Failure> {
        let running = matches!(self.ending, Ending::NotYet);
        let init = self.children.first_mut().and_then(Option::as_mut).filter(|_| running);
        init.ok_or(Failure::Ended)?.streams.attach(socket, wants).map_err(internal)?;
        Ok((Answer::Done, None))
    }

    fn resize(
        &mut self,
        exec: Option<ExecId>,
        window: WindowSize,
    ) -> Result<(Answer, Option<OwnedFd>), Failure> {
        let child = self.children.iter().flatten().find(|c| c.id == exec && !c.ended);
        let child =
            child.ok_or(if exec.is_some() { Failure::NoSuchExec } else { Failure::Ended })?;
        // COMPAT: resizing what has no terminal is accepted.
        if let Some(terminal) = child.streams.terminal() {
            pty::set_size(terminal.as_fd(), (window.width, window.height)).map_err(internal)?;
        }
        Ok((Answer::Done, None))
    }

    fn exec(
        &mut self,
        document: ExecDocument,
        socket: Option<OwnedFd>,
    ) -> Result<(Answer, Option<OwnedFd>), Failure> {
        if !matches!(self.ending, Ending::NotYet) {
            return Err(Failure::Ended);
        }
        let (id, wanted) = (document.id, document.attachment);
        let slot = self.free_slot()?;
        let init = self.init().ok_or(Failure::Ended)?;
        let target = (init.pid, init.pidfd.try_clone().map_err(internal)?);
        let spec = start::spec_of(&self.document).map_err(internal)?;
        let cgroup = self.running.cgroup.clone();
        let (executed, ends) = start::exec(document, spec, &self.directory, cgroup, target)?;
        let pid = executed.pid;
        let finish = || -> io::Result<(Child, OwnedFd)> {
            let mut streams = Streams::new(slot, ends, None)?;
            match (wanted, socket) {
                (Some(wanted), Some(socket)) => streams.attach(socket, wanted)?,
                _ => streams.turn_deaf(),
            }
            let copy = executed.pidfd.try_clone()?;
            Ok((Child { id: Some(id), pid, pidfd: executed.pidfd, streams, ended: false }, copy))
        };
        let (child, pidfd) = finish().map_err(|error| {
            ending::kill(pid);
            internal(error)
        })?;
        let slot = usize::from(slot);
        if slot == self.children.len() {
            self.children.push(None);
        }
        self.children[slot] = Some(child);
        fork::trim_heap();
        Ok((Answer::Exec { pid, exit: None }, Some(pidfd)))
    }

    fn free_slot(&self) -> Result<u16, Failure> {
        let free = self.children.iter().skip(1).position(Option::is_none);
        let slot = free.map_or(self.children.len(), |at| at + 1);
        if slot > EXECS {
            return Err(Failure::refused("too many execs run in this container", Kind::Conflict));
        }
        Ok(slot as u16)
    }

    fn find_exec(&self, id: ExecId) -> Result<(Answer, Option<OwnedFd>), Failure> {
        if let Some(ended) = self.ended_execs.iter().find(|ended| ended.id == id) {
            return Ok((Answer::Exec { pid: ended.pid, exit: Some(ended.exit) }, None));
        }
        let child = self.children.iter().flatten().find(|child| child.id == Some(id));
        let child = child.ok_or(Failure::NoSuchExec)?;
        let pidfd = child.pidfd.try_clone().map_err(internal)?;
        Ok((Answer::Exec { pid: child.pid, exit: None }, Some(pidfd)))
    }

    fn release(&mut self) -> Result<(Answer, Option<OwnedFd>), Failure> {
        if matches!(self.ending, Ending::NotYet | Ending::Draining { .. }) {
            return Err(Failure::refused("the task still runs", Kind::Conflict));
        }
        self.directory.remove().map_err(internal)?;
        self.ending = Ending::Released;
        Ok((Answer::Done, None))
    }
}

/// Makes the shim's directory, in place of what an earlier run left behind.
fn claim_directory(run_dir: &Path, container: ContainerId) -> Result<ShimDirectory, Failure> {
    match ShimDirectory::create(run_dir, container) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        other => return other.map_err(internal),
    }
    if let Some(left) = ShimDirectory::open(run_dir, container).map_err(internal)? {
        if seqpacket::connect(left.fd(), SOCKET).is_ok() {
            return Err(Failure::refused("the container has a task already", Kind::Conflict));
        }
        left.remove().map_err(internal)?;
    }
    ShimDirectory::create(run_dir, container).map_err(internal)
}

//! The daemon's connection to one shim: numbered requests, answers, and the ends of processes as they are told.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rorqual_core::ExecId;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{oneshot, watch};

use crate::Error;
use crate::task::Exit;
use crate::wire::{self, Answer, Call, Message, Outgoing, Request};

/// LIMIT: how long a shim may take for an answer; starting a program takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(30);

/// LIMIT: how long forking a shim may take.
const BIRTH: Duration = Duration::from_secs(10);

/// How a task or exec came to its end, as far as the connection knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// It runs.
    NotYet,
    /// The shim told it.
    Told(Exit),
    /// The connection ended first.
    Lost,
}

/// What a successful request brought.
pub(crate) struct Answered {
    pub(crate) answer: Answer,
    pub(crate) descriptor: Option<OwnedFd>,
}

type Waiting = HashMap<u32, oneshot::Sender<Result<Answered, Error>>>;

/// A connection; the requests' side. It ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Connection {
    requests: Requests,
    reader: tokio::task::AbortHandle,
}

/// The asking half of a connection.
#[derive(Clone, Debug)]
pub(crate) struct Requests {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    socket: AsyncFd<OwnedFd>,
    next: AtomicU32,
    waiting: Mutex<Waiting>,
    execs: Mutex<HashMap<ExecId, watch::Sender<End>>>,
    end: watch::Sender<End>,
    born: Mutex<Birth>,
    birth: Condvar,
}

/// Whether there is a shim at the other end of a new connection.
#[derive(Debug)]
enum Birth {
    Awaited,
    /// With its own pidfd.
    Born(OwnedFd),
    /// Nobody came, or nobody asks any more.
    Over,
}

impl std::fmt::Debug for Answered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.answer)
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn unreachable(source: impl Into<rorqual_core::BoxError>) -> Error {
    Error::Unreachable { who: "shim", source: source.into() }
}

/// Makes a descriptor awaitable.
#[expect(
    deprecated,
    reason = "sound for an `OwnedFd`, which keeps its descriptor until it is dropped"
)]
pub(crate) fn watched(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::new(fd)
}

impl Connection {
    /// Takes over a connected socket.
    pub(crate) fn new(socket: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&socket, true)?;
        let shared = Arc::new(Shared {
            socket: watched(socket)?,
            next: AtomicU32::new(1),
            waiting: Mutex::default(),
            execs: Mutex::default(),
            end: watch::Sender::new(End::NotYet),
            born: Mutex::new(Birth::Awaited),
            birth: Condvar::new(),
        });
        let reader = tokio::spawn(read(Arc::clone(&shared))).abort_handle();
        Ok(Self { requests: Requests { shared }, reader })
    }

    /// Returns a handle to ask through, which does not keep the connection open.
    pub(crate) fn requests(&self) -> Requests {
        self.requests.clone()
    }

    /// Asks and waits for the answer, see [`Requests::ask`].
    pub(crate) async fn ask(
        &self,
        request: Request,
        descriptors: Vec<OwnedFd>,
    ) -> Result<Answered, Error> {
        self.requests.ask(request, descriptors).await
    }

    /// Waits for the end of the task, told or lost.
    pub(crate) async fn end(&self) -> End {
        wait_for_end(self.requests.shared.end.subscribe()).await
    }

    /// Tells what is known of the end at present.
    pub(crate) fn end_now(&self) -> End {
        *self.requests.shared.end.borrow()
    }

    /// Returns the asking half.
    pub(crate) fn requests_ref(&self) -> &Requests {
        &self.requests
    }

    /// Takes the new shim's own pidfd; `None` when no shim came of this connection. Blocks until that is known.
    pub(crate) fn take_shim(&self) -> Option<OwnedFd> {
        let shared = &self.requests.shared;
        let born = locked(&shared.born);
        let waited = shared
            .birth
            .wait_timeout_while(born, BIRTH, |born| matches!(born, Birth::Awaited))
            .unwrap_or_else(PoisonError::into_inner);
        let (mut born, _) = waited;
        match std::mem::replace(&mut *born, Birth::Over) {
            Birth::Born(shim) => Some(shim),
            Birth::Awaited | Birth::Over => None,
        }
    }

    /// Lets go of the shim's pidfd; it is not needed once the shim has answered.
    pub(crate) fn forget_shim(&self) {
        *locked(&self.requests.shared.born) = Birth::Over;
    }

    /// Tells whether a shim said its first words here.
    pub(crate) fn had_shim(&self) -> bool {
        matches!(*locked(&self.requests.shared.born), Birth::Born(_))
    }

    /// Notes an end that an answer told.
    pub(crate) fn note_end(&self, exit: Exit) {
        self.requests.shared.end.send_replace(End::Told(exit));
    }

    /// Returns where the end of an exec will be told; call it before the exec starts.
    pub(crate) fn watch_exec(&self, id: ExecId) -> watch::Receiver<End> {
        let mut execs = locked(&self.requests.shared.execs);
        let sender = execs.entry(id).or_insert_with(|| watch::Sender::new(End::NotYet));
        let receiver = sender.subscribe();
        if matches!(self.end_now(), End::Lost) {
            sender.send_replace(End::Lost);
        }
        receiver
    }

    /// Forgets an exec that did not start.
    pub(crate) fn unwatch_exec(&self, id: ExecId) {
        locked(&self.requests.shared.execs).remove(&id);
    }
}

impl Requests {
    /// Asks and waits for the answer, for a limited time.
    ///
    /// # Cancellation
    ///
    /// The request may have been carried out or not.
    pub(crate) async fn ask(
        &self,
        request: Request,
        descriptors: Vec<OwnedFd>,
    ) -> Result<Answered, Error> {
        let number = self.shared.next.fetch_add(1, Ordering::Relaxed);
        let packet = Outgoing::new(&Call { number, request }).map_err(unreachable)?;
        self.exchange(number, &packet, &descriptors).await
    }

    /// Sends a request that is written already and waits for its answer, for a limited time.
    pub(crate) async fn exchange(
        &self,
        number: u32,
        packet: &Outgoing,
        descriptors: &[OwnedFd],
    ) -> Result<Answered, Error> {
        let (sender, receiver) = oneshot::channel();
        locked(&self.shared.waiting).insert(number, sender);
        let waiting = Forget { shared: &self.shared, number };
        let answered = tokio::time::timeout(PATIENCE, async {
            let socket = &self.shared.socket;
            socket
                .async_io(Interest::WRITABLE, |fd| packet.send(fd.as_fd(), descriptors))
                .await
                .map_err(unreachable)?;
            receiver.await.map_err(|_| unreachable("the connection ended"))?
        })
        .await;
        drop(waiting);
        answered.map_err(|_| unreachable("no answer in time"))?
    }
}

/// Waits until it is no longer [`End::NotYet`].
pub(crate) async fn wait_for_end(mut end: watch::Receiver<End>) -> End {
    match end.wait_for(|end| *end != End::NotYet).await {
        Ok(end) => *end,
        Err(_) => End::Lost,
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

/// Takes a request off the list when its asker leaves.
struct Forget<'s> {
    shared: &'s Shared,
    number: u32,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        locked(&self.shared.waiting).remove(&self.number);
    }
}

async fn read(shared: Arc<Shared>) {
    loop {
        let received = shared
            .socket
            .async_io(Interest::READABLE, |fd| wire::receive::<Message>(fd.as_fd()))
            .await;
        match received {
            Ok(Some(incoming)) => shared.take(incoming),
            Ok(None) => break,
            // It was closed with something of ours unread.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => break,
            Err(error) => {
                tracing::warn!(%error, "a shim's message makes no sense");
                break;
            }
        }
    }
    shared.end.send_if_modified(|end| {
        let lost = *end == End::NotYet;
        if lost {
            *end = End::Lost;
        }
        lost
    });
    {
        let mut born = locked(&shared.born);
        if matches!(*born, Birth::Awaited) {
            *born = Birth::Over;
        }
    }
    shared.birth.notify_all();
    locked(&shared.waiting).clear();
    for (_, exec) in locked(&shared.execs).drain() {
        exec.send_replace(End::Lost);
    }
}

impl Shared {
    fn take(&self, incoming: wire::Incoming<Message>) {
        match incoming.body {
            Message::Reply { number, result } => {
                let waiting = locked(&self.waiting).remove(&number);
                let descriptor = incoming.descriptors.into_iter().next();
                if let Some(waiting) = waiting {
                    let result =
                        result.map(|answer| Answered { answer, descriptor }).map_err(Error::from);
                    // Whoever asked may have gone.
                    let _ = waiting.send(result);
                }
            }
            Message::Born => {
                if let Some(shim) = incoming.descriptors.into_iter().next() {
                    *locked(&self.born) = Birth::Born(shim);
                    self.birth.notify_all();
                }
            }
            Message::Exited(exit) => {
                self.end.send_replace(End::Told(exit));
            }
            Message::ExecExited { id, exit } => {
                if let Some(exec) = locked(&self.execs).remove(&id) {
                    exec.send_replace(End::Told(exit));
                }
            }
            Message::LogLost { lines, cause } => {
                tracing::warn!(lines, cause, "output could not be logged");
            }
        }
    }
}

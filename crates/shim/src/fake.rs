//! Tasks in memory, for tests of those who use [`Tasks`]: no process is ever started.
//!
//! A few programs are understood by their name (`true`, `false`, `echo`, `cat`, `sh -c "exit N"`, `nosuchprogram`);
//! every other program runs until a signal or [`FakeTasks::end`] ends it. One `FakeTasks` outlives the engines that
//! use it, as real shims do: a test restarts "the daemon" by building a new engine over the same value.

mod exec;
mod program;

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use async_trait::async_trait;
use oci_spec::runtime::{LinuxResources, Spec};
use rorqual_core::{ContainerId, ErrorKind, ExecId, Signal, Timestamp};
use tokio::sync::{Notify, watch};

pub use self::exec::FakeExec;
pub use self::program::Program;
use self::program::known_program;
use crate::Error;
use crate::log::{LogStream, LogTarget};
use crate::task::{
    Adoption, Attachment, Exec, ExecLaunch, Exit, KillReach, Launch, ProcessTable, Stats, Task,
    TaskId, Tasks, WindowSize,
};

/// What was asked of the fake about one launch.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Whose task.
    pub container: ContainerId,
    /// Which run.
    pub task: TaskId,
    /// The specification.
    pub spec: Spec,
    /// The user to look up.
    pub user: String,
    /// Where the log goes.
    pub log: LogTarget,
    /// Kinds of the namespaces given by descriptor.
    pub namespaces: Vec<&'static str>,
    /// First size of the terminal.
    pub window: WindowSize,
}

/// What was done to a running container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deed {
    /// A signal was sent.
    Signal(Signal, KillReach),
    /// Processes were frozen.
    Pause,
    /// Processes were thawed.
    Unpause,
    /// The terminal got a size.
    Resize(WindowSize),
    /// Limits were changed.
    Update(Box<LinuxResources>),
}

type Script = Box<dyn Fn(&Seen) -> Program + Send>;

#[derive(Default)]
struct Inner {
    running: HashMap<ContainerId, Arc<FakeTask>>,
    records: HashMap<ContainerId, (TaskId, Exit)>,
    seen: Vec<Seen>,
    failure: Option<Error>,
    script: Option<Script>,
}

/// Tasks in memory.
#[derive(Default)]
pub struct FakeTasks {
    inner: Arc<Mutex<Inner>>,
}

impl FakeTasks {
    /// Makes an empty world.
    pub fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets `script` decide what every further launch does.
    pub fn on_launch(&self, script: impl Fn(&Seen) -> Program + Send + 'static) {
        self.inner().script = Some(Box::new(script));
    }

    /// Lets the next launch fail.
    pub fn fail_next_launch(&self, failure: Error) {
        self.inner().failure = Some(failure);
    }

    /// Returns all launches that were asked for, the failed ones included.
    pub fn launches(&self) -> Vec<Seen> {
        self.inner().seen.clone()
    }

    /// Finds the running task of a container.
    pub fn running(&self, container: ContainerId) -> Option<Arc<FakeTask>> {
        self.inner().running.get(&container).cloned()
    }

    /// Tells whether an exit record waits to be released or forgotten.
    pub fn has_record(&self, container: ContainerId) -> bool {
        self.inner().records.contains_key(&container)
    }

    /// Ends a container's task; nothing happens when it does not run.
    pub fn end(&self, container: ContainerId, code: i32) {
        if let Some(task) = self.running(container) {
            task.end(Exit { code, oom_killed: false, at: now(), witnessed: true });
        }
    }

    /// Ends a container's task as the out-of-memory killer does.
    pub fn kill_for_memory(&self, container: ContainerId) {
        if let Some(task) = self.running(container) {
            task.oom.notify_waiters();
            task.end(Exit { code: 137, oom_killed: true, at: now(), witnessed: true });
        }
    }

    /// Forgets everything, as a reboot does.
    pub fn reboot(&self) {
        let mut inner = self.inner();
        inner.running.clear();
        inner.records.clear();
    }
}

fn now() -> Timestamp {
    SystemTime::now().into()
}

fn next_pid() -> i32 {
    static NEXT: AtomicI32 = AtomicI32::new(100_000);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// What a task and an exec have in common.
struct Process {
    pid: i32,
    terminal: bool,
    stubborn: bool,
    exit: watch::Sender<Option<Exit>>,
    clients: Mutex<Vec<Attachment>>,
    deeds: Mutex<Vec<Deed>>,
}

impl Process {
    fn new(program: &Program, terminal: bool) -> Self {
        Self {
            pid: next_pid(),
            terminal,
            stubborn: program.stubborn,
            exit: watch::Sender::new(None),
            clients: Mutex::default(),
            deeds: Mutex::default(),
        }
    }

    fn clients(&self) -> MutexGuard<'_, Vec<Attachment>> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, deed: Deed) -> Result<(), Error> {
        if self.exit.borrow().is_some() {
            return Err(Error::Ended);
        }
        self.deeds.lock().unwrap_or_else(PoisonError::into_inner).push(deed);
        Ok(())
    }

    fn say(&self, stream: LogStream, bytes: &[u8]) {
        self.clients().retain_mut(|client| {
            let wanted = match stream {
                LogStream::Stdout => client.stdout,
                LogStream::Stderr => client.stderr,
            };
            !wanted || write_framed(&mut client.socket, stream, bytes, self.terminal).is_ok()
        });
    }

    /// Returns whether this call ended it.
    fn end(&self, exit: Exit) -> bool {
        let first = self.exit.send_if_modified(|now| {
            let first = now.is_none();
            if first {
                *now = Some(exit);
            }
            first
        });
        for client in self.clients().drain(..) {
            let _ = client.socket.shutdown(Shutdown::Both);
        }
        first
    }

    async fn exit(&self) -> Exit {
        let mut ended = self.exit.subscribe();
        match ended.wait_for(Option::is_some).await.map(|exit| *exit) {
            Ok(Some(exit)) => exit,
            _ => Exit { code: 137, oom_killed: false, at: now(), witnessed: false },
        }
    }

    fn ended_by(&self, signal: Signal) -> Option<Exit> {
        // Signals that a program without a handler survives: CHLD, CONT, STOP, TSTP, TTIN, TTOU, URG, WINCH.
        let deadly = !matches!(signal.number(), 17..=23 | 28);
        let ends = signal == Signal::KILL || (deadly && !self.stubborn);
        let exit =
            Exit { code: 128 + signal.number(), oom_killed: false, at: now(), witnessed: true };
        ends.then_some(exit)
    }
}

fn write_framed(
    socket: &mut UnixStream,
    stream: LogStream,
    bytes: &[u8],
    raw: bool,
) -> std::io::Result<()> {
    if !raw {
        let mut header = [if stream == LogStream::Stdout { 1 } else { 2 }, 0, 0, 0, 0, 0, 0, 0];
        header[4..].copy_from_slice(&(bytes.len() as u32).to_be_bytes());
        socket.write_all(&header)?;
    }
    socket.write_all(bytes)
}

/// A container that pretends to run.
pub struct FakeTask {
    container: ContainerId,
    id: TaskId,
    started: Timestamp,
    process: Arc<Process>,
    oom: Notify,
    execs: Mutex<HashMap<ExecId, Arc<FakeExec>>>,
    world: Arc<Mutex<Inner>>,
}

impl FakeTask {
    /// Writes to the attached clients.
    pub fn say(&self, stream: LogStream, text: impl AsRef<[u8]>) {
        self.process.say(stream, text.as_ref());
    }

    /// Returns what was done to it, in order.
    pub fn deeds(&self) -> Vec<Deed> {
        self.process.deeds.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns the number of attached clients.
    pub fn attached(&self) -> usize {
        self.process.clients().len()
    }

    /// Ends it.
    pub fn end(&self, exit: Exit) {
        {
            let mut world = self.world.lock().unwrap_or_else(PoisonError::into_inner);
            if world.running.get(&self.container).is_some_and(|task| task.id == self.id) {
                world.running.remove(&self.container);
                world.records.insert(self.container, (self.id, exit));
            }
        }
        let execs: Vec<_> =
            self.execs.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
        for exec in execs {
            exec.process.end(Exit { code: 137, ..exit });
        }
        self.process.end(exit);
    }

    /// Ends an exec.
    pub fn end_exec(&self, id: ExecId, code: i32) {
        let exec = self.execs.lock().unwrap_or_else(PoisonError::into_inner).get(&id).cloned();
        if let Some(exec) = exec {
            exec.process.end(Exit { code, oom_killed: false, at: now(), witnessed: true });
        }
    }
}

/// Lets the program do what it does of itself; `end` is called when that ends it.
fn perform(
    program: &Program,
    process: &Arc<Process>,
    first: Vec<Attachment>,
    end: impl FnOnce(Exit) + Send + 'static,
) {
    let input = first.iter().find(|client| client.stdin).and_then(|c| c.socket.try_clone().ok());
    for client in &first {
        let _ = client.socket.set_nonblocking(false);
    }
    process.clients().extend(first);
    for (stream, bytes) in &program.output {
        process.say(*stream, bytes);
    }
    let exit = |code| Exit { code, oom_killed: false, at: now(), witnessed: true };
    if let Some(code) = program.ends {
        end(exit(code));
    } else if let (true, Some(mut input)) = (program.echoes, input) {
        let process = Arc::clone(process);
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = input.read(&mut buffer) {
                process.say(LogStream::Stdout, &buffer[..count]);
            }
            end(exit(0));
        });
    }
}

#[async_trait]
impl Tasks for FakeTasks {
    async fn launch(&self, launch: Launch) -> Result<Arc<dyn Task>, Error> {
        let seen = Seen {
            container: launch.container,
            task: launch.task,
            user: launch.user,
            log: launch.log,
            namespaces: launch.namespaces.iter().map(|namespace| namespace.kind).collect(),
            window: launch.window,
            spec: launch.spec,
        };
        let process = seen.spec.process().as_ref();
        let args = process.and_then(|process| process.args().clone()).unwrap_or_default();
        let terminal = process.and_then(oci_spec::runtime::Process::terminal).unwrap_or(false);
        let (task, program) = {
            let mut inner = self.inner();
            inner.seen.push(seen.clone());
            if let Some(failure) = inner.failure.take() {
                return Err(failure);
            }
            if inner.running.contains_key(&seen.container) {
                let message = "the container has a task already".to_owned();
                return Err(Error::Refused { message, kind: ErrorKind::Conflict });
            }
            let program = match &inner.script {
                Some(script) => script(&seen),
                None => known_program(&args)?,
            };
            let task = Arc::new(FakeTask {
                container: seen.container,
                id: seen.task,
                started: now(),
                process: Arc::new(Process::new(&program, terminal)),
                oom: Notify::new(),
                execs: Mutex::default(),
                world: Arc::clone(&self.inner),
            });
            inner.records.remove(&seen.container);
            inner.running.insert(seen.container, Arc::clone(&task));
            (task, program)
        };
        let ending = Arc::clone(&task);
        perform(&program, &task.process, launch.attachments, move |exit| ending.end(exit));
        Ok(task)
    }

    async fn adopt(&self, container: ContainerId) -> Result<Adoption, Error> {
        let inner = self.inner();
        Ok(match (inner.running.get(&container), inner.records.get(&container)) {
            (Some(task), _) => Adoption::Running(Arc::clone(task) as Arc<dyn Task>),
            (None, Some((task, exit))) => Adoption::Ended(*task, *exit),
            (None, None) => Adoption::Unknown,
        })
    }

    async fn put_down(&self, container: ContainerId, _init: Option<i32>) -> Result<(), Error> {
        let running = self.inner().running.get(&container).cloned();
        if let Some(task) = running {
            task.end(Exit { code: 137, oom_killed: false, at: now(), witnessed: false });
        }
        Ok(())
    }

    async fn forget(&self, container: ContainerId) -> Result<(), Error> {
        self.inner().records.remove(&container);
        Ok(())
    }

    async fn sweep(&self, known: &[ContainerId]) -> Result<Vec<ContainerId>, Error> {
        let mut swept = Vec::new();
        let inner = &mut *self.inner();
        inner.records.retain(|container, _| known.contains(container));
        inner.running.retain(|container, _| {
            let keep = known.contains(container);
            if !keep {
                swept.push(*container);
            }
            keep
        });
        Ok(swept)
    }
}

#[async_trait]
impl Task for FakeTask {
    fn id(&self) -> TaskId {
        self.id
    }

    fn pid(&self) -> i32 {
        self.process.pid
    }

    fn started_at(&self) -> Timestamp {
        self.started
    }

    fn warnings(&self) -> Vec<String> {
        Vec::new()
    }

    async fn exit(&self) -> Exit {
        self.process.exit().await
    }

    async fn out_of_memory(&self) {
        self.oom.notified().await;
    }

    async fn release(&self) -> Result<(), Error> {
        let mut world = self.world.lock().unwrap_or_else(PoisonError::into_inner);
        if world.records.get(&self.container).is_some_and(|(task, _)| *task == self.id) {
            world.records.remove(&self.container);
        }
        Ok(())
    }

    async fn signal(&self, signal: Signal, reach: KillReach) -> Result<(), Error> {
        self.process.note(Deed::Signal(signal, reach))?;
        if let Some(exit) = self.process.ended_by(signal) {
            self.end(exit);
        }
        Ok(())
    }

    async fn pause(&self) -> Result<(), Error> {
        self.process.note(Deed::Pause)
    }

    async fn unpause(&self) -> Result<(), Error> {
        self.process.note(Deed::Unpause)
    }

    async fn resize(&self, window: WindowSize) -> Result<(), Error> {
        self.process.note(Deed::Resize(window))
    }

    async fn attach(&self, attachment: Attachment) -> Result<(), Error> {
        if self.process.exit.borrow().is_some() {
            return Err(Error::Ended);
        }
        let _ = attachment.socket.set_nonblocking(false);
        self.process.clients().push(attachment);
        Ok(())
    }

    async fn update(&self, resources: LinuxResources) -> Result<(), Error> {
        self.process.note(Deed::Update(Box::new(resources)))
    }

    async fn stats(&self) -> Result<Stats, Error> {
        static TICKS: AtomicU64 = AtomicU64::new(1);
        let used = TICKS.fetch_add(1, Ordering::Relaxed) * 1_000_000;
        Ok(Stats { cpu: [used, used, 0], pids: (1, None), ..Stats::default() })
    }

    async fn processes(&self, _ps_args: &str) -> Result<ProcessTable, Error> {
        let titles = ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"];
        let pid = self.process.pid.to_string();
        let row = ["root", &pid, "1", "0", "00:00", "?", "00:00:00", "fake"];
        let owned = |words: [&str; 8]| words.map(str::to_owned).to_vec();
        Ok(ProcessTable { titles: owned(titles), rows: vec![owned(row)] })
    }

    async fn exec(&self, launch: ExecLaunch) -> Result<Arc<dyn Exec>, Error> {
        if self.process.exit.borrow().is_some() {
            return Err(Error::Ended);
        }
        let program = known_program(launch.process.args().as_deref().unwrap_or_default())?;
        let terminal = launch.process.terminal().unwrap_or(false);
        let exec = Arc::new(FakeExec { process: Arc::new(Process::new(&program, terminal)) });
        self.execs
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(launch.id, Arc::clone(&exec));
        let ending = Arc::clone(&exec.process);
        perform(&program, &exec.process, launch.attachment.into_iter().collect(), move |exit| {
            ending.end(exit);
        });
        Ok(exec)
    }

    async fn find_exec(&self, id: ExecId) -> Result<Arc<dyn Exec>, Error> {
        let execs = self.execs.lock().unwrap_or_else(PoisonError::into_inner);
        execs.get(&id).map(|exec| Arc::clone(exec) as Arc<dyn Exec>).ok_or(Error::NoSuchExec)
    }
}

#[cfg(test)]
mod tests;

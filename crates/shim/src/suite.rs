//! What every implementation of [`Tasks`] owes its callers, as functions that fail loudly.
//!
//! The fake and the real one pass the same obligations; the caller says how to make a launch.
#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::missing_panics_doc,
    reason = "obligations are tests, and tests fail by panicking"
)]

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use rorqual_core::{ContainerId, Signal};

use crate::Error;
use crate::log::LogStream;
use crate::task::{Adoption, Attachment, Exit, KillReach, Launch, Task, Tasks};

/// LIMIT: nothing here takes longer on a machine that works.
const PATIENCE: Duration = Duration::from_secs(20);

/// Makes launches of `busybox`-like programs; each call is a new container.
pub type Launches = Arc<dyn Fn(&[&str]) -> Launch + Send + Sync>;

/// The near end of an attachment.
#[derive(Debug)]
pub struct Near(pub UnixStream);

/// Makes an attachment that wants output, and with `stdin` also gives input.
pub fn attachment(stdin: bool) -> (Near, Attachment) {
    let (near, far) = UnixStream::pair().expect("a socket pair");
    near.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    (Near(near), Attachment { socket: far, stdin, stdout: true, stderr: true })
}

impl Near {
    /// Reads everything to the end.
    pub async fn read_raw(self) -> Vec<u8> {
        let read = move || {
            let mut bytes = Vec::new();
            let mut socket = self.0;
            socket.read_to_end(&mut bytes).expect("output until its end");
            bytes
        };
        tokio::task::spawn_blocking(read).await.expect("a reading thread")
    }

    /// Reads framed output to the end; returns standard output and standard error.
    pub async fn read_framed(self) -> (Vec<u8>, Vec<u8>) {
        let bytes = self.read_raw().await;
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let mut rest = &bytes[..];
        while let [stream, 0, 0, 0, a, b, c, d, tail @ ..] = rest {
            let length = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
            let (content, tail) = tail.split_at(length);
            if *stream == 1 { &mut out } else { &mut err }.extend_from_slice(content);
            rest = tail;
        }
        assert!(rest.is_empty(), "a frame was torn: {rest:?}");
        (out, err)
    }
}

/// Waits for the exit, for a limited time.
pub async fn exit_of(task: &Arc<dyn Task>) -> Exit {
    tokio::time::timeout(PATIENCE, task.exit()).await.expect("the task ends in time")
}

/// Runs all obligations.
pub async fn run(tasks: Arc<dyn Tasks>, launches: Launches) {
    exit_codes_are_told(&tasks, &launches).await;
    an_exit_can_be_asked_for_again(&tasks, &launches).await;
    a_client_attached_before_the_start_gets_every_byte(&tasks, &launches).await;
    closing_input_ends_a_reader(&tasks, &launches).await;
    a_missing_program_is_127(&tasks, &launches).await;
    signals_end_and_are_told(&tasks, &launches).await;
    an_ended_task_is_adopted_as_ended(&tasks, &launches).await;
    a_running_task_is_adopted(&tasks, &launches).await;
    sweeping_ends_what_is_not_known(&tasks, &launches).await;
    a_released_task_is_forgotten(&tasks, &launches).await;
}

async fn launch(tasks: &Arc<dyn Tasks>, launch: Launch) -> (ContainerId, Arc<dyn Task>) {
    let container = launch.container;
    let task = tasks.launch(launch).await.unwrap_or_else(|error| {
        panic!("a launch failed: {}", rorqual_core::full_message(&error));
    });
    (container, task)
}

async fn exit_codes_are_told(tasks: &Arc<dyn Tasks>, launches: &Launches) {
    for (program, code) in [(&["true"][..], 0), (&["false"], 1), (&["sh", "-c", "exit 42"], 42)] {
        let (_, task) = launch(tasks, launches(program)).await;
        let exit = exit_of(&task).await;
        assert_eq!((exit.code, exit.witnessed), (code, true), "{program:?}");
        task.release().await.expect("release");
    }
}

async fn an_exit_can_be_asked_for_again(tasks: &Arc<dyn Tasks>, launches: &Launches) {
    let (_, task) = launch(tasks, launches(&["sleep", "1000"])).await;
    let cancelled = tokio::time::timeout(Duration::from_millis(1), task.exit()).await;
    assert!(cancelled.is_err(), "a running task has no exit");
    task.signal(Signal::KILL, KillReach::Init).await.expect("kill");
    let first = exit_of(&task).await;
    assert_eq!(exit_of(&task).await, first);
    task.release().await.expect("release");
    assert_eq!(exit_of(&task).await, first);
}

async fn a_client_attached_before_the_start_gets_every_byte(
    tasks: &Arc<dyn Tasks>,
    launches: &Launches,
) {
    let mut request = launches(&["echo", "hello"]);
    let (near, far) = attachment(false);
    request.attachments.push(far);
    let (_, task) = launch(tasks, request).await;
    assert_eq!(near.read_framed().await, (b"hello\n".to_vec(), Vec::new()));
    assert_eq!(exit_of(&task).await.code, 0);
    task.release().await.expect("release");
}

async fn closing_input_ends_a_reader(tasks: &Arc<dyn Tasks>, launches: &Launches) {
    let mut request = launches(&["cat"]);
    request.open_stdin = true;
    request.stdin_once = true;
    let (near, far) = attachment(true);
    request.attachments.push(far);
    let (_, task) = launch(tasks, request).await;
    (&near.0).write_all(b"some words").expect("input");
    near.0.shutdown(Shutdown::Write).expect("half-close");
    assert_eq!(near.read_framed().await.0, b"some words");
    assert_eq!(exit_of(&task).await.code, 0);
    task.release().await.expect("release");
}

async fn a_missing_program_is_127(tasks: &Arc<dyn Tasks>, launches: &Launches) {
    let request = launches(&["nosuchprogram"]);
    let container = request.container;
    match tasks.launch(request).await {
        Err(Error::Start { exit_code: 127, message, .. }) => {
            assert!(message.contains("executable file not found in $PATH"), "{message}");
        }
        Err(other) => panic!("another failure: {other:?}"),
        Ok(_) => panic!("it started"),
    }
    let adoption = tasks.adopt(container).await.expect("adopt");
    assert!(matches!(adoption, Adoption::Unknown), "something is left of a failed launch");
}

async fn signals_end_and_are_told(tasks: &Arc<dyn Tasks>, launches: &Launches) {
    let (_, task) = launch(tasks, launches(&["sleep", "1000"])).await;
    task.signal(Signal::KILL, KillReach::All).await.expect("kill");
    assert_eq!(exit_of(&task).await.code, 137);
    let again = task.signal(Signal::KILL, KillReach::Init).await;
    assert!(matches!(again, Err(Error::Ended)), "{again:?}");
    let (_, far) = attachment(false);
    assert!(matches!(task.attach(far).await, Err(Error::Ended)));
    task.release().await.expect("release");
}

async fn an_ended_task_is_adopted_as_ended(tasks: &Arc<dyn Tasks>, launches: &Launches) {
    let (container, task) = launch(tasks, launches(&["false"])).await;
    let exit = exit_of(&task).await;
    let id = task.id();
    drop(task);
    match tasks.adopt(container).await.expect("adopt") {
        Adoption::Ended(task, told) => assert_eq!((task, told), (id, exit)),
        // A shim may still be there to tell.
        Adoption::Running(task) => assert_eq!((task.id(), exit_of(&task).await), (id, exit)),
        Adoption::Unknown => panic!("an unreleased exit is forgotten"),
    }
    tasks.forget(container).await.expect("forget");
    assert!(matches!(tasks.adopt(container).await.expect("adopt"), Adoption::Unknown));
}

async fn a_running_task_is_adopted(tasks: &Arc<dyn Tasks>, launches: &Launches) {
    let (container, task) = launch(tasks, launches(&["sleep", "1000"])).await;
    let (id, pid, started) = (task.id(), task.pid(), task.started_at());
    drop(task);
    let Adoption::Running(task) = tasks.adopt(container).await.expect("adopt") else {
        panic!("a running task is not found again");
    };
    assert_eq!((task.id(), task.pid(), task.started_at()), (id, pid, started));
    task.signal(Signal::KILL, KillReach::Init).await.expect("kill");
    assert_eq!(exit_of(&task).await.code, 137);
    task.release().await.expect("release");
}

async fn sweeping_ends_what_is_not_known(tasks: &Arc<dyn Tasks>, launches: &Launches) {
    let (kept, task) = launch(tasks, launches(&["sleep", "1000"])).await;
    let (swept, other) = launch(tasks, launches(&["sleep", "1000"])).await;
    drop(other);
    assert_eq!(tasks.sweep(&[kept]).await.expect("sweep"), [swept]);
    assert!(matches!(tasks.adopt(swept).await.expect("adopt"), Adoption::Unknown));
    task.signal(Signal::KILL, KillReach::Init).await.expect("kill");
    assert_eq!(exit_of(&task).await.code, 137);
    task.release().await.expect("release");
}

async fn a_released_task_is_forgotten(tasks: &Arc<dyn Tasks>, launches: &Launches) {
    let (container, task) = launch(tasks, launches(&["true"])).await;
    exit_of(&task).await;
    task.release().await.expect("release");
    assert!(matches!(tasks.adopt(container).await.expect("adopt"), Adoption::Unknown));
}

/// A stream's name in frames.
pub fn frame_number(stream: LogStream) -> u8 {
    match stream {
        LogStream::Stdout => 1,
        LogStream::Stderr => 2,
    }
}

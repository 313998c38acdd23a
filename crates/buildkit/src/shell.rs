//! A shell in a step that failed: the messages of BuildKit's processes on one side, a terminal on the other. The step
//! belongs to the session of its build and is entered by the session's name, which only its client knows.

use std::sync::Arc;

use rorqual_build::solver::FailedStep;
use rorqual_build::{Error, StepExit, Terminal};
use rorqual_core::full_message;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, ReadHalf, WriteHalf};
use tokio::sync::{mpsc, watch};
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status, Streaming};

use crate::session::RemoteSession;
use crate::wire::RpcStatus;
use crate::wire::gateway::exec_message::Input;
use crate::wire::gateway::{DoneMessage, ExecMessage, ExitMessage, FdMessage, StartedMessage};

/// LIMIT: bytes on their way, in each direction.
const BUFFER: usize = 32 << 10;
/// LIMIT: messages on their way to the client.
const QUEUE: usize = 4;

type Outgoing = mpsc::Sender<Result<ExecMessage, Status>>;

fn message(input: Input) -> Result<ExecMessage, Status> {
    Ok(ExecMessage { process_id: String::new(), input: Some(input) })
}

/// Opens a shell in the step that is kept for a session; what the stream hands out goes to the client.
///
/// The shell ends with the stream, with the messages of the client, and with the session.
///
/// # Errors
///
/// When no step is kept.
pub(crate) fn open(
    session: Arc<RemoteSession>,
    mut incoming: Streaming<ExecMessage>,
) -> Result<impl Stream<Item = Result<ExecMessage, Status>> + Send, Status> {
    let Some(step) = session.failed_step() else {
        return Err(Status::not_found(
            "no program of this build failed, or another build ran it: there is no step to open a shell in",
        ));
    };
    let (sender, receiver) = mpsc::channel(QUEUE);
    tokio::spawn(async move {
        // The first size comes before anything else, so that the program starts with it.
        let first = tokio::select! {
            first = incoming.message() => first.ok().flatten(),
            () = session.closed().cancelled_owned() => None,
        };
        let Some(ExecMessage { input: Some(Input::Resize(size)), .. }) = first else {
            let text = "a shell begins with the size of its terminal";
            sender.send(Err(Status::invalid_argument(text))).await.ok();
            return;
        };
        let size = (sized(size.rows), sized(size.cols));
        run(step, session.closed(), (incoming, size), sender).await;
    });
    Ok(ReceiverStream::new(receiver))
}

fn sized(cells: u32) -> u16 {
    u16::try_from(cells).unwrap_or(u16::MAX)
}

async fn run(
    step: Arc<FailedStep>,
    closed: CancellationToken,
    (incoming, size): (Streaming<ExecMessage>, (u16, u16)),
    sender: Outgoing,
) {
    let (near, far) = tokio::io::duplex(BUFFER);
    let (screen, keys) = tokio::io::split(near);
    let (sizes, size) = watch::channel(size);
    let cancel = CancellationToken::new();
    let terminal = Terminal { stream: far, size };
    if sender.send(message(Input::Started(StartedMessage {}))).await.is_err() {
        return;
    }
    let both = async { tokio::join!(step.shell(terminal, cancel.clone()), show(screen, &sender)) };
    let gone = async {
        tokio::select! {
            () = take(incoming, keys, sizes) => {}
            () = sender.closed() => {}
            () = closed.cancelled() => {}
        }
    };
    tokio::pin!(both);
    let (exit, ()) = tokio::select! {
        ended = &mut both => ended,
        () = gone => {
            // ORDER: what the shell stands on goes only after it has been killed.
            cancel.cancel();
            both.await
        }
    };
    for last in ending(exit) {
        sender.send(message(last)).await.ok();
    }
}

/// What a client is told about the end of its shell.
fn ending(exit: Result<StepExit, Error>) -> [Input; 2] {
    let exit = match exit {
        Ok(exit) => ExitMessage { code: u32::try_from(exit.code).unwrap_or(255), error: None },
        Err(error) => {
            let error = RpcStatus {
                code: Code::Unknown as i32,
                message: full_message(&error),
                details: Vec::new(),
            };
            ExitMessage { code: 255, error: Some(error) }
        }
    };
    [Input::Exit(exit), Input::Done(DoneMessage {})]
}

/// Hands on what the program writes.
async fn show(mut screen: ReadHalf<DuplexStream>, sender: &Outgoing) {
    let mut buffer = vec![0; BUFFER];
    while let Ok(count @ 1..) = screen.read(&mut buffer).await {
        let data = FdMessage { fd: 1, eof: false, data: buffer[..count].to_vec() };
        if sender.send(message(Input::File(data))).await.is_err() {
            return;
        }
    }
}

/// Hands on what is typed, until the client has nothing more to say.
async fn take(
    mut incoming: Streaming<ExecMessage>,
    mut keys: WriteHalf<DuplexStream>,
    sizes: watch::Sender<(u16, u16)>,
) {
    while let Ok(Some(message)) = incoming.message().await {
        let sent = match message.input {
            Some(Input::File(data)) if data.eof => keys.shutdown().await,
            Some(Input::File(data)) => keys.write_all(&data.data).await,
            Some(Input::Resize(size)) => {
                sizes.send_replace((sized(size.rows), sized(size.cols)));
                Ok(())
            }
            _ => Ok(()),
        };
        if sent.is_err() {
            // The program has ended; its last words are on their way.
            std::future::pending::<()>().await;
        }
    }
}

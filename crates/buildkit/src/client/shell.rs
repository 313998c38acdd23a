//! The client's end of a shell in a step that failed.

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt as _};
use tonic::Status;

use super::Client;
use crate::status::Failure;
use crate::wire::gateway::exec_message::Input;
use crate::wire::gateway::{ExecMessage, FdMessage, InitMessage, ResizeMessage};

/// What goes to a shell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ShellInput {
    /// Something was typed.
    Typed(Vec<u8>),
    /// Nothing more will be typed.
    End,
    /// Rows and columns of the terminal.
    Size(u16, u16),
}

/// What comes from a shell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ShellNews {
    /// Something to show.
    Output(Vec<u8>),
    /// The shell has ended with this code.
    Ended(u32),
}

fn message(input: Input) -> ExecMessage {
    ExecMessage { process_id: "shell".to_owned(), input: Some(input) }
}

fn wire(input: ShellInput) -> ExecMessage {
    message(match input {
        ShellInput::Typed(data) => Input::File(FdMessage { fd: 0, eof: false, data }),
        ShellInput::End => Input::File(FdMessage { fd: 0, eof: true, data: Vec::new() }),
        ShellInput::Size(rows, columns) => {
            Input::Resize(ResizeMessage { rows: rows.into(), cols: columns.into() })
        }
    })
}

/// Reads a message of the builder; `None` for what says nothing here.
fn news(message: ExecMessage) -> Option<Result<ShellNews, Failure>> {
    match message.input? {
        Input::File(data) => Some(Ok(ShellNews::Output(data.data))),
        Input::Exit(exit) => match exit.error {
            Some(error) => Some(Err(Failure::new(&Status::unknown(error.message)))),
            None => Some(Ok(ShellNews::Ended(exit.code))),
        },
        _ => None,
    }
}

impl Client {
    /// Opens a shell in the step that failed of a session's build, which asked for it to be kept. The first input is the
    /// size of the terminal.
    ///
    /// Dropping the stream ends the shell.
    ///
    /// # Errors
    ///
    /// When there is no such step.
    pub async fn shell(
        &self,
        session: &str,
        input: mpsc::Receiver<ShellInput>,
    ) -> Result<impl Stream<Item = Result<ShellNews, Failure>> + Send + use<>, Failure> {
        let init = InitMessage {
            container_id: session.to_owned(),
            fds: vec![0, 1],
            tty: true,
            ..InitMessage::default()
        };
        let first = tokio_stream::once(message(Input::Init(init)));
        let call = first.chain(ReceiverStream::new(input).map(wire));
        let answer = self.gateway.clone().exec_process(call).await;
        let stream = answer.map_err(|status| Failure::new(&status))?.into_inner();
        Ok(stream.filter_map(|message| match message {
            Ok(message) => news(message),
            Err(status) => Some(Err(Failure::new(&status))),
        }))
    }
}

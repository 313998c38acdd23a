//! A client's receiver of a stream: an archive of an image, a tar of files.

use std::pin::Pin;
use std::task::{Context, Poll};

use async_trait::async_trait;
use rorqual_build::{Error, OutputSink};
use rorqual_core::ErrorKind;
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Status, Streaming};

use crate::transport::{Caller, LARGEST_MESSAGE};
use crate::wire::filesync::{BytesMessage, file_send_client::FileSendClient};

pub(crate) const HEADER_ID: &str = "buildkit-attachable-exporter-id";
/// LIMIT: bytes of one message, below the 4 MiB that clients take.
const PIECE: usize = 1 << 20;
const QUEUE: usize = 4;

enum Item {
    Bytes(Vec<u8>),
    End,
}

/// The messages of an output. When their source is dropped before its end they never end: to end is to say that all is
/// well, and the client discards what it has when its build fails.
struct Messages {
    items: mpsc::Receiver<Item>,
}

impl Stream for Messages {
    type Item = BytesMessage;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<BytesMessage>> {
        match self.items.poll_recv(cx) {
            Poll::Ready(Some(Item::Bytes(data))) => Poll::Ready(Some(BytesMessage { data })),
            Poll::Ready(Some(Item::End)) => Poll::Ready(None),
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }
}

struct Output {
    items: mpsc::Sender<Item>,
    answer: tokio::task::JoinHandle<Result<(), Status>>,
    closed: CancellationToken,
}

/// Opens the receiver of an output.
pub(super) fn open(caller: Caller, id: &str, closed: CancellationToken) -> Box<dyn OutputSink> {
    let (items, messages) = mpsc::channel(QUEUE);
    let mut call = Request::new(Messages { items: messages });
    call.metadata_mut().insert(HEADER_ID, super::remote::header(id));
    let mut client = FileSendClient::new(caller).max_decoding_message_size(LARGEST_MESSAGE);
    // The head of the answer may come with its end only.
    let answer = tokio::spawn(async move {
        let answer = client.diff_copy(call).await?;
        drain(answer.into_inner()).await
    });
    Box::new(Output { items, answer, closed })
}

async fn drain(mut answer: Streaming<BytesMessage>) -> Result<(), Status> {
    while answer.message().await?.is_some() {}
    Ok(())
}

fn failed(status: &Status) -> Error {
    let kind = match status.code() {
        tonic::Code::AlreadyExists => ErrorKind::Conflict,
        _ => ErrorKind::Internal,
    };
    Error::Other {
        action: "write the client's output".to_owned(),
        kind,
        source: status.message().to_owned().into(),
    }
}

#[async_trait]
impl OutputSink for Output {
    async fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        for piece in bytes.chunks(PIECE) {
            tokio::select! {
                sent = self.items.send(Item::Bytes(piece.to_vec())) => {
                    sent.map_err(|_| Error::Cancelled)?;
                }
                // The receiver ends early only when it cannot go on.
                answer = &mut self.answer => {
                    return Err(match answer {
                        Ok(Err(status)) => failed(&status),
                        _ => Error::Cancelled,
                    });
                }
                () = self.closed.cancelled() => return Err(Error::Cancelled),
            }
        }
        Ok(())
    }

    async fn finish(mut self: Box<Self>) -> Result<(), Error> {
        self.items.send(Item::End).await.ok();
        tokio::select! {
            answer = &mut self.answer => match answer {
                Ok(answer) => answer.map_err(|status| failed(&status)),
                Err(_) => Err(Error::Cancelled),
            },
            () = self.closed.cancelled() => Err(Error::Cancelled),
        }
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        self.answer.abort();
    }
}

//! A connection inside a call: clients without a way to dial twice open their session so.

use futures_util::StreamExt as _;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use crate::wire::control::BytesMessage;

/// LIMIT: bytes on their way.
const BUFFER: usize = 64 << 10;

/// Returns the connection, and the messages that carry its other direction.
pub(crate) fn open(
    mut incoming: Streaming<BytesMessage>,
) -> (DuplexStream, impl Stream<Item = Result<BytesMessage, Status>> + Send) {
    let (near, far) = tokio::io::duplex(BUFFER);
    let (mut from, mut to) = tokio::io::split(far);
    tokio::spawn(async move {
        while let Ok(Some(message)) = incoming.message().await {
            if to.write_all(&message.data).await.is_err() {
                break;
            }
        }
        to.shutdown().await.ok();
    });
    let (sender, receiver) = mpsc::channel(4);
    tokio::spawn(async move {
        let mut buf = vec![0; BUFFER];
        while let Ok(count @ 1..) = from.read(&mut buf).await {
            let data = buf[..count].to_vec();
            if sender.send(BytesMessage { data }).await.is_err() {
                break;
            }
        }
    });
    (near, ReceiverStream::new(receiver).map(Ok))
}

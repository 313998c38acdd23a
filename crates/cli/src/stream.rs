//! Bytes between the terminal and a container: demultiplexing, detach keys, half-close.

use std::io::{self, Write};

use bytes::BytesMut;
use rorqual_client::Connection;
use rorqual_core::detach::{self, Watch};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf};

use crate::failure::Failure;

/// How a daemon packs the streams of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// One stream, as of a terminal.
    Raw,
    /// Frames of eight bytes of header: stream, three zeros, length.
    Frames,
}

/// Splits frames; keeps what is incomplete.
#[derive(Debug)]
pub(crate) struct Demultiplexer {
    framing: Framing,
    pending: BytesMut,
    left: usize,
    stream: u8,
}

impl Demultiplexer {
    /// Makes one for a stream's start.
    pub(crate) fn new(framing: Framing) -> Self {
        Self { framing, pending: BytesMut::new(), left: 0, stream: 1 }
    }

    /// Hands the payload of `bytes` on: stream number and data.
    pub(crate) fn feed(
        &mut self,
        bytes: &[u8],
        mut sink: impl FnMut(u8, &[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        if self.framing == Framing::Raw {
            return sink(1, bytes);
        }
        self.pending.extend_from_slice(bytes);
        while !self.pending.is_empty() {
            if self.left == 0 {
                if self.pending.len() < 8 {
                    break;
                }
                let header = self.pending.split_to(8);
                self.stream = header[0];
                let size = [header[4], header[5], header[6], header[7]];
                self.left = u32::from_be_bytes(size) as usize;
                if self.stream > 3 || header[1..4] != [0, 0, 0] {
                    let text = format!("Unrecognized input header: {}", self.stream);
                    return Err(io::Error::new(io::ErrorKind::InvalidData, text));
                }
                continue;
            }
            let part = self.pending.split_to(self.left.min(self.pending.len()));
            self.left -= part.len();
            if self.stream == 3 {
                // The daemon's own trouble, in place of output.
                let text =
                    format!("error from daemon in stream: {}", String::from_utf8_lossy(&part));
                return Err(io::Error::other(text));
            }
            sink(self.stream, &part)?;
        }
        Ok(())
    }
}

/// Writes payload to our own standard streams.
pub(crate) fn to_standard_streams(stream: u8, bytes: &[u8]) -> io::Result<()> {
    if stream == 2 {
        let mut out = io::stderr().lock();
        out.write_all(bytes)?;
        return out.flush();
    }
    let mut out = io::stdout().lock();
    out.write_all(bytes)?;
    out.flush()
}

/// Why the streams of a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The container's side closed.
    Closed,
    /// The user typed the detach keys.
    Detached,
}

/// What a session connects.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Session<'a> {
    /// Sends our standard input.
    pub(crate) input: bool,
    /// Receives output; without it the session ends when the input was sent.
    pub(crate) output: bool,
    /// How output is packed.
    pub(crate) framing: Framing,
    /// Keys that end the session; none where input is no terminal.
    pub(crate) detach: Option<&'a [u8]>,
}

/// Connects the standard streams with a container until either side ends it.
pub(crate) async fn carry(connection: Connection, session: Session<'_>) -> Result<Ended, Failure> {
    let (reader, writer) = tokio::io::split(connection);
    let receive = receive(reader, session);
    if !session.input {
        // Keeps the writing half: closing it would be an end of input.
        let _writer = writer;
        receive.await?;
        return Ok(Ended::Closed);
    }
    let send = send(writer, session.detach);
    if !session.output {
        let (ended, _writer) = send.await?;
        return Ok(ended);
    }
    tokio::pin!(receive, send);
    tokio::select! {
        received = &mut receive => { received?; Ok(Ended::Closed) }
        sent = &mut send => match sent? {
            (Ended::Detached, _) => Ok(Ended::Detached),
            // Input is at its end; output may go on.
            (Ended::Closed, _writer) => { receive.await?; Ok(Ended::Closed) }
        }
    }
}

async fn receive(mut reader: ReadHalf<Connection>, session: Session<'_>) -> Result<(), Failure> {
    let mut demultiplexer = Demultiplexer::new(session.framing);
    let mut buffer = vec![0; 32 << 10];
    loop {
        let count = match reader.read(&mut buffer).await {
            Ok(0) => return Ok(()),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        demultiplexer.feed(&buffer[..count], to_standard_streams)?;
    }
}

async fn send(
    mut writer: WriteHalf<Connection>,
    keys: Option<&[u8]>,
) -> Result<(Ended, WriteHalf<Connection>), Failure> {
    let mut watch = keys.map(|keys| Watch::new(keys.to_vec()));
    let mut input = standard_input();
    let mut buffer = vec![0; 32 << 10];
    loop {
        let count = input.read(&mut buffer).await?;
        if count == 0 {
            // The container may be gone already.
            let _ = writer.shutdown().await;
            return Ok((Ended::Closed, writer));
        }
        let typed = &buffer[..count];
        let mut bytes = Vec::with_capacity(count);
        let found = match &mut watch {
            Some(watch) => watch.feed(typed, &mut bytes),
            None => {
                bytes.extend_from_slice(typed);
                false
            }
        };
        if writer.write_all(&bytes).await.is_err() || writer.flush().await.is_err() {
            return Ok((Ended::Closed, writer));
        }
        if found {
            return Ok((Ended::Detached, writer));
        }
    }
}

fn standard_input() -> Box<dyn AsyncRead + Unpin> {
    Box::new(tokio::io::stdin())
}

/// Reads `ctrl-p,ctrl-q` or `a,ctrl-[` into bytes.
pub(crate) fn detach_keys(text: &str) -> Result<Vec<u8>, Failure> {
    detach::keys(text).map_err(|error| Failure::new(format!("invalid detach keys: {error}")))
}

#[cfg(test)]
mod tests;

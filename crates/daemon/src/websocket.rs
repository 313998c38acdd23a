//! The server side of web sockets (RFC 6455), as far as attaching needs it: no extensions, no fragments out.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{HeaderMap, HeaderValue, UPGRADE};
use sha1::{Digest, Sha1};
use tokio::io::{self, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

// LIMIT: a message is one write of a client; nobody types a megabyte at once.
const LONGEST: u64 = 1 << 20;

const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// Returns the proof that the server speaks the protocol; `None` when the client does not ask for version 13 of it.
pub(crate) fn accept(headers: &HeaderMap) -> Option<HeaderValue> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    if !text(UPGRADE.as_str())?.eq_ignore_ascii_case("websocket")
        || text("sec-websocket-version")? != "13"
    {
        return None;
    }
    let key = text("sec-websocket-key")?;
    let digest = Sha1::new().chain_update(key.trim()).chain_update(GUID).finalize();
    HeaderValue::try_from(STANDARD.encode(digest)).ok()
}

/// Carries messages of `client` to `plain` and bytes of `plain` to `client` until either ends.
pub(crate) async fn serve(
    client: impl AsyncRead + AsyncWrite + Unpin,
    plain: impl AsyncRead + AsyncWrite + Unpin,
) {
    let (mut from_client, to_client) = io::split(client);
    let (mut from_plain, mut to_plain) = io::split(plain);
    let to_client = tokio::sync::Mutex::new(to_client);
    let outward = async {
        let mut buf = vec![0; 16 << 10];
        while let Ok(count @ 1..) = from_plain.read(&mut buf).await {
            if send(&mut *to_client.lock().await, BINARY, &buf[..count]).await.is_err() {
                return;
            }
        }
        send(&mut *to_client.lock().await, CLOSE, &1000_u16.to_be_bytes()).await.ok();
    };
    let inward = async {
        while let Ok((opcode, payload)) = receive(&mut from_client).await {
            let passed = match opcode {
                CLOSE => break,
                PING => send(&mut *to_client.lock().await, PONG, &payload).await,
                PONG => Ok(()),
                _ => to_plain.write_all(&payload).await,
            };
            if passed.is_err() {
                break;
            }
        }
        to_plain.shutdown().await.ok();
    };
    tokio::select! {
        () = outward => {}
        () = inward => {}
    }
    to_client.lock().await.shutdown().await.ok();
}

async fn send(io: &mut (impl AsyncWrite + Unpin), opcode: u8, payload: &[u8]) -> io::Result<()> {
    let mut frame = vec![0x80 | opcode];
    match payload.len() {
        length @ 0..126 => frame.push(length as u8),
        length @ 126..65536 => {
            frame.push(126);
            frame.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            frame.push(127);
            frame.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(payload);
    io.write_all(&frame).await?;
    io.flush().await
}

/// Reads one frame. Fragments of a message are handed on as they come: the receiver is a byte stream.
async fn receive(io: &mut (impl AsyncRead + Unpin)) -> io::Result<(u8, Vec<u8>)> {
    let bad = || io::Error::from(io::ErrorKind::InvalidData);
    let (first, second) = (io.read_u8().await?, io.read_u8().await?);
    let (opcode, is_masked) = (first & 0x0f, second & 0x80 != 0);
    let length = match second & 0x7f {
        126 => u64::from(io.read_u16().await?),
        127 => io.read_u64().await?,
        length => u64::from(length),
    };
    // Clients must mask (section 5.1), no extension was agreed on, and control frames are short (section 5.5).
    let is_control = opcode >= CLOSE;
    if !is_masked || first & 0x70 != 0 || length > LONGEST || is_control && length > 125 {
        return Err(bad());
    }
    if !matches!(opcode, 0..=2 | CLOSE..=PONG) {
        return Err(bad());
    }
    let mut mask = [0; 4];
    io.read_exact(&mut mask).await?;
    let mut payload = vec![0; length as usize];
    io.read_exact(&mut payload).await?;
    payload.iter_mut().zip(mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
    Ok((opcode, payload))
}

#[cfg(test)]
mod tests;

//! Answers that are files. Over plain TCP with HTTP/1.1 the kernel sends the file and no byte of it passes through this
//! process; elsewhere it is an ordinary body.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::SystemTime;

use http::header::{CONNECTION, CONTENT_LENGTH, DATE};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Response, Version, response};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use tokio::io::Interest;
use tokio::net::TcpStream;

use crate::body::{self, Body};

/// An answer whose body is a part of a file.
pub struct FileAnswer {
    /// Status and headers; `Content-Length` is added.
    pub head: response::Parts,
    /// The file.
    pub file: Arc<File>,
    /// Which of its bytes.
    pub range: Range<u64>,
}

impl FileAnswer {
    /// Makes an ordinary answer of it.
    pub fn into_response(self) -> Response<Body> {
        let Self { mut head, file, range } = self;
        head.headers.insert(CONTENT_LENGTH, HeaderValue::from(range.end - range.start));
        Response::from_parts(head, body::file(file, range))
    }

    /// Returns the bytes in front of the file's.
    pub(crate) fn head_bytes(&self) -> Vec<u8> {
        let reason = self.head.status.canonical_reason().unwrap_or_default();
        let mut bytes = format!("HTTP/1.1 {} {reason}\r\n", self.head.status.as_u16()).into_bytes();
        let mut ours = HeaderMap::new();
        ours.insert(CONTENT_LENGTH, HeaderValue::from(self.range.end - self.range.start));
        if let Ok(date) = HeaderValue::try_from(httpdate::fmt_http_date(SystemTime::now())) {
            ours.insert(DATE, date);
        }
        crate::connection::write_headers(&mut bytes, &self.head.headers);
        crate::connection::write_headers(&mut bytes, &ours);
        bytes.extend_from_slice(b"\r\n");
        bytes
    }
}

/// Tells whether the kernel may send the answer to such a request: the connection goes on behind it.
pub(crate) fn may_send(request: &Parts) -> bool {
    let closes =
        request.headers.get_all(CONNECTION).iter().any(|value| {
            value.to_str().is_ok_and(|text| text.to_ascii_lowercase().contains("close"))
        });
    request.version == Version::HTTP_11 && !closes
}

// LIMIT: bytes that one turn on a blocking thread sends, so that a fast client does not keep the thread.
const TURN: u64 = 8 << 20;

/// Sends a part of a file. Disk is waited for on blocking threads, the client never is.
pub(crate) async fn send(
    stream: &TcpStream,
    file: &Arc<File>,
    range: Range<u64>,
) -> io::Result<()> {
    let socket = Arc::new(stream.as_fd().try_clone_to_owned()?);
    let mut offset = range.start;
    while offset < range.end {
        stream.async_io(Interest::WRITABLE, || writable(stream)).await?;
        let (socket, file) = (Arc::clone(&socket), Arc::clone(file));
        let end = range.end.min(offset + TURN);
        let turn = tokio::task::spawn_blocking(move || send_turn(&*socket, &file, offset..end));
        offset = turn.await.map_err(io::Error::other)??;
    }
    Ok(())
}

/// Looks whether the socket takes bytes: the reactor's own memory of it may be out of date, as it did not see the turns.
fn writable(stream: &TcpStream) -> io::Result<()> {
    let mut fds = [PollFd::new(stream, PollFlags::OUT)];
    match poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))? {
        0 => Err(io::ErrorKind::WouldBlock.into()),
        _ => Ok(()),
    }
}

/// Sends until the socket is full or the turn is over; returns where it stopped.
fn send_turn(socket: impl AsFd, file: &File, turn: Range<u64>) -> io::Result<u64> {
    let mut offset = turn.start;
    while offset < turn.end {
        let count = (turn.end - offset) as usize;
        match rustix::fs::sendfile(&socket, file, Some(&mut offset), count) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => {}
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => break,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(offset)
}

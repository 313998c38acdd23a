//! The `journald` driver: datagrams of the journal's native protocol.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, IoSlice, Write};
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};

use super::LogStream;
use super::outbox::{Line, Outbox};
use super::sink::{Driver, Record};

const SOCKET: &str = "/run/systemd/journal/socket";

/// Sends to the journal.
pub(crate) struct Journald {
    outbox: Outbox<Socket>,
    /// The container's fields, encoded.
    fields: Vec<u8>,
    ordinal: u64,
}

struct Socket(UnixDatagram);

impl Journald {
    /// Connects to the journal and prepares what is the same for every message.
    pub(crate) fn open(fields: &BTreeMap<String, String>, epoch: u64) -> io::Result<Self> {
        let mut encoded = Vec::new();
        for (name, value) in fields {
            put_field(&mut encoded, name, value.as_bytes());
        }
        put_field(&mut encoded, "CONTAINER_LOG_EPOCH", format!("{epoch:032x}").as_bytes());
        let outbox = Outbox::open(|| {
            let socket = UnixDatagram::unbound()?;
            socket.connect(SOCKET)?;
            socket.set_nonblocking(true)?;
            Ok(Socket(socket))
        })?;
        Ok(Self { outbox, fields: encoded, ordinal: 0 })
    }

    fn message(&mut self, record: &Record<'_>) -> Vec<u8> {
        self.ordinal += 1;
        let mut out = Vec::with_capacity(record.line.len() + self.fields.len() + 128);
        put_field(&mut out, "MESSAGE", record.line);
        let priority: &[u8] = if record.stream == LogStream::Stderr { b"3" } else { b"6" };
        put_field(&mut out, "PRIORITY", priority);
        put_field(&mut out, "SYSLOG_TIMESTAMP", record.at.to_string().as_bytes());
        put_field(&mut out, "CONTAINER_LOG_ORDINAL", self.ordinal.to_string().as_bytes());
        if let Some(part) = record.part {
            put_field(&mut out, "CONTAINER_PARTIAL_ID", format!("{:016x}", part.id).as_bytes());
            put_field(&mut out, "CONTAINER_PARTIAL_ORDINAL", part.ordinal.to_string().as_bytes());
            put_field(&mut out, "CONTAINER_PARTIAL_LAST", part.last.to_string().as_bytes());
            if !part.last {
                put_field(&mut out, "CONTAINER_PARTIAL_MESSAGE", b"true");
            }
        }
        out.extend_from_slice(&self.fields);
        out
    }
}

/// Appends a field; binary form where the value has a line feed.
fn put_field(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.extend_from_slice(name.as_bytes());
    if value.contains(&b'\n') {
        out.push(b'\n');
        out.extend_from_slice(&(value.len() as u64).to_le_bytes());
    } else {
        out.push(b'=');
    }
    out.extend_from_slice(value);
    out.push(b'\n');
}

impl Driver for Journald {
    fn write(&mut self, record: &Record<'_>) -> io::Result<()> {
        let message = self.message(record);
        self.outbox.push(message)
    }

    fn flush(&mut self) -> Result<(), (u64, io::Error)> {
        self.outbox.flush();
        Ok(())
    }

    fn waits(&self) -> bool {
        self.outbox.waits()
    }
}

impl Line for Socket {
    fn send(&mut self, message: &[u8]) -> io::Result<usize> {
        match self.0.send(message) {
            Err(error) if error.raw_os_error() == Some(libc::EMSGSIZE) => {
                self.send_in_file(message).map(|()| message.len())
            }
            other => other,
        }
    }
}

impl Socket {
    /// Sends what is too large for a datagram as a sealed file.
    fn send_in_file(&self, message: &[u8]) -> io::Result<()> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let mut file = File::from(rustix::fs::memfd_create("journal-message", flags)?);
        file.write_all(message)?;
        let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
        rustix::fs::fcntl_add_seals(&file, seals)?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let descriptors = [file.as_fd()];
        control.push(SendAncillaryMessage::ScmRights(&descriptors));
        rustix::net::sendmsg(&self.0, &[IoSlice::new(&[])], &mut control, SendFlags::NOSIGNAL)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_with_line_feeds_are_binary() {
        let mut out = Vec::new();
        put_field(&mut out, "A", b"b");
        put_field(&mut out, "C", b"d\ne");
        assert_eq!(out, b"A=b\nC\n\x03\0\0\0\0\0\0\0d\ne\n");
    }
}

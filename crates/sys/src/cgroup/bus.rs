//! The little of D-Bus that calling systemd needs: authentication, method calls, their answers.
//! Signals and everything else on the bus are passed over.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// Where the system bus listens.
pub(super) const SYSTEM_BUS: &str = "/run/dbus/system_bus_socket";

/// Where systemd itself listens, on hosts without a bus.
pub(super) const PRIVATE_SOCKET: &str = "/run/systemd/private";

/// LIMIT: answers of systemd are a few hundred bytes; the protocol allows 128 MiB.
const MAX_MESSAGE: usize = 1 << 20;

const METHOD_CALL: u8 = 1;
const METHOD_RETURN: u8 = 2;
const ERROR: u8 = 3;

/// Codes of header fields.
const PATH: u8 = 1;
const INTERFACE: u8 = 2;
const MEMBER: u8 = 3;
const ERROR_NAME: u8 = 4;
const REPLY_SERIAL: u8 = 5;
const DESTINATION: u8 = 6;
const SIGNATURE: u8 = 8;

/// Why a call did not work.
#[derive(Debug)]
pub(super) enum Fault {
    /// The bus went away or spoke nonsense.
    Io(io::Error),
    /// The callee answered with an error.
    Refused {
        /// As `org.freedesktop.systemd1.NoSuchUnit`.
        name: String,
        /// In words.
        text: String,
    },
}

impl Fault {
    /// Tells whether the callee answered with systemd's error `name`.
    pub(super) fn is(&self, name: &str) -> bool {
        let wanted = Some(name);
        matches!(self, Self::Refused { name, .. } if name.rsplit('.').next() == wanted)
    }
}

impl From<io::Error> for Fault {
    fn from(source: io::Error) -> Self {
        Self::Io(source)
    }
}

/// A value of one of the types systemd's properties have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Text(String),
    Flag(bool),
    Number(u64),
    Numbers(Vec<u32>),
    Bytes(Vec<u8>),
}

/// What a call is about.
pub(super) struct Target<'a> {
    pub(super) destination: &'a str,
    pub(super) path: &'a str,
    pub(super) interface: &'a str,
    pub(super) member: &'a str,
}

/// Bytes in the bus's own layout: everything aligned to its size.
#[derive(Default)]
pub(super) struct Writer(Vec<u8>);

impl Writer {
    fn align(&mut self, to: usize) {
        self.0.resize(self.0.len().next_multiple_of(to), 0);
    }

    fn u32(&mut self, value: u32) {
        self.align(4);
        self.0.extend(value.to_le_bytes());
    }

    pub(super) fn text(&mut self, text: &str) {
        self.u32(text.len() as u32);
        self.0.extend(text.as_bytes());
        self.0.push(0);
    }

    fn signature(&mut self, signature: &str) {
        self.0.push(signature.len() as u8);
        self.0.extend(signature.as_bytes());
        self.0.push(0);
    }

    /// Writes an array whose elements are aligned to `align`.
    fn array(&mut self, align: usize, content: impl FnOnce(&mut Self)) {
        self.u32(0);
        let length_at = self.0.len() - 4;
        self.align(align);
        let start = self.0.len();
        content(self);
        let length = (self.0.len() - start) as u32;
        self.0[length_at..length_at + 4].copy_from_slice(&length.to_le_bytes());
    }

    fn variant(&mut self, value: &Value) {
        match value {
            Value::Text(text) => {
                self.signature("s");
                self.text(text);
            }
            Value::Flag(flag) => {
                self.signature("b");
                self.u32(u32::from(*flag));
            }
            Value::Number(number) => {
                self.signature("t");
                self.align(8);
                self.0.extend(number.to_le_bytes());
            }
            Value::Numbers(numbers) => {
                self.signature("au");
                self.array(4, |inner| numbers.iter().for_each(|number| inner.u32(*number)));
            }
            Value::Bytes(bytes) => {
                self.signature("ay");
                self.array(1, |inner| inner.0.extend(bytes));
            }
        }
    }

    /// Writes `a(sv)`.
    pub(super) fn properties(&mut self, properties: &[(&str, Value)]) {
        self.array(8, |inner| {
            for (name, value) in properties {
                inner.align(8);
                inner.text(name);
                inner.variant(value);
            }
        });
    }

    /// Writes `b`.
    pub(super) fn flag(&mut self, flag: bool) {
        self.u32(u32::from(flag));
    }

    /// Writes an empty array of structures.
    pub(super) fn nothing(&mut self) {
        self.array(8, |_| {});
    }
}

/// Who is at the other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Peer {
    /// A bus, which wants to be greeted.
    Bus,
    /// The service itself.
    Direct,
}

/// A connection to a bus.
pub(super) struct Bus {
    stream: UnixStream,
    serial: u32,
}

impl Bus {
    /// Connects as the present user: to the system bus, or without one to systemd itself.
    pub(super) fn system() -> Result<Self, Fault> {
        match UnixStream::connect(SYSTEM_BUS) {
            Ok(stream) => Self::greet(stream, Peer::Bus),
            Err(missing)
                if matches!(
                    missing.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
                ) =>
            {
                let Ok(stream) = UnixStream::connect(PRIVATE_SOCKET) else {
                    return Err(missing.into());
                };
                Self::greet(stream, Peer::Direct)
            }
            Err(fault) => Err(fault.into()),
        }
    }

    /// Authenticates on a fresh connection.
    pub(super) fn greet(mut stream: UnixStream, peer: Peer) -> Result<Self, Fault> {
        let patience = Some(Duration::from_secs(25));
        stream.set_read_timeout(patience)?;
        stream.set_write_timeout(patience)?;
        let uid = rustix::process::geteuid().as_raw().to_string();
        let hex: Vec<_> = uid.bytes().map(|byte| format!("{byte:02x}")).collect();
        let mut greeting = format!("\0AUTH EXTERNAL {}\r\nBEGIN\r\n", hex.concat()).into_bytes();
        let mut serial = 0;
        if peer == Peer::Bus {
            let hello = Target {
                destination: "org.freedesktop.DBus",
                path: "/org/freedesktop/DBus",
                interface: "org.freedesktop.DBus",
                member: "Hello",
            };
            serial = 1;
            greeting.extend(message(serial, &hello, "", &[]));
        }
        // All at once, because every answer waited for is two context switches. That to the hello is passed over
        // by the first call; a bus that refuses it closes the connection.
        stream.write_all(&greeting)?;
        let answer = read_line(&mut stream)?;
        if !answer.starts_with("OK ") {
            return Err(Fault::Refused { name: "AUTH".to_owned(), text: answer });
        }
        Ok(Self { stream, serial })
    }

    /// Calls a method and waits until it has answered.
    pub(super) fn call(
        &mut self,
        target: &Target<'_>,
        signature: &str,
        body: &Writer,
    ) -> Result<(), Fault> {
        self.serial += 1;
        let message = message(self.serial, target, signature, &body.0);
        self.stream.write_all(&message)?;
        loop {
            let answer = Answer::read(&mut self.stream)?;
            if answer.reply_to != Some(self.serial) {
                continue;
            }
            match answer.kind {
                METHOD_RETURN => return Ok(()),
                ERROR => return Err(Fault::Refused { name: answer.error, text: answer.text }),
                _ => {}
            }
        }
    }
}

fn message(serial: u32, target: &Target<'_>, signature: &str, body: &[u8]) -> Vec<u8> {
    let mut out = Writer(vec![b'l', METHOD_CALL, 0, 1]);
    out.u32(body.len() as u32);
    out.u32(serial);
    let fields = [
        (PATH, "o", target.path),
        (INTERFACE, "s", target.interface),
        (MEMBER, "s", target.member),
        (DESTINATION, "s", target.destination),
    ];
    out.array(8, |out| {
        for (code, kind, value) in fields {
            out.align(8);
            out.0.push(code);
            out.signature(kind);
            out.text(value);
        }
        if !signature.is_empty() {
            out.align(8);
            out.0.push(SIGNATURE);
            out.signature("g");
            out.signature(signature);
        }
    });
    out.align(8);
    out.0.extend(body);
    out.0
}

fn read_line(stream: &mut UnixStream) -> io::Result<String> {
    let mut line = Vec::new();
    // LIMIT: lines of the authentication are short; a byte at a time leaves what follows unread.
    while line.len() < 4096 {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        if byte[0] == b'\n' {
            return Ok(String::from_utf8_lossy(&line).trim_end().to_owned());
        }
        line.push(byte[0]);
    }
    Err(io::ErrorKind::InvalidData.into())
}

/// What matters of a received message.
struct Answer {
    kind: u8,
    reply_to: Option<u32>,
    error: String,
    text: String,
}

impl Answer {
    fn read(stream: &mut UnixStream) -> io::Result<Self> {
        let nonsense = || io::Error::from(io::ErrorKind::InvalidData);
        let mut head = [0_u8; 16];
        stream.read_exact(&mut head)?;
        // Whoever answers a little-endian call on this machine answers alike.
        if head[0] != b'l' {
            return Err(nonsense());
        }
        let body = word(&head, 4).ok_or_else(nonsense)? as usize;
        let fields = word(&head, 12).ok_or_else(nonsense)? as usize;
        if body > MAX_MESSAGE || fields > MAX_MESSAGE {
            return Err(nonsense());
        }
        let body_at = fields.next_multiple_of(8);
        let mut rest = vec![0; body_at + body];
        stream.read_exact(&mut rest)?;
        let mut answer =
            Self { kind: head[1], reply_to: None, error: String::new(), text: String::new() };
        answer.read_fields(&rest[..fields]).ok_or_else(nonsense)?;
        answer.text = string(&rest[body_at..], 0).map(|(text, _)| text).unwrap_or_default();
        Ok(answer)
    }

    fn read_fields(&mut self, fields: &[u8]) -> Option<()> {
        let mut at = 0;
        while at < fields.len() {
            let code = *fields.get(at)?;
            let kind = *fields.get(at + 2)?;
            // A signature of one letter takes three bytes.
            at = match kind {
                b'u' => {
                    let number_at = (at + 4).next_multiple_of(4);
                    let number = word(fields, number_at)?;
                    if code == REPLY_SERIAL {
                        self.reply_to = Some(number);
                    }
                    number_at + 4
                }
                b's' | b'o' => {
                    let (text, end) = string(fields, (at + 4).next_multiple_of(4))?;
                    if code == ERROR_NAME {
                        self.error = text;
                    }
                    end
                }
                b'g' => at + 4 + usize::from(*fields.get(at + 4)?) + 2,
                _ => return None,
            }
            .next_multiple_of(8);
        }
        Some(())
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes)
}

fn string(bytes: &[u8], at: usize) -> Option<(String, usize)> {
    let length = word(bytes, at)? as usize;
    let text = bytes.get(at + 4..at + 4 + length)?;
    Some((String::from_utf8_lossy(text).into_owned(), at + 4 + length + 1))
}

#[cfg(test)]
mod tests;

//! The `syslog` driver: messages of RFC 3164 or 5424 to a local or remote server.

use std::io::{self, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::time::Duration;

use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};

use super::outbox::{Line, Outbox};
use super::sink::{Driver, Record};
use super::{LogStream, SyslogTarget};

/// LIMIT: how long a remote server may take to accept; a container is only held up by it when it starts, or after
/// the server was lost, once a second at most.
const CONNECTING: Duration = Duration::from_millis(500);
const LOCAL: [&str; 3] = ["/dev/log", "/var/run/syslog", "/var/run/log"];
const PORT: u16 = 514;

/// Sends to a syslog server.
pub(crate) struct Syslog {
    outbox: Outbox<Server>,
    form: Form,
    facility: u8,
    tag: String,
    host: String,
    zone: TimeZone,
    pid: u32,
}

/// How a message looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// RFC 3164 without a host, as local servers expect.
    Local,
    Rfc3164,
    Rfc5424,
    Rfc5424Micro,
}

enum Server {
    Datagrams(UnixDatagram),
    Udp(UdpSocket),
    Stream(UnixStream),
    Tcp(TcpStream),
}

/// Where a server is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Address {
    Local,
    UnixStream(String),
    UnixDatagrams(String),
    Udp(SocketAddr),
    Tcp(SocketAddr),
}

fn invalid(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, message)
}

impl Address {
    fn parse(text: &str) -> io::Result<Self> {
        if text.is_empty() {
            return Ok(Self::Local);
        }
        let (scheme, rest) = text
            .split_once("://")
            .ok_or_else(|| invalid(format!("invalid syslog address {text:?}")))?;
        match scheme {
            "unix" => Ok(Self::UnixStream(rest.to_owned())),
            "unixgram" => Ok(Self::UnixDatagrams(rest.to_owned())),
            "udp" => socket_address(rest).map(Self::Udp),
            "tcp" => socket_address(rest).map(Self::Tcp),
            _ => Err(invalid(format!("syslog over {scheme:?} is not supported"))),
        }
    }

    fn connect(&self) -> io::Result<Server> {
        match self {
            Self::Local => LOCAL
                .iter()
                .find_map(|path| datagrams(path).or_else(|_| stream(path)).ok())
                .ok_or_else(|| io::Error::other("no local syslog server listens")),
            // COMPAT: Docker's `unix` takes either kind of socket.
            Self::UnixStream(path) => stream(path).or_else(|_| datagrams(path)),
            Self::UnixDatagrams(path) => datagrams(path),
            Self::Udp(address) => {
                let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
                let socket = UdpSocket::bind(any)?;
                socket.connect(address)?;
                socket.set_nonblocking(true)?;
                Ok(Server::Udp(socket))
            }
            Self::Tcp(address) => {
                let socket = TcpStream::connect_timeout(address, CONNECTING)?;
                socket.set_nonblocking(true)?;
                Ok(Server::Tcp(socket))
            }
        }
    }
}

fn datagrams(path: &str) -> io::Result<Server> {
    let socket = UnixDatagram::unbound()?;
    socket.connect(path)?;
    socket.set_nonblocking(true)?;
    Ok(Server::Datagrams(socket))
}

fn stream(path: &str) -> io::Result<Server> {
    let socket = UnixStream::connect(path)?;
    socket.set_nonblocking(true)?;
    Ok(Server::Stream(socket))
}

/// Reads `address[:port]`; names are resolved by whoever made the target.
fn socket_address(text: &str) -> io::Result<SocketAddr> {
    let text = text.strip_suffix('/').unwrap_or(text);
    let local = text.replacen("localhost", "127.0.0.1", 1);
    let parsed = local.parse().or_else(|_| {
        local.trim_matches(['[', ']']).parse().map(|address| SocketAddr::new(address, PORT))
    });
    parsed.map_err(|_| invalid(format!("syslog server {text:?} is not an IP address with a port")))
}

impl Syslog {
    /// Connects to the server.
    pub(crate) fn open(target: &SyslogTarget) -> io::Result<Self> {
        let form = match target.format.as_str() {
            "" => Form::Local,
            "rfc3164" => Form::Rfc3164,
            "rfc5424" => Form::Rfc5424,
            "rfc5424micro" => Form::Rfc5424Micro,
            other => return Err(invalid(format!("invalid syslog format {other:?}"))),
        };
        let address = Address::parse(&target.address)?;
        Ok(Self {
            outbox: Outbox::open(move || address.connect())?,
            form,
            facility: target.facility,
            tag: target.tag.clone(),
            host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            zone: TimeZone::system(),
            pid: std::process::id(),
        })
    }

    fn message(&self, record: &Record<'_>) -> Vec<u8> {
        let severity = if record.stream == LogStream::Stderr { 3 } else { 6 };
        let priority = u32::from(self.facility) * 8 + severity;
        let at = i128::from(record.at.nanos());
        let at = Timestamp::from_nanosecond(at).unwrap_or_default().to_zoned(self.zone.clone());
        let mut out = self.head(priority, &at).into_bytes();
        out.extend_from_slice(record.line);
        out.push(b'\n');
        out
    }

    fn head(&self, priority: u32, at: &Zoned) -> String {
        let Self { tag, host, pid, .. } = self;
        let rfc5424 = |time| format!("<{priority}>1 {time} {host} {tag} {pid} {tag} - ");
        match self.form {
            Form::Local => format!("<{priority}>{} {tag}[{pid}]: ", at.strftime("%b %e %H:%M:%S")),
            Form::Rfc3164 => {
                format!("<{priority}>{} {host} {tag}[{pid}]: ", at.strftime("%b %e %H:%M:%S"))
            }
            Form::Rfc5424 => rfc5424(at.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string()),
            Form::Rfc5424Micro => rfc5424(at.strftime("%Y-%m-%dT%H:%M:%S.%6f%:z").to_string()),
        }
    }
}

impl Driver for Syslog {
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

impl Line for Server {
    fn send(&mut self, message: &[u8]) -> io::Result<usize> {
        match self {
            Self::Datagrams(socket) => socket.send(message),
            Self::Udp(socket) => match socket.send(message) {
                // Somebody answered an earlier message with "nobody there"; this one was not sent.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    socket.send(message)
                }
                other => other,
            },
            Self::Stream(socket) => socket.write(message),
            Self::Tcp(socket) => socket.write(message),
        }
    }
}

#[cfg(test)]
mod tests {
    use rorqual_core::Timestamp;

    use super::*;

    #[test]
    fn addresses_are_understood_or_refused() {
        let parse = |text| Address::parse(text).map_err(|error| error.to_string());
        assert_eq!(parse(""), Ok(Address::Local));
        assert_eq!(parse("unix:///dev/log"), Ok(Address::UnixStream("/dev/log".into())));
        assert_eq!(parse("udp://10.0.0.1"), Ok(Address::Udp("10.0.0.1:514".parse().unwrap())));
        assert_eq!(parse("tcp://[::1]:6"), Ok(Address::Tcp("[::1]:6".parse().unwrap())));
        assert!(parse("tcp+tls://10.0.0.1").is_err());
        assert!(parse("udp://somewhere:514").is_err());
    }

    #[test]
    fn messages_arrive_in_the_chosen_form() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let server = UnixDatagram::bind(&path).unwrap();
        for (format, expected) in [
            ("", "<30>Jan  1 00:00:01 tag[7]: hello\n"),
            ("rfc3164", "<30>Jan  1 00:00:01 host tag[7]: hello\n"),
            ("rfc5424", "<30>1 1970-01-01T00:00:01+00:00 host tag 7 tag - hello\n"),
            ("rfc5424micro", "<30>1 1970-01-01T00:00:01.000002+00:00 host tag 7 tag - hello\n"),
        ] {
            let mut syslog = Syslog::open(&SyslogTarget {
                address: format!("unixgram://{}", path.display()),
                facility: 3,
                format: format.to_owned(),
                tag: "tag".to_owned(),
            })
            .unwrap();
            (syslog.pid, syslog.host, syslog.zone) = (7, "host".to_owned(), TimeZone::UTC);
            let at = Timestamp::from_nanos(1_000_002_000);
            let record = Record { at, stream: LogStream::Stdout, line: b"hello", part: None };
            syslog.write(&record).unwrap();
            syslog.flush().unwrap();
            let mut buffer = [0; 200];
            let count = server.recv(&mut buffer).unwrap();
            assert_eq!(std::str::from_utf8(&buffer[..count]).unwrap(), expected);
        }
    }
}

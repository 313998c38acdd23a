//! Byte streams to a daemon: sockets, TLS, or the standard streams of an ssh process.
//!
//! Knows nothing of HTTP.

use std::io;
use std::pin::Pin;
use std::process::Stdio;
use std::task::{Context, Poll};

use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::{Error, Host, Result, TlsFiles};

/// Anything bytes go both ways through.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// A connection to a daemon.
pub type Connection = Box<dyn Duplex>;

/// Connects to `host`.
///
/// # Cancellation
/// Dropping the future closes what was opened so far and ends an ssh process.
pub async fn dial(host: &Host, tls: Option<&TlsFiles>) -> Result<Connection> {
    match host {
        Host::Unix(path) => {
            let stream = UnixStream::connect(path).await.map_err(|error| failed(host, error))?;
            Ok(Box::new(stream))
        }
        Host::Tcp { address, https, .. } => {
            let stream = TcpStream::connect(address.as_str())
                .await
                .and_then(|stream| stream.set_nodelay(true).map(|()| stream))
                .map_err(|error| failed(host, error))?;
            match tls {
                Some(files) => encrypt(host, stream, address, files).await,
                None if *https => encrypt(host, stream, address, &TlsFiles::default()).await,
                None => Ok(Box::new(stream)),
            }
        }
        Host::Ssh { .. } => Ok(Box::new(ssh(host)?)),
    }
}

fn failed(host: &Host, source: io::Error) -> Error {
    match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            Error::NotRunning(host.to_string())
        }
        io::ErrorKind::PermissionDenied => Error::Denied(host.to_string()),
        _ => Error::Connect { host: host.to_string(), source },
    }
}

async fn encrypt(
    host: &Host,
    stream: TcpStream,
    address: &str,
    files: &TlsFiles,
) -> Result<Connection> {
    let name = address.rsplit_once(':').map_or(address, |(name, _)| name);
    let name = name.trim_start_matches('[').trim_end_matches(']').to_owned();
    let name = ServerName::try_from(name)
        .map_err(|error| failed(host, io::Error::new(io::ErrorKind::InvalidInput, error)))?;
    let connector = tokio_rustls::TlsConnector::from(files.load()?);
    let stream = connector.connect(name, stream).await.map_err(|error| failed(host, error))?;
    Ok(Box::new(stream))
}

/// The standard streams of an ssh process; the process ends with them.
struct Piped {
    _child: Child,
    input: ChildStdin,
    output: ChildStdout,
}

fn ssh(host: &Host) -> Result<Piped> {
    let failed = |source| Error::Connect { host: host.to_string(), source };
    let mut command = Command::new("ssh");
    command.args(ssh_arguments(host));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().map_err(failed)?;
    let streams = child.stdin.take().zip(child.stdout.take());
    let (input, output) = streams.ok_or_else(|| failed(io::ErrorKind::BrokenPipe.into()))?;
    Ok(Piped { _child: child, input, output })
}

/// Returns what ssh is called with to reach the far daemon.
fn ssh_arguments(host: &Host) -> Vec<String> {
    let Host::Ssh { target, port, socket } = host else { return Vec::new() };
    let mut words: Vec<String> = ["-o", "ConnectTimeout=30", "-T"].map(str::to_owned).into();
    if let Some(port) = port {
        words.extend(["-p".to_owned(), port.to_string()]);
    }
    words.extend(["--".to_owned(), target.clone(), "docker".to_owned()]);
    if !socket.is_empty() {
        words.push(format!("--host='unix://{}'", socket.replace('\'', r"'\''")));
    }
    words.extend(["system".to_owned(), "dial-stdio".to_owned()]);
    words
}

impl AsyncRead for Piped {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.output).poll_read(context, buffer)
    }
}

impl AsyncWrite for Piped {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.input).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.input).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.input).poll_shutdown(context)
    }
}

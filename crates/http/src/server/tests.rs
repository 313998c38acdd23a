//! The server against raw sockets: what clients really send, well-behaved or not.

use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;
use http::{HeaderMap, Response};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::mpsc;

use super::{Answer, BoxFuture, Hijack, Limits, Protocol, Request, Server, Service};
use crate::listen::{Address, UnixAccess, bind};
use crate::tls::{TlsFiles, server_config};
use crate::{RawStream, body};

/// `/hijack` echoes, `/wait` never answers and reports when it is dropped, the rest answers the size of its body.
struct Echo {
    dropped: mpsc::UnboundedSender<()>,
}

struct Report(mpsc::UnboundedSender<()>);

impl Drop for Report {
    fn drop(&mut self) {
        self.0.send(()).ok();
    }
}

async fn echo(mut io: RawStream) {
    let (mut bytes, mut buf) = (Vec::new(), [0; 64]);
    loop {
        let count = io.read(&mut buf).await.unwrap();
        if count == 0 {
            break;
        }
        bytes.extend_from_slice(&buf[..count]);
    }
    // Only after the client's half of the connection has ended: proves that half-closing works.
    io.write_all(&bytes.to_ascii_uppercase()).await.unwrap();
    io.shutdown().await.unwrap();
}

impl Service for Echo {
    fn may_hijack(&self, head: &Parts) -> bool {
        head.uri.path() == "/hijack"
    }

    fn call(self: Arc<Self>, request: Request) -> BoxFuture<Answer> {
        Box::pin(async move {
            match request.parts.uri.path() {
                "/hijack" => {
                    let upgrade = request.parts.headers.contains_key("upgrade");
                    let mut headers = HeaderMap::new();
                    headers.insert("content-type", "application/x-raw".parse().unwrap());
                    Answer::Hijack(Hijack {
                        protocol: if upgrade { Protocol::Upgraded } else { Protocol::Bare },
                        headers,
                        take: Box::new(|io| Box::pin(echo(io))),
                    })
                }
                "/wait" => {
                    let _report = Report(self.dropped.clone());
                    std::future::pending().await
                }
                _ => {
                    let text = match request.body.bytes(1000).await {
                        Ok(bytes) => format!("{} bytes", bytes.len()),
                        Err(error) => format!("refused: {error}"),
                    };
                    Answer::Response(Response::new(body::full(text)))
                }
            }
        })
    }
}

struct Fixture {
    server: Server<Echo>,
    path: std::path::PathBuf,
    dropped: mpsc::UnboundedReceiver<()>,
    _folder: tempfile::TempDir,
}

impl Fixture {
    async fn new(limits: Limits) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let (sender, dropped) = mpsc::unbounded_channel();
        let server = Server::new(Arc::new(Echo { dropped: sender }), limits);
        let bound = bind(&Address::Unix(path.clone()), UnixAccess::default(), 0).await.unwrap();
        let serving = server.clone();
        tokio::spawn(async move { serving.serve(bound, None).await });
        Self { server, path, dropped, _folder: folder }
    }

    async fn connect(&self) -> UnixStream {
        UnixStream::connect(&self.path).await.unwrap()
    }

    /// Sends everything, ends the sending half, reads to the end.
    async fn exchange(&self, request: &[u8]) -> String {
        let mut client = self.connect().await;
        client.write_all(request).await.unwrap();
        client.shutdown().await.unwrap();
        read_all(&mut client).await
    }
}

async fn read_all(io: &mut (impl AsyncRead + Unpin)) -> String {
    let mut bytes = Vec::new();
    // A reset after the answer is fine for these tests.
    deadline(io.read_to_end(&mut bytes)).await.ok();
    String::from_utf8(bytes).unwrap()
}

async fn read_until(io: &mut (impl AsyncRead + Unpin), end: &str) -> String {
    let mut text = String::new();
    while !text.ends_with(end) {
        let byte = deadline(io.read_u8()).await.unwrap_or_else(|error| panic!("{error}: {text}"));
        text.push(char::from(byte));
    }
    text
}

async fn deadline<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(10), future).await.expect("too slow")
}

#[tokio::test]
async fn upgrades() {
    let fixture = Fixture::new(Limits::default()).await;
    let mut client = fixture.connect().await;
    client
        .write_all(
            b"POST /hijack HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n",
        )
        .await
        .unwrap();
    let head = read_until(&mut client, "\r\n\r\n").await;
    assert_eq!(head, "HTTP/1.1 101 UPGRADED\r\nContent-Type: application/x-raw\r\n\r\n");
    client.write_all(b"hello").await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(read_all(&mut client).await, "HELLO");
}

#[tokio::test]
async fn hands_over_unasked_with_early_bytes_and_early_end() {
    let fixture = Fixture::new(Limits::default()).await;
    // Body, raw bytes and the end of sending arrive at once.
    for length in ["2", "0"] {
        let body = if length == "2" { "{}" } else { "" };
        let request = format!(
            "POST /hijack HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n{body}early bird"
        );
        let answer = fixture.exchange(request.as_bytes()).await;
        assert_eq!(answer, "HTTP/1.1 200 OK\r\nContent-Type: application/x-raw\r\n\r\nEARLY BIRD");
    }
}

#[tokio::test]
async fn hands_over_a_kept_connection() {
    let fixture = Fixture::new(Limits::default()).await;
    let answer = fixture
        .exchange(b"GET /a HTTP/1.1\r\nHost: x\r\n\r\nPOST /hijack HTTP/1.1\r\nHost: x\r\n\r\nraw")
        .await;
    let (first, second) = answer.split_once("0 bytes").unwrap();
    assert!(first.starts_with("HTTP/1.1 200 OK\r\n"), "{first}");
    assert_eq!(second, "HTTP/1.1 200 OK\r\nContent-Type: application/x-raw\r\n\r\nRAW");
}

#[tokio::test]
async fn answers_pipelined_requests_in_order() {
    let fixture = Fixture::new(Limits::default()).await;
    let mut client = fixture.connect().await;
    let one = "POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc";
    let two = "POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\na";
    client.write_all(format!("{one}{two}").as_bytes()).await.unwrap();
    read_until(&mut client, "3 bytes").await;
    read_until(&mut client, "1 bytes").await;
}

#[tokio::test]
async fn cancels_when_the_client_goes_away() {
    let mut fixture = Fixture::new(Limits::default()).await;
    let mut client = fixture.connect().await;
    client.write_all(b"POST /wait HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n").await.unwrap();
    drop(client);
    deadline(fixture.dropped.recv()).await.unwrap();
}

#[tokio::test]
async fn speaks_http2_on_the_same_listener() {
    let fixture = Fixture::new(Limits::default()).await;
    let io = hyper_util::rt::TokioIo::new(fixture.connect().await);
    let executor = hyper_util::rt::TokioExecutor::new();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(executor, io).await.unwrap();
    tokio::spawn(connection);
    let request =
        http::Request::post("http://x/a").body(http_body_util::Full::new(&b"1234"[..])).unwrap();
    let answer = deadline(sender.send_request(request)).await.unwrap();
    let bytes = http_body_util::BodyExt::collect(answer.into_body()).await.unwrap().to_bytes();
    assert_eq!(bytes, "4 bytes");
}

#[tokio::test]
async fn bounds_heads_and_bodies() {
    let limits = Limits { head_bytes: 8192, headers: 16, ..Limits::default() };
    let fixture = Fixture::new(limits).await;
    let long = format!("GET /a HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "y".repeat(20_000));
    assert!(fixture.exchange(long.as_bytes()).await.starts_with("HTTP/1.1 431 "));
    let many = format!("GET /a HTTP/1.1\r\nHost: x\r\n{}\r\n", "X: y\r\n".repeat(17));
    assert!(fixture.exchange(many.as_bytes()).await.starts_with("HTTP/1.1 431 "));
    let mut client = fixture.connect().await;
    let head = "POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 1001\r\n\r\n";
    client.write_all(format!("{head}{}", "z".repeat(1001)).as_bytes()).await.unwrap();
    read_until(&mut client, "refused: request body is larger than 1000 bytes").await;
    let bad = fixture.exchange(b"nonsense\r\n\r\n").await;
    assert!(bad.starts_with("HTTP/1.1 400 "), "{bad}");
}

#[tokio::test]
async fn reads_bodies_that_nobody_wants() {
    let fixture = Fixture::new(Limits::default()).await;
    let mut client = fixture.connect().await;
    // Refused after a thousand bytes; far more than any buffer holds has to be written before the answer is read.
    let body = vec![b'z'; 8 << 20];
    let head = format!("POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", body.len());
    deadline(client.write_all(head.as_bytes())).await.unwrap();
    deadline(client.write_all(&body)).await.unwrap();
    read_until(&mut client, "refused: request body is larger than 1000 bytes").await;
    // And the connection goes on.
    client.write_all(b"GET /b HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    read_until(&mut client, "0 bytes").await;
}

#[tokio::test]
async fn further_connections_wait_for_room() {
    let fixture = Fixture::new(Limits { connections: 2, ..Limits::default() }).await;
    let (first, second) = (fixture.connect().await, fixture.connect().await);
    let mut third = fixture.connect().await;
    third.write_all(b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let early = tokio::time::timeout(Duration::from_millis(100), third.read_u8()).await;
    assert!(early.is_err(), "answered without room");
    drop(first);
    read_until(&mut third, "0 bytes").await;
    drop(second);
}

#[tokio::test]
async fn stops_idle_http2_connections_at_once() {
    let fixture = Fixture::new(Limits::default()).await;
    let io = hyper_util::rt::TokioIo::new(fixture.connect().await);
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(hyper_util::rt::TokioExecutor::new(), io)
            .await
            .unwrap();
    let connection = tokio::spawn(connection);
    let request = http::Request::get("http://x/a").body(body::empty()).unwrap();
    assert_eq!(deadline(sender.send_request(request)).await.unwrap().status(), 200);
    fixture.server.stop();
    deadline(fixture.server.drained()).await;
    deadline(connection).await.unwrap().ok();
}

#[tokio::test]
async fn gives_up_on_slow_heads() {
    let limits = Limits { head_timeout: Duration::from_millis(100), ..Limits::default() };
    let fixture = Fixture::new(limits).await;
    for slow in [&b"GE"[..], b"GET /a HTTP/1.1\r\nHost: x\r\nX-Slow: "] {
        let mut client = fixture.connect().await;
        client.write_all(slow).await.unwrap();
        read_all(&mut client).await;
    }
}

#[tokio::test]
async fn stops_gracefully() {
    let mut fixture = Fixture::new(Limits::default()).await;
    let mut idle = fixture.connect().await;
    idle.write_all(b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    read_until(&mut idle, "0 bytes").await;
    let mut busy = fixture.connect().await;
    busy.write_all(b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut raw = fixture.connect().await;
    raw.write_all(b"POST /hijack HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    read_until(&mut raw, "\r\n\r\n").await;

    fixture.server.stop();
    assert_eq!(read_all(&mut idle).await, "");
    raw.write_all(b"still here").await.unwrap();
    raw.shutdown().await.unwrap();
    assert_eq!(read_all(&mut raw).await, "STILL HERE");
    fixture.server.cut();
    deadline(fixture.dropped.recv()).await.unwrap();
    deadline(fixture.server.drained()).await;
    assert_eq!(read_all(&mut busy).await, "");
    assert!(!fixture.path.exists());
}

#[tokio::test]
async fn checks_clients_by_certificate() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let (cert, key) = authority.issue("localhost");
    let stranger = Authority::new().issue("client");
    let files = TlsFiles {
        cert: folder.path().join("cert.pem"),
        key: folder.path().join("key.pem"),
        client_ca: Some(folder.path().join("ca.pem")),
    };
    std::fs::write(&files.cert, &cert).unwrap();
    std::fs::write(&files.key, &key).unwrap();
    std::fs::write(folder.path().join("ca.pem"), authority.certificate.pem()).unwrap();

    let (sender, _dropped) = mpsc::unbounded_channel();
    let server = Server::new(Arc::new(Echo { dropped: sender }), Limits::default());
    let address = Address::Tcp { host: "127.0.0.1".to_owned(), port: Some(0) };
    let bound = bind(&address, UnixAccess::default(), 2376).await.unwrap();
    let port = bound.local_addr().unwrap().port();
    let tls = server_config(&files).unwrap();
    let serving = server.clone();
    tokio::spawn(async move { serving.serve(bound, Some(tls)).await });

    let hello = b"POST /hijack HTTP/1.1\r\nHost: x\r\n\r\n";
    let mut known = authority.connect(port, Some(authority.issue("client"))).await.unwrap();
    deadline(exchange_tls(&mut known, hello)).await;
    for wrong in [None, Some(stranger)] {
        // TLS 1.3 clients learn of the refusal only when they read.
        let outcome = async {
            let mut io = authority.connect(port, wrong).await?;
            io.write_all(hello).await?;
            io.read_u8().await
        };
        assert!(deadline(outcome).await.is_err());
    }
}

async fn exchange_tls(io: &mut (impl AsyncRead + AsyncWrite + Unpin), hello: &[u8]) {
    io.write_all(hello).await.unwrap();
    read_until(io, "\r\n\r\n").await;
    io.write_all(b"secret").await.unwrap();
    io.shutdown().await.unwrap();
    assert_eq!(read_all(io).await, "SECRET");
}

struct Authority {
    certificate: rcgen::Certificate,
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        Self { certificate, issuer: rcgen::Issuer::new(params, key) }
    }

    /// Returns certificate and key in PEM.
    fn issue(&self, name: &str) -> (String, String) {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    async fn connect(
        &self,
        port: u16,
        identity: Option<(String, String)>,
    ) -> std::io::Result<tokio_rustls::client::TlsStream<tokio::net::TcpStream>> {
        use rustls_pki_types::pem::PemObject;
        use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};

        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.certificate.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let config = match identity {
            None => builder.with_no_client_auth(),
            Some((cert, key)) => {
                let cert = CertificateDer::from_pem_slice(cert.as_bytes()).unwrap();
                let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
                builder.with_client_auth_cert(vec![cert], key).unwrap()
            }
        };
        let stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await?;
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        connector.connect(ServerName::try_from("localhost").unwrap(), stream).await
    }
}

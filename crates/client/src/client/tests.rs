use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

use super::*;

/// Answers like a daemon that knows nothing newer than `newest`; returns the lines it was asked.
async fn daemon(newest: &'static str, listener: UnixListener, requests: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let (mut stream, _) = listener.accept().await.unwrap();
    while lines.len() < requests {
        let line = request_line(&mut stream).await;
        let known = line.contains("/_ping") || line.contains(&format!("/v{newest}/"));
        let (status, body) = match known {
            true => ("200 OK", "{}"),
            false => ("400 Bad Request", r#"{"message":"client version 1.51 is too new."}"#),
        };
        let body = if line.starts_with("HEAD") { "" } else { body };
        let length = body.len();
        let answer = format!(
            "HTTP/1.1 {status}\r\nApi-Version: {newest}\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        stream.write_all(answer.as_bytes()).await.unwrap();
        lines.push(line);
    }
    lines
}

/// Reads one request without a body.
async fn request_line(stream: &mut UnixStream) -> String {
    let mut text = Vec::new();
    while !text.ends_with(b"\r\n\r\n") {
        text.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(text).unwrap().lines().next().unwrap().to_owned()
}

async fn asked(newest: &'static str, requests: usize) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("sock");
    let daemon = tokio::spawn(daemon(newest, UnixListener::bind(&socket).unwrap(), requests));
    let client = Client::new(Host::Unix(socket), Options::default());
    for _ in 0..2 {
        client.get("/info").await.unwrap();
    }
    assert_eq!(client.current_version(), newest);
    daemon.await.unwrap()
}

#[tokio::test]
async fn a_daemon_of_our_version_is_not_asked_for_it() {
    let line = "GET /v1.51/info HTTP/1.1";
    assert_eq!(asked("1.51", 2).await, [line, line]);
}

#[tokio::test]
async fn an_older_daemon_is_asked_once_and_spoken_to_in_its_version() {
    let expected = [
        "GET /v1.51/info HTTP/1.1",
        "HEAD /_ping HTTP/1.1",
        "GET /v1.43/info HTTP/1.1",
        "GET /v1.43/info HTTP/1.1",
    ];
    assert_eq!(asked("1.43", 4).await, expected);
}

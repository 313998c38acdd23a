//! The protocol's own example, and messages both ways.

use http::HeaderMap;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{accept, serve};

#[test]
fn proves_itself_as_in_the_specification() {
    let mut headers = HeaderMap::new();
    headers.insert("upgrade", "WebSocket".parse().unwrap());
    headers.insert("sec-websocket-version", "13".parse().unwrap());
    headers.insert("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==".parse().unwrap());
    assert_eq!(accept(&headers).unwrap(), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    headers.insert("sec-websocket-version", "8".parse().unwrap());
    assert_eq!(accept(&headers), None);
}

#[tokio::test]
async fn carries_messages() {
    let (mut client, server) = tokio::io::duplex(1024);
    let (mut process, far) = tokio::io::duplex(1024);
    let serving = tokio::spawn(serve(server, far));
    // "Hello" masked, the specification's example; then a ping.
    client
        .write_all(&[0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58])
        .await
        .unwrap();
    let mut hello = [0; 5];
    process.read_exact(&mut hello).await.unwrap();
    assert_eq!(&hello, b"Hello");
    client.write_all(&[0x89, 0x81, 0, 0, 0, 0, b'x']).await.unwrap();
    let mut pong = [0; 3];
    client.read_exact(&mut pong).await.unwrap();
    assert_eq!(pong, [0x8a, 1, b'x']);
    process.write_all(b"out").await.unwrap();
    let mut out = [0; 5];
    client.read_exact(&mut out).await.unwrap();
    assert_eq!(&out, b"\x82\x03out");
    process.shutdown().await.unwrap();
    let mut rest = Vec::new();
    client.read_to_end(&mut rest).await.unwrap();
    assert_eq!(rest, [0x88, 2, 0x03, 0xe8]);
    serving.await.unwrap();
}

#[tokio::test]
async fn refuses_unmasked_and_endless_frames() {
    for frame in [
        &[0x81, 1, b'x'][..],
        &[0x82, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        &[0xc1, 0x80, 0, 0, 0, 0],
    ] {
        let (mut client, server) = tokio::io::duplex(1024);
        let (_process, far) = tokio::io::duplex(1024);
        let serving = tokio::spawn(serve(server, far));
        client.write_all(frame).await.unwrap();
        serving.await.unwrap();
    }
}

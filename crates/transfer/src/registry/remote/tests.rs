use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::RegistryOptions;
use crate::registry::{Proxies, Registries};

/// A server that gives each connection the next of `answers`.
async fn server(answers: Vec<&'static str>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        for answer in answers {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut asked = [0; 4096];
            let count = stream.read(&mut asked).await.unwrap();
            assert!(asked[..count].starts_with(b"GET /"), "{:?}", &asked[..count]);
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    format!("http://{address}/dir/file")
}

async fn text(url: String) -> Result<io::Result<String>, RemoteError> {
    let mut reader = Registries::new(RegistryOptions::default()).open(&url).await?;
    let read = move || {
        let mut text = String::new();
        reader.read_to_string(&mut text).map(|_| text)
    };
    Ok(tokio::task::spawn_blocking(read).await.unwrap())
}

#[tokio::test]
async fn files_come_whole_and_redirects_are_followed() {
    let file = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
    assert_eq!(text(server(vec![file]).await).await.unwrap().unwrap(), "hello");
    let moved =
        "HTTP/1.1 302 Found\r\nConnection: close\r\nLocation: other\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(text(server(vec![moved, file]).await).await.unwrap().unwrap(), "hello");
}

#[tokio::test]
async fn what_ends_early_or_is_refused_is_no_file() {
    let short = "HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhello";
    text(server(vec![short]).await).await.unwrap().unwrap_err();
    let missing = "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n";
    let error = text(server(vec![missing]).await).await.unwrap_err();
    assert_eq!(error.to_string(), "Got HTTP status code >= 400: 404 Not Found");
    let circle =
        "HTTP/1.1 302 Found\r\nConnection: close\r\nLocation: file\r\nContent-Length: 0\r\n\r\n";
    let error = text(server(vec![circle; 11]).await).await.unwrap_err();
    assert!(error.to_string().ends_with("stopped after 10 redirects"), "{error}");
}

#[tokio::test]
async fn addresses_that_lead_nowhere_say_so() {
    let error = text("http://127.0.0.1:1/x.tar".to_owned()).await.unwrap_err();
    let wanted =
        "Get \"http://127.0.0.1:1/x.tar\": dial tcp 127.0.0.1:1: connect: connection refused";
    assert_eq!(error.to_string(), wanted);
    for url in ["ftp://host/x", "http://", "http:///x", "https://[::1/x"] {
        let error = text(url.to_owned()).await.unwrap_err();
        assert!(matches!(error, RemoteError::Address(_)), "{url}: {error}");
    }
}

#[tokio::test]
async fn a_proxy_is_asked_for_the_whole_address() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = format!("http://user:secret@{}", listener.local_addr().unwrap());
    let serving = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut asked = [0; 4096];
        let count = stream.read(&mut asked).await.unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello").await.unwrap();
        String::from_utf8_lossy(&asked[..count]).into_owned()
    });
    let proxies = Proxies { http: proxy, ..Proxies::default() };
    let registries = Registries::new(RegistryOptions { proxies, ..RegistryOptions::default() });
    let mut reader = registries.open("far.invalid/file?x=1").await.unwrap();
    let read = move || {
        let mut text = String::new();
        reader.read_to_string(&mut text).map(|_| text)
    };
    assert_eq!(tokio::task::spawn_blocking(read).await.unwrap().unwrap(), "hello");
    let asked = serving.await.unwrap();
    assert!(asked.starts_with("GET http://far.invalid/file?x=1 HTTP/1.1\r\n"), "{asked}");
    let told = asked.to_ascii_lowercase();
    assert!(told.contains("proxy-authorization: basic dxnlcjpzzwnyzxq="), "{asked}");
}

#[test]
fn credentials_in_an_address_are_left_out() {
    let uri = address("http://me:secret@host:81/x?y").unwrap();
    assert_eq!(uri.to_string(), "http://host:81/x?y");
}

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::fake::FakePlugin;

const MINUTE: Duration = Duration::from_secs(60);

struct Fixture {
    folder: tempfile::TempDir,
    plugins: Plugins,
}

fn fixture() -> Fixture {
    let folder = tempfile::tempdir().unwrap();
    let places =
        Places { sockets: folder.path().to_owned(), files: vec![folder.path().join("etc")] };
    let patience = Patience {
        first: Duration::from_millis(1),
        longest: Duration::from_millis(10),
        total: Duration::from_millis(300),
    };
    let plugins = Plugins::with_patience(places, patience);
    Fixture { folder, plugins }
}

impl Fixture {
    fn socket(&self, name: &str) -> PathBuf {
        self.folder.path().join(format!("{name}.sock"))
    }
}

fn volumes(method: &str, question: &Value) -> (u16, Value) {
    match method {
        "Plugin.Activate" => (200, json!({ "Implements": ["VolumeDriver"] })),
        "VolumeDriver.Path" => (200, json!({ "Mountpoint": question["Name"], "Err": "" })),
        "VolumeDriver.Remove" => (200, json!({ "Err": "busy" })),
        "VolumeDriver.Create" => (500, json!({ "Err": "no space" })),
        "IpamDriver.RequestPool" => (200, json!({ "Error": "no pool" })),
        _ => (404, json!("nothing here")),
    }
}

#[tokio::test]
async fn a_plugin_is_greeted_once_and_then_called() {
    let f = fixture();
    let fake = FakePlugin::serve(f.socket("v"), volumes).unwrap();
    let plugin = f.plugins.get("v", "VolumeDriver").await.unwrap();
    let answer: Value =
        plugin.call("VolumeDriver.Path", &json!({ "Name": "a" }), MINUTE).await.unwrap();
    assert_eq!(answer["Mountpoint"], "a");
    assert!(f.plugins.get("v", "VolumeDriver").await.is_ok());
    assert_eq!(fake.methods(), ["Plugin.Activate", "VolumeDriver.Path"]);
    let error = f.plugins.get("v", "NetworkDriver").await.unwrap_err();
    assert!(matches!(error, Error::NotImplemented { .. }), "{error}");
    assert_eq!(f.plugins.active("VolumeDriver").len(), 1);
    assert_eq!(f.plugins.all("VolumeDriver").await.len(), 1);
    assert!(f.plugins.all("authz").await.is_empty());
}

#[tokio::test]
async fn complaints_are_errors_with_dockers_texts() {
    let f = fixture();
    let _fake = FakePlugin::serve(f.socket("v"), volumes).unwrap();
    let plugin = f.plugins.get("v", "VolumeDriver").await.unwrap();
    for (method, expected) in [
        ("VolumeDriver.Remove", "busy"),
        ("VolumeDriver.Create", "VolumeDriver.Create: no space"),
        ("IpamDriver.RequestPool", "no pool"),
        ("VolumeDriver.Capabilities", "VolumeDriver.Capabilities: \"nothing here\""),
    ] {
        let error = plugin.call::<Value>(method, &json!({}), MINUTE).await.unwrap_err();
        assert_eq!(error.to_string(), expected);
        assert_eq!(error.is_unknown_method(), method.ends_with("Capabilities"));
    }
}

#[tokio::test]
async fn a_plugin_that_comes_late_is_waited_for_and_one_that_never_comes_is_told() {
    let f = fixture();
    let fake = FakePlugin::serve(f.socket("v"), volumes).unwrap();
    let plugin = f.plugins.get("v", "VolumeDriver").await.unwrap();
    drop(fake);
    // Nobody listens at what is left.
    drop(std::os::unix::net::UnixListener::bind(f.socket("v")).unwrap());
    let question = json!({ "Name": "a" });
    let error = plugin.call::<Value>("VolumeDriver.Path", &question, MINUTE).await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
    std::fs::remove_file(f.socket("v")).unwrap();
    // Lost: it is looked for again, and is not there any more.
    let error = f.plugins.get("v", "VolumeDriver").await.unwrap_err();
    assert!(matches!(error, Error::NotFound(_)), "{error}");
    let calling = plugin.call::<Value>("VolumeDriver.Path", &question, MINUTE);
    let coming = async {
        tokio::task::yield_now().await;
        FakePlugin::serve(f.socket("v"), volumes).unwrap()
    };
    let (answer, _fake) = tokio::join!(calling, coming);
    assert_eq!(answer.unwrap()["Mountpoint"], "a");
}

/// Serves one connection with whatever bytes.
fn serve_bytes(f: &Fixture, bytes: &'static [u8]) -> tokio::task::JoinHandle<()> {
    let listener = tokio::net::UnixListener::bind(f.socket("bad")).unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).await;
            let _ = stream.write_all(bytes).await;
            if bytes.is_empty() {
                // Says nothing, for ever.
                std::future::pending::<()>().await;
            }
        }
    })
}

#[tokio::test]
async fn nonsense_is_refused() {
    for bytes in [
        b"garbage\r\n\r\n" as &[u8],
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n[1]",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n{",
        b"HTTP/1.1 200 OK\r\nContent-Length: 22\r\n\r\n{\"Implements\": \"text\"}",
    ] {
        let f = fixture();
        let server = serve_bytes(&f, bytes);
        let error = f.plugins.get("bad", "VolumeDriver").await.unwrap_err();
        let text = String::from_utf8_lossy(bytes);
        assert!(matches!(error, Error::Protocol { .. }), "{text}: {error}");
        server.abort();
    }
}

#[tokio::test]
async fn silence_has_an_end() {
    let f = fixture();
    let server = serve_bytes(&f, b"");
    let address = f.plugins.places.find("bad").unwrap();
    let plugin = Plugin::new("bad".to_owned(), address, f.plugins.patience);
    let asked =
        plugin.call::<Value>("VolumeDriver.List", &json!({}), Duration::from_millis(50)).await;
    let error = asked.unwrap_err();
    assert_eq!(error.to_string(), "plugin \"bad\" did not answer VolumeDriver.List within 0.05 s");
    server.abort();
}

/// Serves the handshake once over TLS; returns the authority's certificate and the port.
async fn serve_tls() -> (String, u16) {
    let signed = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(signed.signing_key.serialize_der());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![signed.cert.der().clone()], key.unwrap())
        .unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).await;
            let answer =
                b"HTTP/1.1 200 OK\r\nContent-Length: 24\r\n\r\n{\"Implements\":[\"authz\"]}";
            let _ = stream.write_all(answer).await;
            let _ = stream.shutdown().await;
        }
    });
    (signed.cert.pem(), port)
}

#[tokio::test]
async fn tls_trusts_only_the_authority_of_the_file() {
    let f = fixture();
    let (authority, port) = serve_tls().await;
    let etc = f.folder.path().join("etc");
    std::fs::create_dir(&etc).unwrap();
    std::fs::write(etc.join("ca.pem"), authority).unwrap();
    let (other, _) = serve_tls().await;
    std::fs::write(etc.join("other.pem"), other).unwrap();
    for (name, file) in [("right", "ca.pem"), ("wrong", "other.pem")] {
        let address = format!("https://localhost:{port}");
        let document = json!({ "Addr": address, "TLSConfig": { "CAFile": etc.join(file) } });
        std::fs::write(etc.join(format!("{name}.json")), document.to_string()).unwrap();
    }
    assert!(f.plugins.get("right", "authz").await.is_ok());
    let error = f.plugins.get("wrong", "authz").await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
}

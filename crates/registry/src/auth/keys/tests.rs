use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::atomic::{AtomicUsize, Ordering};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;

use super::*;

/// A key as services publish them.
fn jwk(id: &str) -> serde_json::Value {
    let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
    let made = EcdsaKeyPair::generate_pkcs8(algorithm, &SystemRandom::new()).unwrap();
    let pair = EcdsaKeyPair::from_pkcs8(algorithm, made.as_ref()).unwrap();
    let point = pair.public_key().as_ref();
    let (x, y) = (URL_SAFE_NO_PAD.encode(&point[1..33]), URL_SAFE_NO_PAD.encode(&point[33..65]));
    json!({"kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": id, "x": x, "y": y})
}

/// A service that answers with what stands in `answer`: a status line and a document.
struct Service {
    address: String,
    answer: Arc<std::sync::Mutex<(&'static str, String)>>,
    asked: Arc<AtomicUsize>,
}

impl Service {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}/keys", listener.local_addr().unwrap());
        let answer = Arc::new(std::sync::Mutex::new(("200 OK", String::new())));
        let asked = Arc::new(AtomicUsize::new(0));
        let service = Self { address, answer: Arc::clone(&answer), asked: Arc::clone(&asked) };
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut head = [0; 4096];
                stream.read(&mut head).unwrap();
                asked.fetch_add(1, Ordering::SeqCst);
                let (status, text) = answer.lock().unwrap().clone();
                let length = text.len();
                write!(
                    stream,
                    "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{text}"
                )
                .ok();
            }
        });
        service
    }

    fn publish(&self, ids: &[&str]) {
        let keys: Vec<_> = ids.iter().map(|id| jwk(id)).collect();
        *self.answer.lock().unwrap() = ("200 OK", json!({"keys": keys}).to_string());
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

fn ids(keys: &Keys) -> Vec<String> {
    keys.all().iter().filter_map(|key| key.id.clone()).collect()
}

#[tokio::test]
async fn published_keys_follow_the_service() {
    let service = Service::start();
    service.publish(&["a"]);
    let mut keys = Keys::foreign(Path::new(&service.address), None).unwrap();
    assert_eq!(service.asked(), 0, "a service that comes later is no failure");
    keys.freshen(Some("a")).await;
    keys.freshen(Some("a")).await;
    assert_eq!((ids(&keys), service.asked()), (vec!["a".to_owned()], 1));
    // The service changes its key; strangers' ids do not make us ask all the time.
    service.publish(&["b"]);
    keys.freshen(Some("b")).await;
    assert_eq!((ids(&keys), service.asked()), (vec!["a".to_owned()], 1));
    if let Source::Published(published) = &mut keys.source {
        published.pause = Duration::ZERO;
    }
    keys.freshen(Some("b")).await;
    assert_eq!((ids(&keys), service.asked()), (vec!["b".to_owned()], 2));
    // It is away, or says nonsense: what was known holds.
    for answer in [
        ("503 Service Unavailable", String::new()),
        ("200 OK", "{}".to_owned()),
        ("200 OK", json!({"keys": [{"kty": "oct", "k": "c2VjcmV0"}]}).to_string()),
        ("302 Found\r\nLocation: /other", String::new()),
        ("200 OK", "x".repeat(MAX_SET + 1)),
    ] {
        *service.answer.lock().unwrap() = answer;
        let before = service.asked();
        keys.freshen(Some("c")).await;
        assert_eq!((ids(&keys), service.asked()), (vec!["b".to_owned()], before + 1));
    }
}

#[test]
fn keys_come_by_tls_only() {
    let error = Keys::foreign(Path::new("http://tokens.test/keys"), None).err().unwrap();
    assert!(error.to_string().contains("need https://"), "{error}");
    Keys::foreign(Path::new("https://tokens.test/keys"), None).unwrap();
    Keys::foreign(Path::new("http://[::1]:80/keys"), None).unwrap();
    assert!(Keys::foreign(Path::new("tests/none"), None).is_err(), "a path is a path");
}

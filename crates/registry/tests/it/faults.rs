//! Malformed input, broken connections, bounds: a clear error, and nothing left behind.

use http::{Method, StatusCode};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::world::{INDEX, MANIFEST, World, code, digest, image_text};

#[tokio::test(flavor = "multi_thread")]
async fn malformed_requests() {
    let world = World::open().await;
    let hex = "a".repeat(64);
    for (method, path, expected) in [
        ("GET", "/v2/A/tags/list".to_owned(), "NAME_INVALID"),
        ("GET", "/v2/..%2f..%2fetc/tags/list".to_owned(), "NAME_INVALID"),
        ("GET", "/v2/a/manifests/.hidden".to_owned(), "TAG_INVALID"),
        ("GET", "/v2/a/manifests/sha256:..%2f..".to_owned(), "DIGEST_INVALID"),
        ("GET", "/v2/a/blobs/sha256:short".to_owned(), "DIGEST_INVALID"),
        ("GET", format!("/v2/a/blobs/md5:{hex}"), "DIGEST_INVALID"),
        ("GET", format!("/v2/a/blobs/sha256:{hex}"), "BLOB_UNKNOWN"),
        ("GET", "/v2/a/manifests/none".to_owned(), "MANIFEST_UNKNOWN"),
        (
            "GET",
            "/v2/a/blobs/uploads/0123456789abcdef0123456789abcdef".to_owned(),
            "BLOB_UPLOAD_UNKNOWN",
        ),
        ("PATCH", "/v2/a/blobs/uploads/..%2f..%2fx".to_owned(), "BLOB_UPLOAD_UNKNOWN"),
        ("POST", "/v2/a/blobs/uploads/?digest=nonsense".to_owned(), "DIGEST_INVALID"),
        ("POST", "/v2/a/blobs/uploads/?digest-algorithm=md5".to_owned(), "DIGEST_INVALID"),
        ("POST", "/v2/a/blobs/uploads/?mount=nonsense&from=b".to_owned(), "DIGEST_INVALID"),
        ("GET", "/v2/a/unknown/x".to_owned(), "UNSUPPORTED"),
        ("BREW", "/v2/a/manifests/x".to_owned(), "UNSUPPORTED"),
    ] {
        let answer = world.send(method, &path).await;
        assert!(answer.status().is_client_error(), "{method} {path}: {}", answer.status());
        assert_eq!(code(answer).await, expected, "{method} {path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_manifests() {
    let world = World::open().await;
    let (config, layer) = (world.blob("a", b"{}").await, world.blob("a", b"layer").await);
    let good = image_text(&config, &layer, 5, "");
    let missing = digest(b"missing");
    for (kind, text, expected) in [
        (MANIFEST, String::new(), "MANIFEST_INVALID"),
        (MANIFEST, "[".repeat(1000), "MANIFEST_INVALID"),
        (INDEX, good.clone(), "MANIFEST_INVALID"),
        ("text/plain", good.clone(), "MANIFEST_INVALID"),
        (MANIFEST, image_text(&config, &layer, 6, ""), "MANIFEST_INVALID"),
        (MANIFEST, image_text(&config, &missing, 5, ""), "MANIFEST_BLOB_UNKNOWN"),
        (MANIFEST, r#"{"schemaVersion":1,"name":"x"}"#.to_owned(), "MANIFEST_INVALID"),
        (
            INDEX,
            format!(
                r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"m","digest":"{missing}","size":1}}]}}"#
            ),
            "MANIFEST_BLOB_UNKNOWN",
        ),
    ] {
        let answer = world.put("a", "v1", kind, text.clone()).await;
        assert!(answer.status().is_client_error());
        assert_eq!(code(answer).await, expected, "{text:.60}");
    }
    let large = format!("{good}{}", " ".repeat(4 << 20));
    let answer = world.put("a", "v1", MANIFEST, large).await;
    assert_eq!(answer.status(), StatusCode::PAYLOAD_TOO_LARGE);
    let wrong = world.put("a", &missing, MANIFEST, good).await;
    assert_eq!(code(wrong).await, "DIGEST_INVALID");
    assert_eq!(world.get("/v2/a/manifests/v1").await.status(), StatusCode::NOT_FOUND);
}

fn uploads(world: &World) -> usize {
    std::fs::read_dir(world.folder.path().join("store/uploads")).unwrap().count()
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_and_too_large_uploads_leave_nothing() {
    let world = World::start(json!({"limits": {"blob": 1000, "uploads": 2}})).await;
    let path = world.upload("a").await;
    let put = world.request(Method::PUT, &format!("{path}?digest={}", digest(b"x"))).body("y");
    assert_eq!(code(put.send().await.unwrap()).await, "DIGEST_INVALID");
    let path = world.upload("a").await;
    let patch = world.request(Method::PATCH, &path).body(vec![0; 1001]).send().await.unwrap();
    assert_eq!(code(patch).await, "SIZE_INVALID");
    let post = format!("/v2/a/blobs/uploads/?digest={}", digest(b"x"));
    let post = world.request(Method::POST, &post).body("z").send().await.unwrap();
    assert_eq!(code(post).await, "DIGEST_INVALID");
    assert_eq!(uploads(&world), 0);
    let (first, _second) = (world.upload("a").await, world.upload("a").await);
    let third = world.send("POST", "/v2/a/blobs/uploads/").await;
    assert_eq!(third.status(), StatusCode::TOO_MANY_REQUESTS);
    assert!(third.headers().contains_key("retry-after"));
    assert_eq!(world.send("DELETE", &first).await.status(), StatusCode::NO_CONTENT);
    world.upload("a").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_breaks_off_can_go_on() {
    let world = World::open().await;
    let path = world.upload("a").await;
    let address = world.running.as_ref().unwrap().addresses()[0];
    for round in 0..3_u64 {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let start = round * 1000;
        let head = format!(
            "PATCH {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\nContent-Range: {start}-{}\r\n\r\n",
            start + 4999
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(&[7; 1000]).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.ok();
        // What came is there, once the server noticed the end.
        let wanted = format!("0-{}", start + 999);
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
        loop {
            let answer = world.get(&path).await;
            if answer.headers()["range"] == wanted {
                break;
            }
            assert!(std::time::Instant::now() < deadline, "{:?}", answer.headers());
            tokio::task::yield_now().await;
        }
    }
    let put = format!("{path}?digest={}", digest(&[7; 3000]));
    assert_eq!(world.send("PUT", &put).await.status(), StatusCode::CREATED);
}

#[tokio::test(flavor = "multi_thread")]
async fn quotas_and_rates() {
    let config = json!({"quotas": [{"repository": "small/*", "size": 100, "tags": 1}]});
    let world = World::start(config).await;
    world.image("small/a", "v1", b"layer", "").await;
    let config = world.blob("small/a", b"{}").await;
    let text = image_text(&config, &digest(b"layer"), 5, "");
    let second = world.put("small/a", "v2", MANIFEST, text.clone()).await;
    assert_eq!(code(second).await, "DENIED");
    assert_eq!(world.put("small/a", "v1", MANIFEST, text).await.status(), StatusCode::CREATED);
    let post = format!("/v2/small/a/blobs/uploads/?digest={}", digest(&[1; 200]));
    let post = world.request(Method::POST, &post).body(vec![1; 200]).send().await.unwrap();
    assert_eq!(code(post).await, "DENIED");
    world.blob("large", &[1; 200]).await;

    let world = World::start(json!({"limits": {"rate": 0.01, "burst": 3}})).await;
    for _ in 0..3 {
        assert_eq!(world.get("/v2/").await.status(), StatusCode::OK);
    }
    let answer = world.get("/v2/").await;
    assert_eq!(answer.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(code(answer).await, "TOOMANYREQUESTS");
}

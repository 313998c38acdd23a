//! The pull-through cache and notifications.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use http::StatusCode;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::world::{World, code, digest};

/// Passes connections on to the upstream, until it is cut; counts blobs that are asked for.
async fn wire(to: std::net::SocketAddr) -> (String, Arc<AtomicUsize>, tokio::task::JoinHandle<()>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let blobs = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&blobs);
    let task = tokio::spawn(async move {
        let mut passing = tokio::task::JoinSet::new();
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            let counted = Arc::clone(&counted);
            passing.spawn(async move {
                let mut upstream = tokio::net::TcpStream::connect(to).await.unwrap();
                let (mut from, mut into) = client.split();
                let (mut back, mut forth) = upstream.split();
                let up = async {
                    let mut piece = vec![0; 65536];
                    while let Ok(count @ 1..) = from.read(&mut piece).await {
                        let text = String::from_utf8_lossy(&piece[..count]);
                        counted.fetch_add(text.matches("/blobs/").count(), Ordering::SeqCst);
                        forth.write_all(&piece[..count]).await.ok();
                    }
                };
                let down = tokio::io::copy(&mut back, &mut into);
                tokio::select! { () = up => {}, _ = down => {} }
            });
        }
    });
    (format!("http://{address}"), blobs, task)
}

#[tokio::test(flavor = "multi_thread")]
async fn fetches_once_keeps_and_serves_what_is_stale() {
    let upstream = World::open().await;
    let layer: Vec<u8> = (0..2_000_000_u32).map(|i| (i % 241) as u8).collect();
    let image = upstream.image("lib/app", "v1", &layer, "").await;
    let (url, blobs, task) = wire(upstream.running.as_ref().unwrap().addresses()[0]).await;
    let cache = World::start(json!({"proxy": {"url": url, "refresh": "0s"}})).await;

    let blob = format!("/v2/lib/app/blobs/{}", digest(&layer));
    let pulls = join_all((0..8).map(|_| async { cache.get(&blob).await.bytes().await.unwrap() }));
    for bytes in pulls.await {
        assert!(bytes == layer);
    }
    assert_eq!(blobs.load(Ordering::SeqCst), 1, "eight pulls, one fetch");
    for reference in ["v1", &image] {
        let found = cache.get(&format!("/v2/lib/app/manifests/{reference}")).await;
        assert_eq!(found.headers()["docker-content-digest"], image);
        assert!(!found.headers().contains_key("warning"));
    }
    assert_eq!(code(cache.get("/v2/lib/app/manifests/none").await).await, "MANIFEST_UNKNOWN");
    let push = cache.send("POST", "/v2/lib/app/blobs/uploads/").await;
    assert_eq!(push.status(), StatusCode::METHOD_NOT_ALLOWED);

    task.abort();
    task.await.ok();
    let stale = cache.get("/v2/lib/app/manifests/v1").await;
    assert_eq!(stale.status(), StatusCode::OK);
    assert!(stale.headers()["warning"].to_str().unwrap().starts_with("110"));
    assert!(cache.get(&blob).await.bytes().await.unwrap() == layer);
    let never = cache.get("/v2/lib/app/manifests/v2").await;
    assert_eq!(never.status(), StatusCode::BAD_GATEWAY);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_blob_never_arrives_whole() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let liar = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = [0; 4096];
            let _ = stream.read(&mut head).await;
            let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nwrong";
            stream.write_all(answer).await.ok();
        }
    });
    let cache = World::start(json!({"proxy": {"url": url}})).await;
    let blob = format!("/v2/a/blobs/{}", digest(b"right"));
    let answer = cache.get(&blob).await;
    assert!(answer.bytes().await.is_err(), "the connection is cut before the last byte");
    let blobs = cache.folder.path().join("store/blobs");
    assert!(!blobs.exists());
    liar.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_budget_is_kept() {
    let upstream = World::open().await;
    upstream.image("a", "v1", b"layer", "").await;
    let proxy = json!({"url": upstream.base, "budget": 1, "refresh": "0s"});
    let cache = World::start(json!({"proxy": proxy})).await;
    assert_eq!(cache.get("/v2/a/manifests/v1").await.status(), StatusCode::OK);
    let stale = cache.get("/v2/a/manifests/v1").await;
    assert!(stale.headers().contains_key("warning"));
    let other = cache.get("/v2/a/manifests/v2").await;
    assert_eq!(other.status(), StatusCode::TOO_MANY_REQUESTS);
}

#[tokio::test(flavor = "multi_thread")]
async fn notifications_are_tried_again() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    let (sender, mut events) = tokio::sync::mpsc::channel::<(String, Value)>(64);
    let hook = tokio::spawn(async move {
        let mut refused = false;
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut text = String::new();
            let mut piece = [0; 4096];
            while !text.ends_with("}]}") {
                let count = stream.read(&mut piece).await.unwrap();
                text.push_str(&String::from_utf8_lossy(&piece[..count]));
            }
            let status = if refused { "200 OK" } else { "503 Busy" };
            let answer =
                format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            stream.write_all(answer.as_bytes()).await.unwrap();
            if refused {
                let (head, body) = text.split_once("\r\n\r\n").unwrap();
                let document = serde_json::from_str(body).unwrap();
                sender.send((head.to_lowercase(), document)).await.unwrap();
            }
            refused = true;
        }
    });
    let hooks =
        json!([{"url": url, "actions": ["push"], "headers": {"authorization": "Bearer x"}}]);
    let world = World::start(json!({"notifications": hooks})).await;
    let image = world.image("team/app", "v1", b"layer", "").await;
    world.get("/v2/team/app/manifests/v1").await;
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let (head, event) = events.recv().await.unwrap();
        assert!(head.contains("application/vnd.docker.distribution.events.v1+json"));
        assert!(head.contains("authorization: bearer x"));
        let event = &event["events"][0];
        assert_eq!(event["action"], "push");
        if event["target"]["tag"] == "v1" {
            assert_eq!(event["target"]["digest"], image);
            assert_eq!(event["target"]["repository"], "team/app");
            break;
        }
        assert!(Instant::now() < deadline);
    }
    hook.abort();
}

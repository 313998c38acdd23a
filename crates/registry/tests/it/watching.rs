//! What tells an operator how it is: health, metrics.

use http::StatusCode;
use serde_json::json;

use crate::world::World;

#[tokio::test(flavor = "multi_thread")]
async fn health_and_metrics() {
    let world = World::start(json!({"delete": true, "debug-listen": "127.0.0.1:0"})).await;
    let debug = world.running.as_ref().unwrap().debug_address().unwrap();
    let ask = |path: &'static str| {
        let asked = world.client.get(format!("http://{debug}{path}")).send();
        async move {
            let answer = asked.await.unwrap();
            (answer.status(), answer.text().await.unwrap())
        }
    };
    assert_eq!(world.get("/healthz").await.status(), StatusCode::OK);
    assert_eq!(ask("/debug/health").await.0, StatusCode::OK);
    world.image("watched/app", "v1", b"layer", "").await;
    world.get("/v2/watched/app/manifests/v1").await;
    world.get("/v2/watched/app/manifests/nope").await;
    world.upload("watched/app").await;
    let (status, text) = ask("/metrics").await;
    assert_eq!(status, StatusCode::OK);
    let value = |start: &str, with: &str| {
        let fits = |line: &&str| line.starts_with(start) && line.contains(with);
        let line = text.lines().find(fits).unwrap_or_else(|| panic!("no {start}: {text}"));
        line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()
    };
    assert_eq!(value("registry_http_requests_total", "4xx"), 1);
    assert!(value("registry_http_requests_total", "2xx") >= 1);
    assert!(value("registry_http_request_duration_seconds_count", "") >= 1);
    assert_eq!(value("registry_uploads", ""), 1);
    assert!(!text.contains("watched"), "names are without bound: {text}");
    assert!(text.ends_with("# EOF\n"), "{text}");
    // The main address has no metrics, and a storage that takes nothing is told.
    assert_eq!(world.get("/metrics").await.status(), StatusCode::NOT_FOUND);
    let store = world.folder.path().join("store");
    std::fs::rename(&store, world.folder.path().join("gone")).unwrap();
    std::fs::write(&store, b"no directory").unwrap();
    assert_eq!(ask("/debug/health").await.0, StatusCode::SERVICE_UNAVAILABLE);
}

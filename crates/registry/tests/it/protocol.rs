//! The endpoints as the specification and clients' habits have them.

use http::{Method, StatusCode};
use serde_json::json;

use crate::world::{INDEX, MANIFEST, World, code, digest, image_text, json as document};

#[tokio::test(flavor = "multi_thread")]
async fn chunks_come_in_order_and_uploads_survive_a_restart() {
    let mut world = World::open().await;
    let path = world.upload("a/b").await;
    let patch = |world: &World, range: &str, body: &'static [u8]| {
        let request = world.request(Method::PATCH, &path).header("content-range", range.to_owned());
        request.body(body).send()
    };
    let answer = patch(&world, "0-4", b"hello").await.unwrap();
    assert_eq!(
        (answer.status(), &answer.headers()["range"]),
        (StatusCode::ACCEPTED, &"0-4".parse().unwrap())
    );
    for (range, body, status) in [
        ("0-4", &b"hello"[..], StatusCode::RANGE_NOT_SATISFIABLE),
        ("7-9", b"abc", StatusCode::RANGE_NOT_SATISFIABLE),
        ("5-4", b"", StatusCode::RANGE_NOT_SATISFIABLE),
        ("x-y", b"abc", StatusCode::RANGE_NOT_SATISFIABLE),
        ("5-9", b"abc", StatusCode::BAD_REQUEST),
    ] {
        assert_eq!(patch(&world, range, body).await.unwrap().status(), status, "{range}");
    }
    world.restart().await;
    let answer = world.get(&path).await;
    assert_eq!(
        (answer.status(), &answer.headers()["range"]),
        (StatusCode::NO_CONTENT, &"0-4".parse().unwrap())
    );
    assert_eq!(patch(&world, "5-7", b", y").await.unwrap().status(), StatusCode::ACCEPTED);
    let wanted = digest(b"hello, you");
    let put = world.request(Method::PUT, &format!("{path}?digest={wanted}")).body("ou");
    assert_eq!(put.send().await.unwrap().status(), StatusCode::CREATED);
    let blob = world.get(&format!("/v2/a/b/blobs/{wanted}")).await;
    assert_eq!(blob.headers()["docker-content-digest"], wanted);
    assert_eq!(blob.text().await.unwrap(), "hello, you");
    assert_eq!(world.get(&path).await.status(), StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread")]
async fn large_blobs_in_whole_and_in_part_on_one_connection() {
    let world = World::open().await;
    let bytes: Vec<u8> = (0..3_000_000_u32).map(|i| (i % 249) as u8).collect();
    let blob = format!("/v2/a/blobs/{}", world.blob("a", &bytes).await);
    for _ in 0..3 {
        assert!(world.get(&blob).await.bytes().await.unwrap() == bytes);
        let part = world.request(Method::GET, &blob).header("range", "bytes=1000-2000999");
        let part = part.send().await.unwrap();
        assert_eq!(part.status(), StatusCode::PARTIAL_CONTENT);
        assert_eq!(part.headers()["content-range"], "bytes 1000-2000999/3000000");
        assert!(part.bytes().await.unwrap() == bytes[1000..2_001_000]);
        let head = world.send("HEAD", &blob).await;
        assert_eq!(head.headers()["content-length"], "3000000");
    }
    let beyond = world.request(Method::GET, &blob).header("range", "bytes=3000000-");
    assert_eq!(beyond.send().await.unwrap().status(), StatusCode::RANGE_NOT_SATISFIABLE);
    let etag = world.send("HEAD", &blob).await.headers()["etag"].clone();
    let same = world.request(Method::GET, &blob).header("if-none-match", etag);
    assert_eq!(same.send().await.unwrap().status(), StatusCode::NOT_MODIFIED);
}

#[tokio::test(flavor = "multi_thread")]
async fn mounting_tags_and_catalog_in_pages() {
    let world = World::open().await;
    let layer = world.blob("from/here", b"layer").await;
    let mount = |from: &str| format!("/v2/to/there/blobs/uploads/?mount={layer}{from}");
    assert_eq!(world.send("POST", &mount("")).await.status(), StatusCode::ACCEPTED);
    assert_eq!(world.send("POST", &mount("&from=no/where")).await.status(), StatusCode::ACCEPTED);
    let answer = world.send("POST", &mount("&from=from/here")).await;
    assert_eq!(answer.status(), StatusCode::CREATED);
    assert_eq!(world.get(&format!("/v2/to/there/blobs/{layer}")).await.status(), StatusCode::OK);

    for tag in ["c", "a", "B", "b"] {
        world.image("from/here", tag, b"layer", "").await;
    }
    let list = |path: &'static str| async { document(world.get(path).await).await };
    let all = json!({"name": "from/here", "tags": ["B", "a", "b", "c"]});
    assert_eq!(list("/v2/from/here/tags/list").await, all);
    let page = world.get("/v2/from/here/tags/list?n=2&last=B").await;
    assert_eq!(page.headers()["link"], "</v2/from/here/tags/list?n=2&last=b>; rel=\"next\"");
    assert_eq!(document(page).await["tags"], json!(["a", "b"]));
    let last = world.get("/v2/from/here/tags/list?n=2&last=a").await;
    assert!(!last.headers().contains_key("link"));
    assert_eq!(list("/v2/from/here/tags/list?n=0").await["tags"], json!([]));
    let bad = world.get("/v2/from/here/tags/list?n=x").await;
    assert_eq!(code(bad).await, "PAGINATION_NUMBER_INVALID");
    assert_eq!(code(world.get("/v2/never/tags/list").await).await, "NAME_UNKNOWN");
    let catalog = list("/v2/_catalog?n=1").await;
    assert_eq!(catalog, json!({"repositories": ["from/here"]}));
    let rest = list("/v2/_catalog?n=5&last=from/here").await;
    assert_eq!(rest, json!({"repositories": ["to/there"]}));
}

#[tokio::test(flavor = "multi_thread")]
async fn referrers_come_with_their_type_and_annotations() {
    let world = World::open().await;
    let subject = digest(b"not pushed yet");
    let more = |kind: &str| {
        format!(
            r#","artifactType":"{kind}","annotations":{{"k":"v"}},"subject":{{"mediaType":"{MANIFEST}","digest":"{subject}","size":3}}"#
        )
    };
    let path = format!("/v2/a/referrers/{subject}");
    let empty = world.get(&path).await;
    assert_eq!(empty.headers()["content-type"], INDEX);
    assert_eq!(document(empty).await["manifests"], json!([]));
    let config = world.blob("a", b"{}").await;
    let layer = world.blob("a", b"sbom").await;
    let text = image_text(&config, &layer, 4, &more("example/sbom"));
    let answer = world.put("a", "sbom", MANIFEST, text).await;
    assert_eq!(answer.headers()["oci-subject"], subject);
    let signature = world.image("a", "", b"signature", &more("example/signature")).await;
    let found = document(world.get(&path).await).await;
    assert_eq!(found["manifests"].as_array().unwrap().len(), 2);
    let filtered = world.get(&format!("{path}?artifactType=example/signature")).await;
    assert_eq!(filtered.headers()["oci-filters-applied"], "artifactType");
    let filtered = document(filtered).await;
    assert_eq!(filtered["manifests"][0]["digest"], signature);
    assert_eq!(filtered["manifests"][0]["annotations"], json!({"k": "v"}));
    assert_eq!(filtered["manifests"].as_array().unwrap().len(), 1);
    let gone = world.send("DELETE", &format!("/v2/a/manifests/{signature}")).await;
    assert_eq!(gone.status(), StatusCode::ACCEPTED);
    let found = document(world.get(&path).await).await;
    assert_eq!(found["manifests"].as_array().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn deleting_a_manifest_takes_its_tags() {
    let world = World::open().await;
    let image = world.image("a", "one", b"layer", "").await;
    let path = format!("/v2/a/manifests/{image}?tag=two&tag=three");
    let config = digest(b"{}");
    let text = image_text(&config, &digest(b"layer"), 5, "");
    let request = world.request(Method::PUT, &path).header("content-type", MANIFEST);
    let answer = request.body(text).send().await.unwrap();
    assert_eq!(answer.headers().get_all("oci-tag").iter().count(), 2);
    assert_eq!(world.send("DELETE", "/v2/a/manifests/two").await.status(), StatusCode::ACCEPTED);
    assert_eq!(world.get("/v2/a/manifests/three").await.status(), StatusCode::OK);
    let delete = world.send("DELETE", &format!("/v2/a/manifests/{image}")).await;
    assert_eq!(delete.status(), StatusCode::ACCEPTED);
    for reference in ["one", "two", "three", &image] {
        let gone = world.get(&format!("/v2/a/manifests/{reference}")).await;
        assert_eq!(code(gone).await, "MANIFEST_UNKNOWN", "{reference}");
    }
    let again = world.send("DELETE", &format!("/v2/a/manifests/{image}")).await;
    assert_eq!(again.status(), StatusCode::NOT_FOUND);
    let blob = format!("/v2/a/blobs/{config}");
    assert_eq!(world.send("DELETE", &blob).await.status(), StatusCode::ACCEPTED);
    assert_eq!(code(world.get(&blob).await).await, "BLOB_UNKNOWN");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_switched_off_is_off() {
    let world = World::start(json!({})).await;
    let image = world.image("a", "v1", b"layer", "").await;
    for path in [
        "/v2/a/manifests/v1",
        &format!("/v2/a/manifests/{image}"),
        &format!("/v2/a/blobs/{}", digest(b"layer")),
    ] {
        let answer = world.send("DELETE", path).await;
        assert_eq!(answer.status(), StatusCode::METHOD_NOT_ALLOWED, "{path}");
        assert_eq!(code(answer).await, "UNSUPPORTED");
    }
    let storage = world.folder.path().join("store");
    let reader = World::start(json!({"read-only": true, "delete": true, "storage": storage})).await;
    assert_eq!(reader.get("/v2/a/manifests/v1").await.status(), StatusCode::OK);
    for (method, path) in [
        ("POST", "/v2/a/blobs/uploads/"),
        ("DELETE", "/v2/a/manifests/v1"),
        ("PUT", "/v2/a/manifests/v2"),
    ] {
        assert_eq!(reader.send(method, path).await.status(), StatusCode::METHOD_NOT_ALLOWED);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_registries_over_one_storage_are_one() {
    let world = World::open().await;
    let sibling = world.sibling().await;
    let other = format!("http://{}", sibling.addresses()[0]);
    let path = world.upload("a").await;
    let patch = world.request(Method::PATCH, &path).body("begun here").send().await.unwrap();
    assert_eq!(patch.status(), StatusCode::ACCEPTED);
    let wanted = digest(b"begun here");
    let put = world.client.put(format!("{other}{path}?digest={wanted}")).send().await.unwrap();
    assert_eq!(put.status(), StatusCode::CREATED, "{:?}", put.text().await);
    assert_eq!(world.get(&format!("/v2/a/blobs/{wanted}")).await.status(), StatusCode::OK);
    world.image("a", "v1", b"x", "").await;
    let found = world.client.get(format!("{other}/v2/a/manifests/v1")).send().await.unwrap();
    assert_eq!(found.status(), StatusCode::OK);
    sibling.stop().await;
}

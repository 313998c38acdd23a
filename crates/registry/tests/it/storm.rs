//! Collections in the middle of pushes, deletions and pulls of images for several platforms, by two registries over one storage: no push
//! and no pull fails that should not, and in the end no garbage is left. `RORQUAL_STORM_SECONDS` makes it longer,
//! `RORQUAL_STORM_PROGRAM` is a program whose `registry` is tried, in two processes, instead of what is in this one;
//! `RORQUAL_STORM_STORE` is the URL of a storage for them, and `RORQUAL_STORM_FILES` the folder where its server keeps the objects.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use http::StatusCode;
use serde_json::json;

use crate::world::{INDEX, MANIFEST, World, digest, json as document};

fn files(folder: &std::path::Path) -> Vec<String> {
    let mut found = Vec::new();
    let Ok(entries) = std::fs::read_dir(folder) else { return found };
    for entry in entries.flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path.to_string_lossy().into_owned());
        }
    }
    found
}

/// What a push may take at most.
const GRACE: Duration = Duration::from_secs(3);

/// Pushes an index of two images; layers are shared between rounds, some soon and some late, so collections find them in all states. A
/// push that took longer than the grace on a busy machine may fail, and is made again.
async fn push(world: &World, name: &str, round: usize) {
    loop {
        let began = Instant::now();
        let answer = try_push(world, name, round).await;
        if answer.status() == StatusCode::CREATED {
            return;
        }
        let took = began.elapsed();
        assert!(took > GRACE, "refused after {took:?}: {:?}", answer.text().await);
    }
}

async fn try_push(world: &World, name: &str, round: usize) -> reqwest::Response {
    let mut entries = Vec::new();
    let layer = if round.is_multiple_of(3) { round % 5 } else { round % 40 };
    for platform in ["amd64", "arm64"] {
        let layer = format!("layer {layer} {platform}");
        let image = world.image(name, "", layer.as_bytes(), "").await;
        entries.push(format!(r#"{{"mediaType":"{MANIFEST}","digest":"{image}","size":1}}"#));
    }
    let text = format!(
        r#"{{"schemaVersion":2,"mediaType":"{INDEX}","manifests":[{}],"annotations":{{"round":"{round}"}}}}"#,
        entries.join(",")
    );
    world.put(name, "v1", INDEX, text).await
}

/// Pulls all of what the tag leads to.
async fn pull(world: &World, name: &str) -> bool {
    let index = world.get(&format!("/v2/{name}/manifests/v1")).await;
    if index.status() == StatusCode::NOT_FOUND {
        return false;
    }
    let index = document(index).await;
    for entry in index["manifests"].as_array().unwrap() {
        let image = entry["digest"].as_str().unwrap();
        let image = world.get(&format!("/v2/{name}/manifests/{image}")).await;
        assert_eq!(image.status(), StatusCode::OK, "a manifest of a tagged index is gone");
        let image = document(image).await;
        for blob in [&image["config"], &image["layers"][0]] {
            let wanted = blob["digest"].as_str().unwrap();
            let answer = world.get(&format!("/v2/{name}/blobs/{wanted}")).await;
            assert_eq!(answer.status(), StatusCode::OK, "a blob of a tagged image is gone");
            assert_eq!(digest(&answer.bytes().await.unwrap()), wanted);
        }
    }
    true
}

/// Two registries over one storage.
async fn two(mut config: serde_json::Value) -> (Arc<World>, Arc<World>) {
    let Some(program) = std::env::var_os("RORQUAL_STORM_PROGRAM") else {
        let world = World::start(config).await;
        let beside = world.beside().await;
        return (Arc::new(world), Arc::new(beside));
    };
    if let Ok(url) = std::env::var("RORQUAL_STORM_STORE") {
        config["storage"] = url.into();
    }
    let world = World::of_program(&program, config.clone()).await;
    if config["storage"].is_null() {
        config["storage"] = world.folder.path().join("store").to_string_lossy().into();
    }
    let beside = World::of_program(&program, config).await;
    (Arc::new(world), Arc::new(beside))
}

#[tokio::test(flavor = "multi_thread")]
async fn collections_hurt_nobody() {
    let seconds = std::env::var("RORQUAL_STORM_SECONDS").ok().and_then(|text| text.parse().ok());
    let until = Instant::now() + Duration::from_secs(seconds.unwrap_or(8));
    // The undo window covers what a pull that has begun still needs of an index that is deleted meanwhile.
    let gc = json!({"interval": "100ms", "grace": "3s", "untagged": "3s", "undo": "2s"});
    let (world, beside) = two(json!({"delete": true, "gc": gc})).await;
    let (pushed, pulled) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let mut tasks = tokio::task::JoinSet::new();
    for worker in 0..3 {
        let sides = [Arc::clone(&world), Arc::clone(&beside)];
        let (pushed, pulled) = (Arc::clone(&pushed), Arc::clone(&pulled));
        tasks.spawn(async move {
            let name = format!("storm/w{worker}");
            for round in 0.. {
                // Each step at the other side than the one before, and the next round the other way about.
                let (here, there) = (&sides[round % 2], &sides[(round + 1) % 2]);
                push(here, &name, round).await;
                pushed.fetch_add(1, Ordering::Relaxed);
                assert!(pull(there, &name).await, "nobody deleted it");
                pulled.fetch_add(1, Ordering::Relaxed);
                let delete = here.send("DELETE", &format!("/v2/{name}/manifests/v1")).await;
                assert_eq!(delete.status(), StatusCode::ACCEPTED);
                if Instant::now() > until {
                    break;
                }
            }
        });
    }
    // Somebody who only pulls what is always there.
    push(&world, "storm/steady", 0).await;
    let steady = Arc::clone(&world);
    tasks.spawn(async move {
        while Instant::now() < until {
            assert!(pull(&steady, "storm/steady").await);
        }
    });
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap();
    }
    assert!(pushed.load(Ordering::Relaxed) > 3 && pulled.load(Ordering::Relaxed) > 3);
    world.send("DELETE", "/v2/storm/steady/manifests/v1").await;
    let store = std::env::var_os("RORQUAL_STORM_FILES")
        .map_or_else(|| world.folder.path().join("store"), std::path::PathBuf::from);
    assert!(!files(&store).is_empty(), "{} is not where the storage is", store.display());
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let left: Vec<String> = files(&store)
            .into_iter()
            .filter(|path| !path.contains("/catalog/") && !path.ends_with("/gc/lock"))
            .collect();
        if left.is_empty() {
            break;
        }
        assert!(Instant::now() < deadline, "garbage: {left:#?}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let peaks = [world.peak(), beside.peak()];
    println!(
        "{pushed:?} pushes, {pulled:?} pulls, both of an index of two images; peaks of {peaks:?} KiB"
    );
}

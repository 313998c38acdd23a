//! Pushes: what is sent, what is not, and what becomes of broken connections.

use std::sync::Arc;
use std::time::Duration;

use rorqual_content::{Blobs, Images};
use rorqual_core::{ImageId, Reference};
use rorqual_transfer::{
    Error, ProgressSink, PullRequest, PushRequest, Pushed, RegistryAuth, RegistryOptions, Transfer,
};
use serde_json::{Value, json};

use crate::hostile::{
    Answer, Asked, INDEX, Registry, architecture, digest, honest, noise, unknown,
};
use crate::world::{World, tar};

fn options() -> RegistryOptions {
    RegistryOptions {
        pause: Duration::from_millis(1),
        certificates: Vec::new(),
        ..RegistryOptions::default()
    }
}

async fn world() -> World {
    let world = World::new().await;
    world.transfer.configure(options());
    world
}

async fn push(world: &World, image: &ImageId, name: Reference) -> Result<Pushed, Error> {
    let request =
        PushRequest { image: image.clone(), name, platform: None, auth: RegistryAuth::default() };
    let pushing = world.transfer.push(request, Arc::new(|_| ()));
    tokio::time::timeout(Duration::from_secs(60), pushing).await.expect("a push ends")
}

async fn pull(world: &World, name: Reference) -> ImageId {
    let request = PullRequest { name, platform: None, auth: RegistryAuth::default() };
    world.transfer.pull(request, Arc::new(|_| ())).await.unwrap().id
}

fn sent(registry: &Registry) -> Vec<String> {
    let changes = |line: &String| !line.starts_with("GET") && !line.starts_with("HEAD");
    registry.lines().into_iter().filter(changes).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_made_here_comes_back_the_same() {
    let registry = Registry::start();
    let here = world().await;
    let image = here.install("made:1", &[("hello", "world")]).await;
    let name = registry.name("made:1");
    let pushed = push(&here, &image, name.clone()).await.unwrap();
    let bytes = registry.shelf.manifests.lock().unwrap()["1"].1.clone();
    assert_eq!(digest(&bytes), pushed.target.digest);
    let manifest: Value = serde_json::from_slice(&bytes).unwrap();
    assert_eq!(manifest["layers"][0]["mediaType"], "application/vnd.oci.image.layer.v1.tar+gzip");
    let record = here.images.image(&image).await.unwrap();
    assert_eq!(record.digests[0].digest(), Some(&pushed.target.digest));
    // Nothing is sent a second time, neither by this daemon nor by one that knows nothing of the first.
    let before = sent(&registry).len();
    push(&here, &image, name.clone()).await.unwrap();
    let there = world().await;
    let same = there.install("made:1", &[("hello", "world")]).await;
    assert_eq!(push(&there, &same, name.clone()).await.unwrap(), pushed);
    assert_eq!(sent(&registry).len(), before, "{:?}", sent(&registry));
    let other = world().await;
    assert_eq!(pull(&other, name).await, image);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pulled_image_goes_on_as_it_came() {
    let (from, to) = (Registry::start(), Registry::start());
    let manifest = from.image("v1", architecture(), &[tar(&[("a", b"1")]), noise(20_000_000)]);
    let here = world().await;
    let image = pull(&here, from.name("a:v1")).await;
    let pushed = push(&here, &image, to.name("b:v2")).await.unwrap();
    assert_eq!(pushed.target.digest, digest(manifest.to_string().as_bytes()));
    // The large layer went in chunks.
    assert!(sent(&to).iter().any(|line| line.starts_with("PATCH")), "{:?}", sent(&to));
    let other = world().await;
    assert_eq!(pull(&other, to.name("b:v2")).await, image);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blobs_are_mounted_from_where_they_came() {
    let registry = Registry::start();
    registry.noisy("v1", 10_000);
    let here = world().await;
    let image = pull(&here, registry.name("from:v1")).await;
    registry.rule(|asked, shelf| {
        let elsewhere = asked.path.contains("/v2/to/blobs/sha256") && asked.method == "HEAD";
        if elsewhere {
            return Some(Answer::status(404));
        }
        let mount = asked.path.contains("mount=") && asked.path.ends_with("from=from");
        Some(if mount { Answer::status(201) } else { honest(asked, shelf) })
    });
    push(&here, &image, registry.name("to:v1")).await.unwrap();
    let posts = registry.log().iter().filter(|asked| asked.method == "POST").count();
    let mounts = registry.lines().iter().filter(|line| line.contains("mount=")).count();
    // The layer is mounted; the config, which nobody lists, is sent.
    assert_eq!((posts, mounts), (2, 1), "{:?}", registry.lines());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn broken_uploads_are_taken_up() {
    let (from, to) = (Registry::start(), Registry::start());
    from.noisy("v1", 12_000_000);
    let here = world().await;
    let image = pull(&here, from.name("a:v1")).await;
    to.rule(|asked, shelf| {
        // Each request fails in some way before it succeeds.
        if asked.nth == 0 && asked.method != "GET" {
            return Some(match asked.method.as_str() {
                "PATCH" => Answer { cut: Some(0), length: Some(10), ..Answer::status(500) },
                _ => Answer::status(503),
            });
        }
        Some(honest(asked, shelf))
    });
    push(&here, &image, to.name("b:v1")).await.unwrap();
    let other = world().await;
    assert_eq!(pull(&other, to.name("b:v1")).await, image);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_are_told() {
    let registry = Registry::start();
    let here = world().await;
    let image = here.install("made:1", &[("hello", "world")]).await;
    registry.rule(|_, _| {
        let body = unknown("DENIED", "requested access to the resource is denied");
        Some(Answer { body, ..Answer::status(403) })
    });
    let error = push(&here, &image, registry.name("made:1")).await.unwrap_err();
    // The head of a refusal has no words.
    assert_eq!(error.to_string(), "denied: requested access to the resource is denied");
    registry.rule(|asked, shelf| {
        let body = unknown("MANIFEST_INVALID", "manifest invalid");
        let last = asked.method == "PUT" && asked.path.contains("/manifests/");
        Some(if last { Answer { body, ..Answer::status(400) } } else { honest(asked, shelf) })
    });
    let error = push(&here, &image, registry.name("made:1")).await.unwrap_err();
    assert_eq!(error.to_string(), "manifest invalid: manifest invalid");
    assert!(std::fs::read_dir(here.temp.path().join("content/ingest")).unwrap().next().is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_index_goes_whole_or_only_what_is_here() {
    let (from, to) = (Registry::start(), Registry::start());
    let entry = |tag: &str, architecture: &str| {
        let manifest = from.image(tag, architecture, &[tar(&[("f", tag.as_bytes())])]).to_string();
        json!({"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest(manifest.as_bytes()).to_string(),
               "size": manifest.len(), "platform": {"os": "linux", "architecture": architecture}})
    };
    let manifests = [entry("own", architecture()), entry("other", "riscv64")];
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests}).to_string();
    from.put_manifest("multi", INDEX, index.as_bytes());
    let here = world().await;
    let image = pull(&here, from.name("a:multi")).await;
    let pushed = push(&here, &image, to.name("b:part")).await.unwrap();
    assert_eq!(pushed.target.digest.to_string(), manifests[0]["digest"].as_str().unwrap());
    let request = PullRequest {
        name: from.name("a:multi"),
        platform: Some("linux/riscv64".parse().unwrap()),
        auth: RegistryAuth::default(),
    };
    here.transfer.pull(request, Arc::new(|_| ())).await.unwrap();
    let pushed = push(&here, &image, to.name("b:whole")).await.unwrap();
    assert_eq!(pushed.target.digest, digest(index.as_bytes()));
    assert!(here.blobs.size(&pushed.target.digest).unwrap().is_some());
}

/// Makes an image here of plain layers.
async fn made_of(world: &World, name: &str, layers: &[&[u8]]) -> ImageId {
    let diffs: Vec<String> = layers.iter().map(|layer| digest(layer).to_string()).collect();
    let config = json!({
        "architecture": architecture(), "os": "linux", "rootfs": {"type": "layers", "diff_ids": diffs},
    });
    let config = config.to_string();
    let paths: Vec<String> = (0..layers.len()).map(|at| format!("{at}/layer.tar")).collect();
    let manifest =
        json!([{"Config": "config.json", "RepoTags": [name], "Layers": paths}]).to_string();
    let mut files: Vec<(&str, &[u8])> =
        paths.iter().map(String::as_str).zip(layers.iter().copied()).collect();
    files.push(("config.json", config.as_bytes()));
    files.push(("manifest.json", manifest.as_bytes()));
    world.load(tar(&files)).await.unwrap()[0].id.clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_next_daemon_packs_nothing_to_find_out() {
    let registry = Registry::start();
    let mut here = world().await;
    let image = made_of(&here, "made:1", &[&noise(50_000)]).await;
    let pushed = push(&here, &image, registry.name("made:1")).await.unwrap();
    let manifest = here.blobs.read(&pushed.target.digest, 1 << 20).unwrap();
    let manifest: Value = serde_json::from_slice(&manifest).unwrap();
    let packed: rorqual_core::Digest =
        manifest["layers"][0]["digest"].as_str().unwrap().parse().unwrap();
    assert!(here.blobs.size(&packed).unwrap().is_some(), "it was packed for the push");
    let before = sent(&registry).len();
    let kept = here.images.image(&image).await.unwrap().target.digest;
    here.blobs.collect(vec![kept]).await.unwrap();
    assert!(here.blobs.size(&packed).unwrap().is_none());
    here.restart(options());
    assert_eq!(push(&here, &image, registry.name("made:1")).await.unwrap(), pushed);
    assert_eq!(sent(&registry).len(), before, "{:?}", sent(&registry));
    assert!(here.blobs.size(&packed).unwrap().is_none(), "it was not packed again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn layers_that_came_packed_go_on_in_images_made_of_them() {
    let (from, to) = (Registry::start(), Registry::start());
    let (base, own) = (noise(40_000), tar(&[("own", b"1")]));
    let came = from.image("v1", architecture(), std::slice::from_ref(&base));
    let here = world().await;
    pull(&here, from.name("base:v1")).await;
    let image = made_of(&here, "derived:1", &[&base, &own]).await;
    for registry in [&from, &to] {
        push(&here, &image, registry.name("derived:1")).await.unwrap();
        let bytes = registry.shelf.manifests.lock().unwrap()["1"].1.clone();
        let manifest: Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(manifest["layers"][0]["digest"], came["layers"][0]["digest"]);
        let other = world().await;
        assert_eq!(pull(&other, registry.name("derived:1")).await, image);
    }
    let blob = came["layers"][0]["digest"].as_str().unwrap();
    let again = sent(&from).into_iter().filter(|line| line.contains(blob)).count();
    assert_eq!(again, 0, "where it came from, it is not sent: {:?}", sent(&from));
}

/// Whether a request's length was not known when it was made.
fn is_streamed(asked: &Asked) -> bool {
    asked.method == "PATCH" && asked.headers.contains_key("transfer-encoding")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_layers_are_sent_while_they_are_packed() {
    let registry = Registry::start();
    let here = world().await;
    let image = made_of(&here, "made:1", &[&noise(9_000_000), &noise(50_000)]).await;
    push(&here, &image, registry.name("made:1")).await.unwrap();
    let streamed = registry.log().into_iter().filter(is_streamed).collect::<Vec<_>>();
    assert_eq!(streamed.len(), 1, "{:?}", registry.lines());
    assert!(streamed[0].body.len() > 9_000_000, "all of it in one request");
    let other = world().await;
    assert_eq!(pull(&other, registry.name("made:1")).await, image);
    assert!(registry.shelf.uploads.lock().unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn how_much_of_a_layer_is_sent_is_told_while_it_is_packed() {
    let registry = Registry::start();
    let here = world().await;
    // What comes first can be made small, what comes then cannot.
    let layer = tar(&[("small", &vec![b'a'; 20_000_000]), ("large", &noise(9_000_000))]);
    let image = made_of(&here, "made:1", &[&layer]).await;
    let told = Arc::new(std::sync::Mutex::new(Vec::new()));
    let sink: ProgressSink = {
        let told = Arc::clone(&told);
        Arc::new(move |progress| {
            if progress.status == "Pushing" {
                told.lock().unwrap().push((progress.current, progress.total));
            }
        })
    };
    let (platform, auth) = (None, RegistryAuth::default());
    let request = PushRequest { image, name: registry.name("made:1"), platform, auth };
    here.transfer.push(request, sink).await.unwrap();
    assert!(registry.log().iter().any(is_streamed), "{:?}", registry.lines());
    let told = told.lock().unwrap();
    let total = layer.len() as u64;
    assert!(told.len() > 3 && told.iter().all(|(_, of)| *of == total), "{told:?}");
    assert!(told.is_sorted() && told.last() == Some(&(total, total)), "{told:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_breaks_while_it_is_packed_is_taken_up() {
    // A registry that keeps nothing of what came, one that takes no bodies of unknown length, one that loses the answer to the end.
    for broken in ["cut", "411", "lost"] {
        let registry = Registry::start();
        let here = world().await;
        let image = made_of(&here, "made:1", &[&noise(9_000_000)]).await;
        registry.rule(move |asked, shelf| {
            let answer = honest(asked, shelf);
            let ends = asked.method == "PUT" && asked.path.contains("/uploads/");
            Some(match broken {
                "cut" if is_streamed(asked) => {
                    shelf.uploads.lock().unwrap().values_mut().for_each(|all| all.truncate(7));
                    Answer { cut: Some(0), length: Some(10), ..Answer::status(500) }
                }
                "411" if is_streamed(asked) => {
                    shelf.uploads.lock().unwrap().clear();
                    Answer::status(411)
                }
                "lost" if ends && asked.nth == 0 => Answer::status(502),
                _ => answer,
            })
        });
        push(&here, &image, registry.name("made:1")).await.unwrap();
        assert!(registry.log().iter().any(is_streamed), "{broken}");
        let other = world().await;
        assert_eq!(pull(&other, registry.name("made:1")).await, image, "{broken}");
        let ingest = here.temp.path().join("content/ingest");
        assert!(std::fs::read_dir(ingest).unwrap().next().is_none(), "{broken}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_turns_out_to_be_there_is_not_sent_to_its_end() {
    let registry = Registry::start();
    let layer = noise(9_000_000);
    let (here, there) = (world().await, world().await);
    let image = made_of(&here, "made:1", &[&layer]).await;
    let pushed = push(&here, &image, registry.name("made:1")).await.unwrap();
    // This registry takes no more, and the other daemon knows nothing of what the first sent.
    registry.shelf.stalls.store(true, std::sync::atomic::Ordering::Relaxed);
    let same = made_of(&there, "made:1", &[&layer]).await;
    assert_eq!(push(&there, &same, registry.name("made:1")).await.unwrap(), pushed);
    assert!(registry.shelf.uploads.lock().unwrap().is_empty(), "{:?}", registry.lines());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_packs_for_a_push_that_is_given_up() {
    let registry = Registry::start();
    let here = world().await;
    let image = made_of(&here, "made:1", &[&noise(30_000_000)]).await;
    registry.shelf.stalls.store(true, std::sync::atomic::Ordering::Relaxed);
    let pushing = push(&here, &image, registry.name("made:1"));
    let opened = async {
        while !registry.log().iter().any(|asked| asked.method == "POST") {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        _ = pushing => panic!("the registry takes nothing"),
        () = opened => {}
    }
    let ingest = here.temp.path().join("content/ingest");
    let empty = async {
        while std::fs::read_dir(&ingest).unwrap().next().is_some() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), empty).await.expect("it is swept");
}

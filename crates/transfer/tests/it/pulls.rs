//! Pulls from registries that do everything they should not. Whatever they do, nothing unverified is visible afterwards and no
//! unfinished blob or layer stays.

use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use rorqual_content::{Blobs, Images};
use rorqual_core::{Classify, DiffId, ErrorKind, Platform, Reference};
use rorqual_snapshot::Snapshotter;
use rorqual_transfer::{
    Error, Progress, Proxies, PullRequest, Pulled, RegistryAuth, RegistryOptions, RegistryRule,
    SearchRequest, SearchResult, Transfer,
};
use serde_json::{Value, json};

use crate::hostile::{
    Answer, INDEX, MANIFEST, Registry, architecture, digest, honest, noise, ranged, unknown,
};
use crate::world::{World, gzip, tar};

fn options() -> RegistryOptions {
    RegistryOptions {
        pause: Duration::from_millis(1),
        patience: Duration::from_secs(5),
        certificates: Vec::new(),
        ..RegistryOptions::default()
    }
}

async fn world() -> World {
    let world = World::new().await;
    world.transfer.configure(options());
    world
}

async fn pull(world: &World, name: Reference) -> Result<Pulled, Error> {
    pull_as(world, name, RegistryAuth::default()).await
}

async fn pull_as(world: &World, name: Reference, auth: RegistryAuth) -> Result<Pulled, Error> {
    let request = PullRequest { name, platform: None, auth };
    let pulling = world.transfer.pull(request, Arc::new(|_| ()));
    tokio::time::timeout(Duration::from_secs(60), pulling).await.expect("a pull ends")
}

/// Lists what is unfinished, of blobs and of layers.
fn unfinished(world: &World) -> Vec<String> {
    let entries = |dir: &str| {
        let entries = std::fs::read_dir(world.temp.path().join(dir)).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap())
    };
    let layers = entries("layers").filter(|name| name.starts_with(".ingest-"));
    entries("content/ingest").chain(layers).collect()
}

/// Nothing unfinished may stay.
fn assert_clean(world: &World) {
    assert_eq!(unfinished(world), Vec::<String>::new());
}

async fn assert_nothing(world: &World) {
    assert_clean(world);
    assert!(world.images.list().await.unwrap().is_empty());
}

async fn refused(registry: &Registry, name: &str) -> (ErrorKind, String) {
    let world = world().await;
    let error = pull(&world, registry.name(name)).await.expect_err("it must be refused");
    assert_nothing(&world).await;
    (error.kind(), rorqual_core::full_message(&error))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_is_pulled_once() {
    let registry = Registry::start();
    registry.image("v1", architecture(), &[tar(&[("a", b"1")]), noise(100_000)]);
    let world = world().await;
    let told = Arc::new(Mutex::new(Vec::new()));
    let sink = {
        let told = Arc::clone(&told);
        Arc::new(move |progress: Progress| told.lock().unwrap().push(progress))
    };
    let name = registry.name("a/b:v1");
    let request = PullRequest { name: name.clone(), platform: None, auth: RegistryAuth::default() };
    let pulled = world.transfer.pull(request, sink).await.unwrap();
    assert!(pulled.new);
    let record = world.images.resolve(&name.to_string()).await.unwrap();
    assert_eq!(record.id, pulled.id);
    assert_eq!(
        record.digests[0].to_string(),
        format!("{}/a/b@{}", registry.address, pulled.digest)
    );
    assert_eq!(record.document.config.cmd.as_deref(), Some(&["/x".to_owned()][..]));
    for id in &record.document.rootfs.diff_ids {
        assert!(world.snapshots.find_layer(id).await.unwrap().is_some());
    }
    let statuses = told.lock().unwrap().iter().map(|one| one.status.clone()).collect::<Vec<_>>();
    for expected in [
        "Pulling from",
        "Pulling fs layer",
        "Download complete",
        "Pull complete",
        "Digest: ",
        "Status: Downloaded newer image for",
    ] {
        assert!(
            statuses.iter().any(|status| status.starts_with(expected)),
            "{expected}: {statuses:?}"
        );
    }
    let before = registry.log().len();
    let again = pull(&world, name.clone()).await.unwrap();
    assert!(!again.new);
    let more = registry.log().split_off(before);
    assert_eq!(more.iter().filter(|asked| asked.method == "GET").count(), 0, "{more:?}");
    assert_clean(&world);
    // By digest, with a tag beside it that is not looked at.
    let by_digest: Reference =
        format!("{}/a/b:nope@{}", registry.address, pulled.digest).parse().unwrap();
    assert_eq!(pull(&world, by_digest).await.unwrap().id, pulled.id);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shared_layers_are_not_fetched_again() {
    let registry = Registry::start();
    let base = noise(50_000);
    registry.image("v1", architecture(), std::slice::from_ref(&base));
    registry.image("v2", architecture(), &[base.clone(), tar(&[("b", b"2")])]);
    let world = world().await;
    pull(&world, registry.name("a:v1")).await.unwrap();
    pull(&world, registry.name("a:v2")).await.unwrap();
    let shared = format!("/v2/a/blobs/{}", digest(&gzip(&base)));
    assert_eq!(registry.lines().iter().filter(|line| line.ends_with(&shared)).count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_pulls_share_the_work() {
    let registry = Registry::start();
    registry.noisy("v1", 2_000_000);
    registry.rule(|asked, shelf| {
        // Slow enough for the other one to come.
        asked.is_blob().then(|| std::thread::sleep(Duration::from_millis(300)));
        Some(honest(asked, shelf))
    });
    let world = world().await;
    let (a, b) =
        tokio::join!(pull(&world, registry.name("a:v1")), pull(&world, registry.name("a:v1")));
    assert_eq!(a.unwrap().id, b.unwrap().id);
    let record = world.images.list().await.unwrap().remove(0);
    let layer = format!("blobs/{}", digest(&gzip(&noise(2_000_000))));
    let fetched = registry.lines().iter().filter(|line| line.ends_with(&layer)).count();
    assert_eq!((fetched, record.document.rootfs.diff_ids.len()), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_cut_at_every_tenth_goes_on() {
    for ranges in [true, false] {
        let registry = Registry::start();
        let layer = noise(1_000_000);
        registry.image("v1", architecture(), std::slice::from_ref(&layer));
        let packed = gzip(&layer);
        let path = format!("/v2/a/blobs/{}", digest(&packed));
        registry.rule(move |asked, _| {
            if asked.path != path {
                return None;
            }
            let tenth = packed.len() / 10;
            if ranges {
                let answer = ranged(asked, &packed);
                let cut = (answer.body.len() > tenth).then_some(tenth);
                return Some(Answer { cut, ..answer });
            }
            // A server without ranges always begins anew.
            let reach = tenth * (asked.nth + 1);
            Some(Answer {
                cut: (reach < packed.len()).then_some(reach),
                ..Answer::bytes(packed.clone())
            })
        });
        let world = world().await;
        pull(&world, registry.name("a:v1")).await.unwrap();
        assert_clean(&world);
        let tries = registry.log().iter().filter(|asked| asked.is_blob()).count();
        assert!(tries >= 10, "{tries}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn busy_and_broken_servers_are_asked_again() {
    let registry = Registry::start();
    registry.noisy("v1", 10_000);
    registry.rule(|asked, shelf| match asked.nth {
        0 => Some(Answer::status(429).with("Retry-After", "0")),
        1 => Some(Answer::status(503)),
        2 => Some(Answer { cut: Some(0), ..honest(asked, shelf) }),
        _ => None,
    });
    let world = world().await;
    pull(&world, registry.name("a:v1")).await.unwrap();
    assert_clean(&world);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_stays_busy_is_told() {
    let registry = Registry::start();
    registry.rule(|_, _| Some(Answer::status(429)));
    let (_, text) = refused(&registry, "a:v1").await;
    assert!(text.contains("toomanyrequests"), "{text}");
    let tries = registry.log().len();
    assert_eq!(tries, 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_missing_is_told_in_dockers_words() {
    let registry = Registry::start();
    let (kind, text) = refused(&registry, "a:v1").await;
    assert_eq!(kind, ErrorKind::NotFound);
    let name = registry.address;
    assert_eq!(
        text,
        format!("manifest for {name}/a:v1 not found: manifest unknown: manifest unknown")
    );
    registry.rule(|_, _| {
        let body = unknown("DENIED", "requested access to the resource is denied");
        Some(Answer { body, ..Answer::status(403) })
    });
    let (kind, text) = refused(&registry, "a:v1").await;
    assert_eq!(kind, ErrorKind::NotFound);
    assert_eq!(
        text,
        format!(
            "pull access denied for {name}/a, repository does not exist or may require 'docker login': denied: \
             requested access to the resource is denied"
        )
    );
}

/// Changes the manifest of an image and pulls it.
async fn with_manifest(change: impl FnOnce(&mut Value)) -> (ErrorKind, String) {
    let registry = Registry::start();
    let mut manifest = registry.noisy("v1", 10_000);
    change(&mut manifest);
    registry.put_manifest("v1", MANIFEST, manifest.to_string().as_bytes());
    refused(&registry, "a:v1").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn absurd_manifests_are_refused() {
    type Change = Box<dyn FnOnce(&mut Value)>;
    let cases: Vec<(&str, Change)> = vec![
        ("the manifest has 0 layers, the config 1", Box::new(|m| m["layers"] = json!([]))),
        (
            "at the registry, but its manifest says 1",
            Box::new(|m| m["layers"][0]["size"] = 1.into()),
        ),
        (
            "its manifest says 1099511627777",
            Box::new(|m| m["layers"][0]["size"] = ((1_u64 << 40) + 1).into()),
        ),
        ("more than 8388608", Box::new(|m| m["config"]["size"] = (1_u64 << 50).into())),
        ("unsupported type", Box::new(|m| m["layers"][0]["mediaType"] = "text/plain".into())),
        (
            "only images can be pulled",
            Box::new(|m| m["config"]["mediaType"] = "application/wasm".into()),
        ),
        (
            "Encountered remote \"application/vnd.oci.empty.v1+json\"(unknown) when fetching",
            Box::new(|m| m["config"]["mediaType"] = "application/vnd.oci.empty.v1+json".into()),
        ),
        (
            "use \"docker model pull/run\" instead",
            Box::new(|m| {
                m["config"]["mediaType"] =
                    "application/vnd.docker.ai.model.config.v0.1+json".into();
            }),
        ),
        (
            "plugin config",
            Box::new(|m| m["config"]["mediaType"] = "application/vnd.docker.plugin.v1+json".into()),
        ),
        ("schema 1", Box::new(|m| m["schemaVersion"] = 1.into())),
        ("calls itself", Box::new(|m| m["mediaType"] = INDEX.into())),
        ("that is none", Box::new(|m| m["manifests"] = json!([]))),
        ("unsupported manifest format", Box::new(|m| m["mediaType"] = "application/x".into())),
    ];
    for (expected, change) in cases {
        if expected == "unsupported manifest format" {
            let registry = Registry::start();
            registry.put_manifest("v1", "application/x", b"{\"schemaVersion\":2}");
            let (_, text) = refused(&registry, "a:v1").await;
            assert!(text.contains(expected), "{text}");
            continue;
        }
        let (_, text) = with_manifest(change).await;
        // A size beyond all bounds may be told as one or the other.
        let fits = text.contains(expected) || text.contains("more than 1099511627776");
        assert!(fits, "expected {expected}, got {text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn documents_that_are_none_are_refused() {
    let registry = Registry::start();
    for body in ["", "[", "{}", "null", "{\"schemaVersion\":2,\"layers\":3}"] {
        registry.put_manifest("v1", MANIFEST, body.as_bytes());
        refused(&registry, "a:v1").await;
    }
    registry.put_manifest("v1", MANIFEST, &vec![b' '; (4 << 20) + 1]);
    let (_, text) = refused(&registry, "a:v1").await;
    assert!(text.contains("more than 4194304 bytes"), "{text}");
    // Thousands of layers.
    let mut manifest = registry.noisy("v1", 10);
    let layer = manifest["layers"][0].clone();
    manifest["layers"] = vec![layer; 5000].into();
    let diffs = vec![digest(&noise(10)).to_string(); 5000];
    let config = json!({"os": "linux", "architecture": architecture(), "rootfs": {"type": "layers", "diff_ids": diffs}});
    let config = config.to_string();
    manifest["config"]["digest"] = registry.put_blob(config.as_bytes()).to_string().into();
    manifest["config"]["size"] = config.len().into();
    registry.put_manifest("v1", MANIFEST, manifest.to_string().as_bytes());
    let (_, text) = refused(&registry, "a:v1").await;
    assert!(text.contains("max depth exceeded"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_bytes_are_refused() {
    let registry = Registry::start();
    registry.noisy("v1", 100_000);
    let packed = gzip(&noise(100_000));
    let blob = format!("/v2/a/blobs/{}", digest(&packed));
    let other = gzip(&noise(100_001));
    let (shorter, longer) = (packed[..packed.len() - 1].to_vec(), [&packed[..], b"x"].concat());
    let cases: Vec<(&str, Answer, &str)> = vec![
        ("another layer", Answer::bytes(other), "but its manifest says"),
        (
            "one byte changed",
            Answer::bytes({
                let mut bytes = packed.clone();
                bytes[5000] ^= 1;
                bytes
            }),
            "",
        ),
        ("one byte too few", Answer::bytes(shorter.clone()), "but its manifest says"),
        ("one byte too many", Answer::bytes(longer.clone()), "but its manifest says"),
        (
            "too short, length lies",
            Answer { length: Some(packed.len() as u64), ..Answer::bytes(shorter) },
            "",
        ),
        ("endless", Answer { endless: true, ..Answer::bytes(packed.clone()) }, "is longer than"),
        (
            "nothing",
            Answer { endless: false, length: Some(packed.len() as u64), ..Answer::bytes("") },
            "",
        ),
        (
            "another range",
            Answer { status: 206, ..Answer::bytes(packed.clone()) }
                .with("Content-Range", "bytes 7-9/10"),
            "another range",
        ),
    ];
    for (what, answer, expected) in cases {
        let blob = blob.clone();
        registry.rule(move |asked, _| (asked.path == blob).then(|| answer.clone()));
        let (_, text) = refused(&registry, "a:v1").await;
        assert!(text.contains(expected), "{what}: {text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_documents_are_refused() {
    let registry = Registry::start();
    let manifest = registry.noisy("v1", 1000);
    let config = format!("/v2/a/blobs/{}", manifest["config"]["digest"].as_str().unwrap());
    registry.rule(move |asked, _| (asked.path == config).then(|| Answer::bytes("{}")));
    let (_, text) = refused(&registry, "a:v1").await;
    assert!(text.contains("blob verification failed"), "{text}");
    // The header says another digest than the bytes have.
    registry.rule(|asked, shelf| {
        let mut answer = honest(asked, shelf);
        let wrong = format!("sha256:{}", "0".repeat(64));
        answer
            .headers
            .iter_mut()
            .filter(|(name, _)| name.contains("Digest"))
            .for_each(|(_, value)| *value = wrong.clone());
        Some(answer)
    });
    let (_, text) = refused(&registry, "a:v1").await;
    assert!(text.contains("manifest verification failed"), "{text}");
    let wanted = format!("a@sha256:{}", "1".repeat(64));
    registry.rule(move |asked, shelf| {
        let body = shelf.manifests.lock().unwrap()["v1"].1.clone();
        asked
            .path
            .contains("/manifests/")
            .then(|| Answer::bytes(body).with("Content-Type", MANIFEST))
    });
    let (_, text) = refused(&registry, &wanted).await;
    assert!(text.contains("manifest verification failed"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn layers_that_are_bombs_or_lead_out_are_refused() {
    let registry = Registry::start();
    // Unpacks to another layer than the config names.
    let (plain, other) = (noise(1000), noise(2000));
    let mut manifest = registry.image("v1", architecture(), &[plain]);
    let packed = gzip(&other);
    manifest["layers"][0]["digest"] = registry.put_blob(&packed).to_string().into();
    manifest["layers"][0]["size"] = packed.len().into();
    registry.put_manifest("v1", MANIFEST, manifest.to_string().as_bytes());
    let (_, text) = refused(&registry, "a:v1").await;
    assert!(text.contains("does not match its digest"), "{text}");
    // A header that claims more than any disk has.
    let mut bomb = tar(&[("big", &[0; 1000])]);
    bomb[124..136]
        .copy_from_slice(&[0x80, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
    let sum = 8 * 32
        + bomb[..512]
            .iter()
            .enumerate()
            .filter(|(at, _)| !(148..156).contains(at))
            .map(|(_, byte)| u32::from(*byte))
            .sum::<u32>();
    bomb[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    registry.image("v1", architecture(), &[bomb]);
    let (kind, text) = refused(&registry, "a:v1").await;
    assert_eq!(kind, ErrorKind::InvalidArgument, "{text}");
    registry.image("v1", architecture(), &[b"no tar at all".repeat(100)]);
    let (_, text) = refused(&registry, "a:v1").await;
    assert!(text.contains("cannot be unpacked"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_platform_is_chosen_and_statements_are_kept() {
    let registry = Registry::start();
    let entry = |registry: &Registry, tag: &str, architecture: &str, content: &[u8]| {
        let manifest = registry.image(tag, architecture, &[tar(&[("f", content)])]).to_string();
        json!({"mediaType": MANIFEST, "digest": digest(manifest.as_bytes()).to_string(), "size": manifest.len(),
               "platform": {"os": "linux", "architecture": architecture}})
    };
    let own = entry(&registry, "own", architecture(), b"own");
    let other = entry(&registry, "other", "riscv64", b"other");
    let statement = registry.put_blob(b"{\"_type\":\"x\"}");
    let empty = registry.put_blob(b"{}");
    let about = own["digest"].as_str().unwrap().to_owned();
    let said = json!({
        "schemaVersion": 2, "mediaType": MANIFEST,
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": empty.to_string(), "size": 2},
        "layers": [{"mediaType": "application/vnd.in-toto+json", "digest": statement.to_string(), "size": 13}],
    })
    .to_string();
    let said_digest = registry.put_manifest("said", MANIFEST, said.as_bytes());
    let attestation = json!({
        "mediaType": MANIFEST, "digest": said_digest.to_string(), "size": said.len(),
        "platform": {"os": "unknown", "architecture": "unknown"},
        "annotations": {"vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": about},
    });
    let index =
        json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [other, own, attestation]})
            .to_string();
    registry.put_manifest("multi", INDEX, index.as_bytes());
    let world = world().await;
    let pulled = pull(&world, registry.name("a:multi")).await.unwrap();
    let record = world.images.image(&pulled.id).await.unwrap();
    assert_eq!(record.document.architecture, architecture());
    assert_eq!(record.target.digest, digest(index.as_bytes()));
    for kept in [&statement, &said_digest, &digest(index.as_bytes())] {
        assert!(world.blobs.size(kept).unwrap().is_some(), "{kept}");
    }
    assert_eq!(world.transfer.collect(&[]).await.unwrap(), 0, "all that came is referred to");
    let wanted = |platform: &str| PullRequest {
        name: registry.name("a:multi"),
        platform: Some(platform.parse::<Platform>().unwrap()),
        auth: RegistryAuth::default(),
    };
    let other = world.transfer.pull(wanted("linux/riscv64"), Arc::new(|_| ())).await.unwrap();
    assert_eq!(world.images.image(&other.id).await.unwrap().document.architecture, "riscv64");
    let error = world.transfer.pull(wanted("linux/s390x"), Arc::new(|_| ())).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "no matching manifest for linux/s390x in the manifest list entries"
    );
    let found =
        world.transfer.resolve(&registry.name("a:multi"), &RegistryAuth::default()).await.unwrap();
    assert_eq!((found.descriptor.digest, found.platforms.len()), (digest(index.as_bytes()), 3));
}

/// A registry with a token server in it; tokens are `t1`, `t2`, … and only the newest is taken.
fn guard(registry: &Registry, expire_after: usize) {
    let address = registry.address;
    let state = Arc::new(Mutex::new((0_usize, 0_usize)));
    registry.rule(move |asked, shelf| {
        let mut state = state.lock().unwrap();
        if asked.path.starts_with("/token") {
            if asked.headers.get("authorization").map(String::as_str)
                != Some("Basic dXNlcjpzZWNyZXQ=")
            {
                return Some(Answer {
                    body: br#"{"details":"incorrect username or password"}"#.to_vec(),
                    ..Answer::status(401)
                });
            }
            state.0 += 1;
            state.1 = 0;
            return Some(Answer::bytes(
                json!({"token": format!("t{}", state.0), "refresh_token": "r"}).to_string(),
            ));
        }
        state.1 += 1;
        let good = format!("Bearer t{}", state.0);
        if asked.headers.get("authorization") != Some(&good) || state.1 > expire_after {
            let challenge = format!(
                "Bearer realm=\"http://{address}/token\",service=\"s\",scope=\"repository:a:pull\""
            );
            return Some(
                Answer {
                    body: unknown("UNAUTHORIZED", "authentication required"),
                    ..Answer::status(401)
                }
                .with("WWW-Authenticate", challenge),
            );
        }
        Some(honest(asked, shelf))
    });
}

fn user(password: &str) -> RegistryAuth {
    RegistryAuth {
        username: "user".to_owned(),
        password: password.to_owned(),
        ..RegistryAuth::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_are_got_and_got_again_when_they_expire() {
    let registry = Registry::start();
    let layers: Vec<Vec<u8>> = (0..6).map(|number| noise(1000 + number)).collect();
    registry.image("v1", architecture(), &layers);
    guard(&registry, 3);
    let world = world().await;
    pull_as(&world, registry.name("a:v1"), user("secret")).await.unwrap();
    let tokens = registry.lines().iter().filter(|line| line.contains("/token")).count();
    assert!(tokens >= 3, "{tokens}");
    let error = pull_as(&world, registry.name("a:v2"), user("wrong")).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.to_string()),
        (ErrorKind::Unauthenticated, "unauthorized: incorrect username or password".to_owned())
    );
    let token = world.transfer.login(&registry.address.to_string(), &user("secret")).await.unwrap();
    assert_eq!(token.as_deref(), Some("r"));
    let error =
        world.transfer.login(&registry.address.to_string(), &user("wrong")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthenticated, "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credentials_go_to_nobody_else() {
    let (registry, thief) = (Registry::start(), Registry::start_at("127.0.0.2:0"));
    registry.noisy("v1", 10_000);
    let packed = gzip(&noise(10_000));
    thief.put_blob(&packed);
    let (to, blob) = (thief.address, digest(&packed));
    registry.rule(move |asked, shelf| {
        if asked.headers.get("authorization").map(String::as_str) != Some("Basic dXNlcjpzZWNyZXQ=")
        {
            return Some(Answer::status(401).with("WWW-Authenticate", "Basic realm=\"x\""));
        }
        if asked.path.ends_with(&blob.to_string()) {
            return Some(
                Answer::status(307).with("Location", format!("http://{to}{}", asked.path)),
            );
        }
        Some(honest(asked, shelf))
    });
    let world = world().await;
    pull_as(&world, registry.name("a:v1"), user("secret")).await.unwrap();
    let told = thief.log();
    assert_eq!(told.len(), 1);
    assert!(!told[0].headers.contains_key("authorization"), "{told:?}");
    let error = pull(&world, registry.name("a:v1")).await.unwrap_err();
    assert_eq!(error.to_string(), "no basic auth credentials");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_server_of_another_owner_has_to_be_named() {
    // In this test all addresses are the internet's.
    let is_private = |_: std::net::IpAddr| false;
    let (registry, tokens) = (Registry::start(), Registry::start_at("127.0.0.2:0"));
    registry.noisy("v1", 10_000);
    tokens.rule(|_, _| Some(Answer::bytes(json!({"token": "t"}).to_string())));
    let realm = format!("Bearer realm=\"http://{}/token\",service=\"s\"", tokens.address);
    registry.rule(move |asked, shelf| {
        let known = asked.headers.get("authorization").is_some_and(|text| text == "Bearer t");
        let refusal = || Answer::status(401).with("WWW-Authenticate", realm.clone());
        Some(if known { honest(asked, shelf) } else { refusal() })
    });
    let world = World::new().await;
    world.transfer.configure(RegistryOptions { is_private, ..options() });
    let error = pull_as(&world, registry.name("a:v1"), user("secret")).await.unwrap_err();
    assert!(error.to_string().contains("name it in token-servers"), "{error}");
    assert_eq!(tokens.log().len(), 0, "it has seen no credentials");
    let rule =
        RegistryRule { token_servers: vec![tokens.address.to_string()], ..RegistryRule::default() };
    let rules = vec![(registry.address.to_string(), rule)];
    world.transfer.configure(RegistryOptions { is_private, rules, ..options() });
    pull_as(&world, registry.name("a:v1"), user("secret")).await.unwrap();
    let told = tokens.log();
    assert!(!told.is_empty());
    assert!(told.iter().all(|asked| asked.headers["authorization"] == "Basic dXNlcjpzZWNyZXQ="));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_public_registry_cannot_send_us_into_our_own_network() {
    // In this test 127.0.0.1 is the internet, and 127.0.0.2 our own network.
    let is_private = |address: std::net::IpAddr| address != std::net::IpAddr::from([127, 0, 0, 1]);
    let (registry, inside) = (Registry::start(), Registry::start_at("127.0.0.2:0"));
    let manifest = registry.noisy("v1", 10_000);
    inside.put_blob(&gzip(&noise(10_000)));
    let (to, layer) =
        (inside.address, manifest["layers"][0]["digest"].as_str().unwrap().to_owned());
    let redirected = layer.clone();
    registry.rule(move |asked, _| {
        asked
            .path
            .ends_with(&redirected)
            .then(|| Answer::status(307).with("Location", format!("http://{to}{}", asked.path)))
    });
    let world = World::new().await;
    world.transfer.configure(RegistryOptions { is_private, ..options() });
    let error = pull(&world, registry.name("a:v1")).await.unwrap_err();
    assert!(error.to_string().contains("has a private address"), "{error}");
    // The same by an address in the manifest, and by the address of a token server.
    let mut manifest = manifest.clone();
    manifest["layers"][0]["urls"] = json!([format!("http://{to}/v2/a/blobs/{layer}")]);
    registry.put_manifest("v2", MANIFEST, manifest.to_string().as_bytes());
    let missing = layer.clone();
    registry.rule(move |asked, _| asked.path.ends_with(&missing).then(|| Answer::status(404)));
    let error = pull(&world, registry.name("a:v2")).await.unwrap_err();
    assert!(error.to_string().contains("has a private address"), "{error}");
    registry.rule(move |_, _| {
        Some(
            Answer::status(401)
                .with("WWW-Authenticate", format!("Bearer realm=\"http://{to}/token\"")),
        )
    });
    let error = pull(&world, registry.name("a:v3")).await.unwrap_err();
    assert!(error.to_string().contains("has a private address"), "{error}");
    let error = pull_as(&world, registry.name("a:v3"), user("secret")).await.unwrap_err();
    assert!(error.to_string().contains("which is somebody else"), "{error}");
    assert_eq!(inside.log().len(), 0);
    assert_nothing(&world).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redirects_end() {
    let registry = Registry::start();
    registry.rule(|asked, _| Some(Answer::status(302).with("Location", asked.path.clone())));
    let (_, text) = refused(&registry, "a:v1").await;
    assert!(text.contains("stopped after 10 redirects"), "{text}");
    registry.rule(|_, _| Some(Answer::status(302).with("Location", "file:///etc/passwd")));
    let (_, text) = refused(&registry, "a:v1").await;
    assert!(text.contains("not an address"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mirrors_come_first_and_the_registry_helps_out() {
    let (mirror, registry) = (Registry::start(), Registry::start());
    registry.noisy("v1", 10_000);
    let upstream = registry.name("a:v1");
    let rule = RegistryRule {
        mirrors: vec![format!("http://{}/cache", mirror.address)],
        ..RegistryRule::default()
    };
    let world = World::new().await;
    let rules = vec![(registry.address.to_string(), rule)];
    world.transfer.configure(RegistryOptions { rules, ..options() });
    // The mirror knows the manifest, but not the layer.
    mirror.noisy("v1", 10_000);
    mirror.rule(|asked, _| {
        let layer = digest(&gzip(&noise(10_000))).to_string();
        asked.path.ends_with(&layer).then(|| Answer::status(404))
    });
    pull_as(&world, upstream.clone(), user("secret")).await.unwrap();
    assert_eq!(mirror.lines()[0], "GET /v2/cache/a/manifests/v1");
    assert!(mirror.log().iter().all(|asked| !asked.headers.contains_key("authorization")));
    assert!(registry.lines().iter().any(|line| line.contains("/v2/a/blobs/")));
    // The mirror is gone.
    let other = World::new().await;
    let gone =
        RegistryRule { mirrors: vec!["http://127.0.0.1:1".to_owned()], ..RegistryRule::default() };
    let rules = vec![(registry.address.to_string(), gone)];
    other.transfer.configure(RegistryOptions { rules, ..options() });
    pull(&other, upstream).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pull_that_is_given_up_leaves_nothing() {
    let registry = Registry::start();
    registry.noisy("v1", 4_000_000);
    registry.rule(|asked, shelf| {
        let answer = honest(asked, shelf);
        // Half of the layer, then silence until the client goes.
        let half = answer.body.len() / 2;
        asked.path.ends_with(&digest(&gzip(&noise(4_000_000))).to_string()).then(|| Answer {
            length: Some(answer.body.len() as u64),
            cut: None,
            body: answer.body[..half].to_vec(),
            ..answer
        })
    });
    let world = world().await;
    let pulling = pull(&world, registry.name("a:v1"));
    assert!(tokio::time::timeout(Duration::from_millis(500), pulling).await.is_err());
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while !unfinished(&world).is_empty() && std::time::Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_nothing(&world).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn collection_leaves_a_pull_alone() {
    let registry = Registry::start();
    registry.image("v1", architecture(), &[tar(&[("a", b"1")]), noise(1_000_000)]);
    registry.rule(|asked, shelf| {
        let last = digest(&gzip(&noise(1_000_000))).to_string();
        asked.path.ends_with(&last).then(|| std::thread::sleep(Duration::from_millis(300)));
        Some(honest(asked, shelf))
    });
    let world = world().await;
    let first = DiffId(digest(&tar(&[("a", b"1")])));
    let collecting = async {
        // The small layer is there and nothing refers to it yet.
        while world.snapshots.find_layer(&first).await.unwrap().is_none() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        world.transfer.collect(&[]).await.unwrap()
    };
    let (pulled, freed) = tokio::join!(pull(&world, registry.name("a:v1")), collecting);
    pulled.unwrap();
    assert_eq!(freed, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_stands_between() {
    let proxy = Registry::start();
    proxy.noisy("v1", 10_000);
    let way = format!("http://user:secret@{}", proxy.address);
    let behind = |none: &str| RegistryOptions {
        insecure: vec!["registry.invalid".to_owned()],
        proxies: Proxies { http: way.clone(), https: way.clone(), none: none.to_owned() },
        ..options()
    };
    let world = world().await;
    world.transfer.configure(behind(""));
    let name: Reference = "registry.invalid/a:v1".parse().unwrap();
    pull(&world, name.clone()).await.unwrap();
    // TLS goes through a tunnel, which this proxy has none of; then comes plain HTTP, of which the proxy wants the whole address.
    let lines = proxy.lines();
    assert_eq!(lines.first().map(String::as_str), Some("CONNECT registry.invalid:443"));
    let manifest = "http://registry.invalid/v2/a/manifests/v1";
    assert!(lines.iter().any(|line| line.ends_with(manifest)), "{lines:?}");
    for asked in proxy.log() {
        let told = asked.headers.get("proxy-authorization").map(String::as_str);
        assert_eq!(told, Some("Basic dXNlcjpzZWNyZXQ="), "{asked:?}");
    }
    // What is exempt goes directly, here to nobody.
    world.transfer.configure(behind("registry.invalid"));
    let before = proxy.log().len();
    pull(&world, name).await.unwrap_err();
    assert_eq!(proxy.log().len(), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_search_finds_repositories() {
    let registry = Registry::start();
    registry.rule(|asked, _| {
        let (path, query) = asked.path.split_once('?')?;
        if path != "/v1/search" {
            return None;
        }
        assert_eq!(query, "q=web%20server&n=2");
        let results = json!([
            {"name": "team/web", "description": "serves\u{1b}[31m pages", "star_count": 7, "is_official": true},
            {"name": "other/web", "description": null},
        ]);
        let answer = json!({"num_results": 2, "query": "web server", "results": results});
        Some(Answer::bytes(answer.to_string()))
    });
    let world = world().await;
    let search = |term: String| {
        let request = SearchRequest { term, limit: 2, auth: RegistryAuth::default() };
        world.transfer.search(request)
    };
    let found = search(format!("{}/web server", registry.address)).await.unwrap();
    let team = SearchResult {
        name: format!("{}/team/web", registry.address),
        description: "serves[31m pages".to_owned(),
        stars: 7,
        official: true,
    };
    let other =
        SearchResult { name: format!("{}/other/web", registry.address), ..SearchResult::default() };
    assert_eq!(found, [team, other]);
    let nothing = Registry::start();
    nothing.rule(|_, _| Some(Answer::status(404)));
    let error = search(format!("{}/web", nothing.address)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("has no search"), "{error}");
    nothing.rule(|_, _| Some(Answer::bytes("<html>")));
    let error = search(format!("{}/web", nothing.address)).await.unwrap_err();
    assert!(error.to_string().contains("cannot be read"), "{error}");
}

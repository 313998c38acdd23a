//! Pulls from registries that do everything they should not. Whatever they do, nothing unverified is visible afterwards and no
//! unfinished blob or layer stays.

mod refusals;
mod trust;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use rorqual_content::{Blobs, Images};
use rorqual_core::{Classify, DiffId, ErrorKind, Platform, Reference};
use rorqual_snapshot::Snapshotter;
use rorqual_transfer::{
    Error, Progress, Proxies, PullRequest, Pulled, RegistryAuth, RegistryOptions, RegistryRule,
    SearchRequest, SearchResult, Transfer,
};
use serde_json::json;

use crate::hostile::{
    Answer, INDEX, MANIFEST, Registry, architecture, digest, honest, noise, ranged, unknown,
};
use crate::world::{World, gzip, tar};
use trust::user;

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
    // Where there is no search, what the registry lists is looked through, in pages.
    let lists = Registry::start();
    lists.rule(|asked, _| {
        let page = match &*asked.path {
            "/v2/_catalog?n=1000" => json!(["a/web", "a/webserver", "b/Server"]),
            "/v2/_catalog?n=1000&last=b%2FServer" => json!(["c/server-web", "c/x\u{1b}web-server"]),
            path if path.starts_with("/v2/_catalog") => json!(null),
            _ => return Some(Answer::status(404)),
        };
        Some(Answer::bytes(json!({"repositories": page}).to_string()))
    });
    let found = search(format!("{}/Web server", lists.address)).await.unwrap();
    let names: Vec<_> = found.into_iter().map(|found| found.name).collect();
    let expected = ["a/webserver", "c/server-web"];
    assert_eq!(names, expected.map(|name| format!("{}/{name}", lists.address)));
    nothing.rule(|_, _| Some(Answer::bytes("<html>")));
    let error = search(format!("{}/web", nothing.address)).await.unwrap_err();
    assert!(error.to_string().contains("cannot be read"), "{error}");
}

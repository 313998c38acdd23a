use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rorqual_core::Algorithm;

use super::*;
use crate::config::{Config, Span};
use crate::error::Error;
use crate::name::Reference;
use crate::storage::cloud::Cloud;
use crate::storage::disk::Disk;
use crate::storage::{Hasher, Storage};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

struct World(Repositories, Name);

impl World {
    fn new(storage: Arc<dyn Storage>, change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::default();
        let none = Span(Duration::ZERO);
        (config.gc.grace, config.gc.undo, config.gc.untagged) = (none, none, Some(none));
        change(&mut config);
        Self(Repositories::new(storage, Arc::new(config)), "team/app".parse().unwrap())
    }

    async fn blob(&self, text: &str) -> (Digest, usize) {
        let digest = Hasher::digest(Algorithm::Sha256, text.as_bytes()).unwrap();
        let id = self.0.begin_upload(&self.1, None).await.unwrap();
        let piece = Ok(Bytes::from(text.to_owned()));
        let pieces = Box::pin(futures_util::stream::iter([piece]));
        self.0.append(&self.1, &id, None, pieces).await.unwrap();
        self.0.commit(&self.1, &id, &digest).await.unwrap();
        (digest, text.len())
    }

    async fn put(&self, tag: Option<&str>, media_type: &str, text: String) -> Digest {
        let digest = Hasher::digest(Algorithm::Sha256, text.as_bytes()).unwrap();
        let reference = match tag {
            Some(tag) => tag.parse().unwrap(),
            None => Reference::Digest(digest.clone()),
        };
        let bytes = Bytes::from(text);
        self.0.put_manifest(&self.1, &reference, &[], Some(media_type), bytes).await.unwrap();
        digest
    }

    async fn image(&self, tag: Option<&str>, layer: &str, more: &str) -> Digest {
        let (config, size) = self.blob("{}").await;
        let (layer, length) = self.blob(layer).await;
        let text = format!(
            r#"{{"schemaVersion":2,"config":{{"mediaType":"c","digest":"{config}","size":{size}}},"layers":[{{"mediaType":"l","digest":"{layer}","size":{length}}}]{more}}}"#
        );
        self.put(tag, MANIFEST, text).await
    }

    async fn index(&self, tag: &str, children: &[&Digest]) -> Digest {
        let entries: Vec<_> = children
            .iter()
            .map(|digest| format!(r#"{{"mediaType":"{MANIFEST}","digest":"{digest}","size":1}}"#))
            .collect();
        let text = format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, entries.join(","));
        self.put(Some(tag), INDEX, text).await
    }

    async fn collect(&self, dry_run: bool) -> Report {
        self.until_all_is_old().await;
        collect(&self.0, dry_run, &|_| ()).await.unwrap()
    }

    /// Ages are counted from 0: waits until what was written last is older than that, by the storage's own clock.
    async fn until_all_is_old(&self) {
        let storage = &self.0.storage;
        storage.put("clock", Bytes::new(), Durability::Volatile).await.unwrap();
        while age(storage.head("clock").await.unwrap().unwrap().modified).is_zero() {
            tokio::task::yield_now().await;
        }
        storage.delete("clock").await.unwrap();
    }

    async fn has(&self, digest: &Digest) -> bool {
        self.0.manifest(&self.1, digest).await.unwrap().is_some()
    }

    async fn delete(&self, reference: &str) {
        self.0.delete_manifest(&self.1, &reference.parse().unwrap()).await.unwrap();
    }
}

#[expect(clippy::cognitive_complexity, reason = "assertions in a row")]
async fn follows_indexes_and_referrers(storage: Arc<dyn Storage>) {
    let world = World::new(storage, |_| ());
    let (a, b) = (world.image(None, "a", "").await, world.image(None, "b", "").await);
    let index = world.index("v1", &[&a, &b]).await;
    let subject = |digest: &Digest| {
        format!(r#","subject":{{"mediaType":"{MANIFEST}","digest":"{digest}","size":1}}"#)
    };
    let signature = world.image(None, "signature of b", &subject(&b)).await;
    let of_signature = world.image(None, "and of that", &subject(&signature)).await;
    world.blob("loose").await;

    let plan = world.collect(true).await;
    assert_eq!((plan.blobs, plan.links, plan.manifests), (0, 1, 0), "nothing but the loose link");
    let report = world.collect(false).await;
    assert_eq!((report.blobs, report.bytes, report.links), (1, 5, 1));
    for digest in [&a, &b, &index, &signature, &of_signature] {
        assert!(world.has(digest).await, "{digest} is used");
    }
    world.delete("v1").await;
    let report = world.collect(false).await;
    assert_eq!((report.manifests, report.blobs), (5, 5), "{report:?}");
    assert_eq!(world.collect(false).await, Report::default());
    let left = world.0.storage.folders("repos/team/app").await.unwrap();
    assert_eq!(left, Vec::<String>::new(), "nothing is left of the repository");
    assert!(list_all(&*world.0.storage, key::PINS).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn follows_indexes_and_referrers_on_disk() {
    let folder = tempfile::tempdir().unwrap();
    follows_indexes_and_referrers(Arc::new(Disk::open(folder.path()).await.unwrap())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn follows_indexes_and_referrers_in_an_object_store() {
    let store = Arc::new(object_store::memory::InMemory::new());
    follows_indexes_and_referrers(Arc::new(Cloud::over(store))).await;
}

async fn on_disk(change: impl FnOnce(&mut Config)) -> (tempfile::TempDir, World) {
    let folder = tempfile::tempdir().unwrap();
    let storage = Arc::new(Disk::open(folder.path()).await.unwrap());
    (folder, World::new(storage, change))
}

#[tokio::test(flavor = "multi_thread")]
async fn young_things_stay() {
    let (_folder, world) = on_disk(|config| config.gc.grace = Span(Duration::from_secs(600))).await;
    world.blob("on its way to a manifest").await;
    let untagged = world.image(None, "x", "").await;
    assert_eq!(world.collect(false).await, Report::default());
    assert!(world.has(&untagged).await);
}

/// A collection may take longer than things are young: what came into use since it began stays.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_collection_takes_nothing_that_came_into_use_meanwhile() {
    let (folder, world) = on_disk(|config| config.gc.grace = Span(Duration::from_secs(1))).await;
    let (digest, _) = world.blob("used a while ago").await;
    let now = SystemTime::now();
    let seconds = Duration::from_secs;
    for key in [key::link(&world.1, &digest), key::blob(&digest), key::pin(&digest)] {
        let Ok(file) = std::fs::File::options().write(true).open(folder.path().join(key)) else {
            continue;
        };
        file.set_times(std::fs::FileTimes::new().set_modified(now - seconds(5))).unwrap();
    }
    let report = collect_from(now - seconds(10), &world.0, false, &|_| ()).await.unwrap();
    assert_eq!(report, Report::default());
    let report = collect_from(now, &world.0, false, &|_| ()).await.unwrap();
    assert_eq!((report.links, report.blobs), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn untagged_manifests_stay_unless_asked() {
    let (_folder, world) = on_disk(|config| config.gc.untagged = None).await;
    let untagged = world.image(None, "x", "").await;
    assert_eq!(world.collect(false).await, Report::default());
    assert!(world.has(&untagged).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_deleted_can_be_restored() {
    let (_folder, world) = on_disk(|config| config.gc.undo = Span(Duration::from_secs(600))).await;
    let (child, other) = (world.image(None, "x", "").await, world.image(Some("o"), "y", "").await);
    let index = world.index("v1", &[&child]).await;
    world.delete(&index.to_string()).await;
    world.delete("o").await;
    world.delete(&other.to_string()).await;
    assert!(!world.has(&index).await);
    let report = world.collect(false).await;
    assert_eq!((report.blobs, report.manifests), (0, 0), "the trash counts as used: {report:?}");
    assert!(world.0.restore(&world.1, "v1").await.unwrap().is_some());
    assert!(world.0.restore(&world.1, "o").await.unwrap().is_some());
    assert!(world.0.restore(&world.1, "o").await.unwrap().is_none());
    let tag = world.0.tag(&world.1, &"v1".parse().unwrap()).await.unwrap().unwrap();
    assert_eq!(tag.digest, index);
    assert!(world.has(&child).await && world.has(&other).await);
    assert_eq!(world.collect(false).await, Report::default());
}

#[tokio::test(flavor = "multi_thread")]
async fn retention_keeps_the_newest() {
    let rule = r#"[{"repository":"team/*","tags":"ci-*","keep":2,"age":"0s"}]"#;
    let (_folder, world) =
        on_disk(|config| config.retention = serde_json::from_str(rule).unwrap()).await;
    for tag in ["ci-1", "ci-2", "release", "ci-3"] {
        world.image(Some(tag), tag, "").await;
    }
    assert_eq!(world.collect(false).await.tags, 1);
    let tags = world.0.tags(&world.1, None, 10).await.unwrap();
    let tags: Vec<_> = tags.iter().map(Tag::as_str).collect();
    assert_eq!(tags, ["ci-2", "ci-3", "release"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_collector_at_a_time() {
    let (_folder, world) = on_disk(|_| ()).await;
    world
        .0
        .storage
        .put(lock::LOCK, Bytes::from_static(b"other"), Durability::Volatile)
        .await
        .unwrap();
    assert!(matches!(collect(&world.0, false, &|_| ()).await, Err(Error::TooMany { .. })));
    assert_eq!(world.collect(true).await, Report::default());
}

#[tokio::test]
async fn an_upload_that_has_only_begun_is_not_given_up() {
    let folder = tempfile::tempdir().unwrap();
    let open = async || Arc::new(Disk::open(folder.path()).await.unwrap());
    let world = World::new(open().await, |_| ());
    // As it is between the folder and the session in it.
    let begun = folder.path().join(crate::name::key::UPLOADS).join("begun");
    std::fs::create_dir(&begun).unwrap();
    assert_eq!(world.0.expire_uploads(false).await.unwrap(), 0);
    assert!(begun.exists());
    // At the next start it is a crash that left it.
    open().await;
    assert!(!begun.exists());
}

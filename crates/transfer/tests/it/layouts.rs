//! OCI layouts are kept whole: what was loaded is saved again byte for byte.

use std::collections::BTreeMap;
use std::io::{Cursor, Read};

use rorqual_content::{Blobs, Images};
use rorqual_core::{Classify, ErrorKind, Platform};
use rorqual_snapshot::Snapshotter;
use rorqual_snapshot::tar::Reader;
use rorqual_transfer::{ManifestKind, Transfer};

use crate::world::{World, gzip, sha, tar};

/// A layout under construction.
#[derive(Default)]
struct Layout {
    blobs: BTreeMap<String, Vec<u8>>,
}

impl Layout {
    /// Adds a blob and returns its descriptor, with `more` behind.
    fn add(&mut self, kind: &str, bytes: &[u8], more: &str) -> String {
        self.blobs.insert(format!("blobs/sha256/{}", sha(bytes)), bytes.to_vec());
        format!(
            r#"{{"mediaType":"{kind}","digest":"sha256:{}","size":{}{more}}}"#,
            sha(bytes),
            bytes.len()
        )
    }

    fn image(&mut self, arch: &str, layers: &[(&str, Vec<u8>, Vec<u8>)]) -> String {
        let ids = layers.iter().map(|(_, plain, _)| format!("\"sha256:{}\"", sha(plain)));
        let config = format!(
            r#"{{"architecture":"{arch}","os":"linux","rootfs":{{"type":"layers","diff_ids":[{}]}}}}"#,
            ids.collect::<Vec<_>>().join(",")
        );
        let config = self.add("application/vnd.oci.image.config.v1+json", config.as_bytes(), "");
        let list = layers.iter().map(|(kind, _, packed)| {
            let kind = format!("application/vnd.oci.image.layer.v1.tar{kind}");
            self.add(&kind, packed, r#","annotations":{"kept":"yes"}"#)
        });
        let list = list.collect::<Vec<_>>().join(",");
        let manifest = format!(
            r#"{{"schemaVersion":2,"config":{config},"layers":[{list}],"annotations":{{"a":"b"}}}}"#
        );
        let platform = format!(r#","platform":{{"os":"linux","architecture":"{arch}"}}"#);
        self.add("application/vnd.oci.image.manifest.v1+json", manifest.as_bytes(), &platform)
    }

    fn attestation(&mut self, about: &str) -> String {
        let config = self.add("application/vnd.oci.image.config.v1+json", b"{}", "");
        let statement = br#"{"_type":"https://in-toto.io/Statement/v0.1","subject":[]}"#;
        let layer = self.add("application/vnd.in-toto+json", statement, "");
        let text = format!(r#"{{"schemaVersion":2,"config":{config},"layers":[{layer}]}}"#);
        let more = format!(
            r#","platform":{{"os":"unknown","architecture":"unknown"}},"annotations":{{"vnd.docker.reference.type":"attestation-manifest","vnd.docker.reference.digest":"{about}"}}"#
        );
        self.add("application/vnd.oci.image.manifest.v1+json", text.as_bytes(), &more)
    }

    fn index(&mut self, manifests: &[String], more: &str) -> String {
        let text = format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, manifests.join(","));
        self.add("application/vnd.oci.image.index.v1+json", text.as_bytes(), more)
    }

    fn archive(&self, targets: &[String]) -> Vec<u8> {
        let index = format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, targets.join(","));
        let mut files: Vec<(&str, &[u8])> =
            self.blobs.iter().map(|(path, bytes)| (path.as_str(), bytes.as_slice())).collect();
        files.push(("index.json", index.as_bytes()));
        tar(&files)
    }
}

fn digest(descriptor: &str) -> String {
    let value: serde_json::Value = serde_json::from_str(descriptor).unwrap();
    value["digest"].as_str().unwrap().to_owned()
}

/// Reads the blobs of an archive.
fn blobs(archive: Vec<u8>) -> BTreeMap<String, Vec<u8>> {
    let mut reader = Reader::new(Cursor::new(archive));
    let mut found = BTreeMap::new();
    while let Some(entry) = reader.next_entry().unwrap() {
        let path = String::from_utf8(entry.path).unwrap();
        let bytes = reader.read_all(1 << 30).unwrap();
        if path.starts_with("blobs/") && !path.ends_with('/') {
            found.insert(path, bytes);
        }
    }
    found
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    // A skippable frame in front, as zstd:chunked has them.
    let mut packed = b"\x50\x2a\x4d\x18\x03\x00\x00\x00abc".to_vec();
    packed.extend(zstd::encode_all(bytes, 3).unwrap());
    packed
}

/// Every entry a member of its own, as estargz has it.
fn members(bytes: &[u8]) -> Vec<u8> {
    bytes.chunks(512).flat_map(gzip).collect()
}

/// An index with two platforms, layers packed in all ways, a statement, and a blob of an unknown kind.
fn everything() -> (Layout, String, [String; 2]) {
    let mut layout = Layout::default();
    let layer = |text: &str| tar(&[("file", text.as_bytes()), (&format!("only-{text}"), b"x")]);
    let [one, two, three, four] = ["1", "2", "3", "4"].map(layer);
    let amd = layout.image(
        "amd64",
        &[
            ("+gzip", one.clone(), gzip(&one)),
            ("+zstd", two.clone(), zstd(&two)),
            ("", three.clone(), three.clone()),
            ("+gzip", four.clone(), members(&four)),
        ],
    );
    let foreign = layer("foreign");
    let arm = layout
        .image("arm64", &[("+gzip", one.clone(), gzip(&one)), ("", foreign.clone(), foreign)]);
    let statement = layout.attestation(&digest(&amd));
    let config = layout.add("application/x-thing", b"\x00\x01not json", "");
    let thing = format!(
        r#"{{"schemaVersion":2,"config":{config},"layers":[],"artifactType":"application/x-thing"}}"#
    );
    let thing = layout.add("application/vnd.oci.image.manifest.v1+json", thing.as_bytes(), "");
    let index = layout.index(
        &[amd.clone(), arm.clone(), statement, thing],
        r#","annotations":{"io.containerd.image.name":"docker.io/library/multi:1","mine":"kept"}"#,
    );
    (layout, index, [digest(&amd), digest(&arm)])
}

#[tokio::test]
async fn a_layout_comes_out_as_it_went_in() {
    let (layout, index, [amd, arm]) = everything();
    let world = World::new().await;
    let loaded = world.load(layout.archive(std::slice::from_ref(&index))).await.unwrap();
    let image = world.images.resolve("multi:1").await.unwrap();
    assert_eq!(loaded[0].id, image.id);
    assert_eq!(image.target.digest.to_string(), digest(&index));
    assert_eq!(image.manifest.digest.to_string(), amd);
    assert_eq!(image.document.rootfs.diff_ids.len(), 4);
    assert_eq!(world.images.resolve(&format!("multi@{}", digest(&index))).await.unwrap(), image);
    // Collection takes nothing of it.
    assert_eq!(world.transfer.collect(&[]).await.unwrap(), 0);
    let saved = world.save(&[(image.id.clone(), &["multi:1"])]).await;
    assert_eq!(blobs(saved.clone()), layout.blobs);

    let there = World::new().await;
    there.load(saved.clone()).await.unwrap();
    assert_eq!(there.images.resolve("multi:1").await.unwrap().target, image.target);
    assert_eq!(there.save(&[(image.id.clone(), &["multi:1"])]).await, saved);

    let summaries = world.transfer.manifests(&image).await.unwrap();
    let kinds = summaries.iter().map(|summary| (&summary.kind, summary.available));
    let platform = |text: &str| ManifestKind::Image(text.parse().unwrap());
    let mut arm64 = platform("linux/arm64");
    if let ManifestKind::Image(platform) = &mut arm64 {
        platform.variant = String::new();
    }
    assert_eq!(
        kinds.collect::<Vec<_>>(),
        [
            (&platform("linux/amd64"), true),
            (&arm64, true),
            (&ManifestKind::Attestation(amd.parse().unwrap()), true),
            (&ManifestKind::Unknown, true),
        ]
    );
    let wanted = "linux/arm64".parse::<Platform>().unwrap();
    let variant = world.transfer.variant(&image, &wanted).await.unwrap();
    assert_eq!(variant.manifest.digest.to_string(), arm);
    assert_eq!(variant.document.architecture, "arm64");
    let error = world.transfer.variant(&image, &"linux/mips".parse().unwrap()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);

    // The last name gone, all goes.
    world.images.remove(&image.id).await.unwrap();
    assert!(world.transfer.collect(&[]).await.unwrap() > 0);
    assert_eq!(world.blobs.disk_usage().await.unwrap(), 0);
}

#[tokio::test]
async fn one_platform_alone() {
    let (layout, index, [amd, arm]) = everything();
    let world = World::new().await;
    let loaded = world
        .load_for(layout.archive(std::slice::from_ref(&index)), Some("linux/arm64"))
        .await
        .unwrap();
    let image = world.images.image(&loaded[0].id).await.unwrap();
    assert_eq!(image.manifest.digest.to_string(), arm);
    assert_eq!(image.target.digest.to_string(), digest(&index));
    world.transfer.collect(&[]).await.unwrap();
    assert_eq!(world.blobs.size(&amd.parse().unwrap()).unwrap(), None, "not asked for");
    let summaries = world.transfer.manifests(&image).await.unwrap();
    assert_eq!(
        summaries.iter().map(|summary| summary.available).collect::<Vec<_>>(),
        [false, true, false, false]
    );
    // What is here of the index is saved, and loads again.
    let saved = world.save(&[(image.id.clone(), &["multi:1"])]).await;
    let there = World::new().await;
    assert_eq!(there.load_for(saved, Some("linux/arm64")).await.unwrap()[0].id, image.id);
}

#[tokio::test]
async fn what_is_for_no_machine_here_is_kept_all_the_same() {
    let mut layout = Layout::default();
    let layer = tar(&[("a", b"1")]);
    let image = layout.image("riscv64", &[("+gzip", layer.clone(), gzip(&layer))]);
    let world = World::new().await;
    let loaded = world.load(layout.archive(std::slice::from_ref(&image))).await.unwrap();
    let record = world.images.image(&loaded[0].id).await.unwrap();
    assert_eq!(record.document.architecture, "riscv64");
    assert_eq!(blobs(world.save(&[(record.id, &[])]).await), layout.blobs);
}

#[tokio::test]
async fn broken_layouts_are_refused() {
    let (layout, index, _) = everything();
    let target = [index];
    for path in layout.blobs.keys() {
        let mut bytes = layout.blobs.clone();
        let blob = bytes.get_mut(path).unwrap();
        let middle = blob.len() / 2;
        blob[middle] ^= 1;
        let bent = Layout { blobs: bytes };
        let world = World::new().await;
        let error = world.load(bent.archive(&target)).await.expect_err(path);
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{path}: {error:?}");
        assert!(world.images.list().await.unwrap().is_empty(), "{path}");
        world.transfer.collect(&[]).await.unwrap();
        assert_eq!(world.blobs.disk_usage().await.unwrap(), 0, "{path}");
    }
    // One document, two meanings.
    let mut layout = Layout::default();
    let layer = tar(&[("a", b"1")]);
    let image = layout.image("amd64", &[("", layer.clone(), layer)]);
    let both =
        format!(r#"{{"schemaVersion":2,"manifests":[{image}],"layers":[],"config":{image}}}"#);
    let both = layout.add("application/vnd.oci.image.index.v1+json", both.as_bytes(), "");
    let error = World::new().await.load(layout.archive(&[both])).await.unwrap_err();
    assert!(error.to_string().contains("both an index and a manifest"), "{error}");
}

#[tokio::test]
async fn a_damaged_blob_is_noticed() {
    let (layout, index, _) = everything();
    let world = World::new().await;
    let loaded = world.load(layout.archive(&[index])).await.unwrap();
    let one = gzip(&tar(&[("file", b"1"), ("only-1", b"x")]));
    let path = world.temp.path().join("content/blobs/sha256").join(sha(&one));
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[20] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let digest = format!("sha256:{}", sha(&one)).parse().unwrap();
    let mut all = Vec::new();
    let error = world.blobs.open(&digest).unwrap().read_to_end(&mut all).unwrap_err();
    assert!(error.to_string().contains("does not match its digest"), "{error}");
    let sink = Box::new(std::io::sink());
    let images = vec![(loaded[0].id.clone(), Vec::new())];
    world.transfer.save(images, None, sink).await.unwrap_err();
    let layer =
        world.images.image(&loaded[0].id).await.unwrap().document.rootfs.diff_ids[0].clone();
    assert!(world.snapshots.find_layer(&layer).await.unwrap().is_some(), "what is unpacked stays");
}

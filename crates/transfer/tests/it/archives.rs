//! Archives of all layouts, whole and broken.

use std::io::Cursor;

use rorqual_content::{Blobs, ImageConfig, Images};
use rorqual_core::{Classify, ContainerId, ErrorKind, Platform, Timestamp};
use rorqual_snapshot::{SnapshotRequest, Snapshotter};
use rorqual_transfer::{CommitRequest, Error, ImportRequest, Transfer};

use crate::world::{World, gzip, reference, sha, tar};

fn config(arch: &str, layers: &[&[u8]]) -> Vec<u8> {
    let ids = layers.iter().map(|layer| format!("\"sha256:{}\"", sha(layer))).collect::<Vec<_>>();
    format!(
        r#"{{"architecture":"{arch}","os":"linux","config":{{"Cmd":["/x"]}},"rootfs":{{"type":"layers","diff_ids":[{}]}},"unknown":{{"kept":1}}}}"#,
        ids.join(",")
    )
    .into_bytes()
}

fn classic(tag: &str, layers: &[&[u8]]) -> Vec<u8> {
    let config = config("amd64", layers);
    let name = format!("{}.json", sha(&config));
    let paths = (0..layers.len()).map(|at| format!("{at}/layer.tar")).collect::<Vec<_>>();
    let manifest = format!(r#"[{{"Config":"{name}","RepoTags":["{tag}"],"Layers":{paths:?}}}]"#);
    let mut files: Vec<(&str, &[u8])> = Vec::new();
    for (path, layer) in paths.iter().zip(layers) {
        files.push((path, layer));
    }
    files.push((&name, &config));
    files.push(("manifest.json", manifest.as_bytes()));
    tar(&files)
}

#[tokio::test]
async fn docker_s_classic_archive_with_links_and_compression() {
    let world = World::new().await;
    let layer = tar(&[("a", b"1")]);
    let config = config("amd64", &[&layer, &layer]);
    let name = format!("{}.json", sha(&config));
    let manifest = format!(
        r#"[{{"Config":"{name}","RepoTags":["app:1","other/app:2"],"Layers":["x/layer.tar","y/layer.tar"]}}]"#
    );
    let archive = tar(&[
        ("x/VERSION", b"1.0"),
        ("x/layer.tar", &layer),
        ("y/layer.tar", b"-> ../x/layer.tar"),
        (&name, &config),
        ("manifest.json", manifest.as_bytes()),
        ("repositories", b"{}"),
    ]);
    let loaded = world.load(gzip(&archive)).await.unwrap();
    assert_eq!(loaded.len(), 1);
    assert_eq!(loaded[0].id.to_string(), format!("sha256:{}", sha(&config)));
    assert_eq!(loaded[0].names, [reference("app:1"), reference("other/app:2")]);
    let image = world.images.resolve("app:1").await.unwrap();
    assert_eq!((image.size, image.document.config.cmd), (2, Some(vec!["/x".to_owned()])));
    assert_eq!(world.blobs.read(&image.id.0, 1 << 20).unwrap(), config, "kept byte for byte");
}

#[tokio::test]
async fn layouts_with_nested_indexes_and_platforms() {
    let world = World::new().await;
    let layers = ["amd64", "s390x"].map(|arch| tar(&[("arch", arch.as_bytes())]));
    let packed = layers.clone().map(|layer| gzip(&layer));
    let configs = [config("amd64", &[&layers[0]]), config("s390x", &[&layers[1]])];
    let descriptor = |kind: &str, bytes: &[u8], more: &str| {
        format!(
            r#"{{"mediaType":"application/vnd.oci.image.{kind}","digest":"sha256:{}","size":{}{more}}}"#,
            sha(bytes),
            bytes.len()
        )
    };
    let manifest = |at: usize| {
        format!(
            r#"{{"schemaVersion":2,"config":{},"layers":[{}]}}"#,
            descriptor("config.v1+json", &configs[at], ""),
            descriptor("layer.v1.tar+gzip", &packed[at], "")
        )
    };
    let manifests = [manifest(0), manifest(1)];
    let inner = format!(
        r#"{{"schemaVersion":2,"manifests":[{},{}]}}"#,
        descriptor(
            "manifest.v1+json",
            manifests[0].as_bytes(),
            r#","platform":{"os":"linux","architecture":"amd64"}"#
        ),
        descriptor(
            "manifest.v1+json",
            manifests[1].as_bytes(),
            r#","platform":{"os":"linux","architecture":"s390x"}"#
        )
    );
    let index = format!(
        r#"{{"schemaVersion":2,"manifests":[{}]}}"#,
        descriptor(
            "index.v1+json",
            inner.as_bytes(),
            r#","annotations":{"io.containerd.image.name":"docker.io/library/multi:1","org.opencontainers.image.ref.name":"1"}"#
        )
    );
    let blobs: Vec<Vec<u8>> = configs
        .into_iter()
        .chain(packed)
        .chain(manifests.map(String::into_bytes))
        .chain([inner.into_bytes()])
        .collect();
    let paths = blobs.iter().map(|blob| format!("blobs/sha256/{}", sha(blob))).collect::<Vec<_>>();
    let mut files: Vec<(&str, &[u8])> = vec![
        ("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#),
        ("index.json", index.as_bytes()),
    ];
    files.extend(paths.iter().zip(&blobs).map(|(path, blob)| (path.as_str(), blob.as_slice())));
    let archive = tar(&files);

    let loaded = world.load_for(archive.clone(), Some("linux/s390x")).await.unwrap();
    assert_eq!(loaded[0].names, [reference("multi:1")]);
    assert_eq!(world.images.resolve("multi:1").await.unwrap().document.architecture, "s390x");
    let loaded = world.load_for(archive.clone(), Some("linux/amd64")).await.unwrap();
    assert_eq!(world.images.image(&loaded[0].id).await.unwrap().document.architecture, "amd64");
    let error = world.load_for(archive, Some("linux/riscv64")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    // A blob that is not what its name says.
    let mut bad = files.clone();
    let other = gzip(&tar(&[("arch", b"evil!")]));
    bad.iter_mut().find(|(path, _)| *path == paths[2]).unwrap().1 = &other;
    assert!(world.load_for(tar(&bad), Some("linux/amd64")).await.is_err());
}

#[tokio::test]
async fn broken_archives_leave_no_image() {
    let world = World::new().await;
    let layer = tar(&[("a", b"1")]);
    let good = classic("app:1", &[&layer]);
    let wrong = {
        let config = config("amd64", &[b"something else"]);
        let manifest = br#"[{"Config":"c.json","RepoTags":["app:1"],"Layers":["layer.tar"]}]"#;
        tar(&[("layer.tar", &layer), ("c.json", &config), ("manifest.json", manifest)])
    };
    let missing =
        tar(&[("manifest.json", br#"[{"Config":"c.json","RepoTags":null,"Layers":[]}]"#)]);
    let hostile = tar(&[(
        "manifest.json",
        br#"[{"Config":"../../etc/passwd","RepoTags":null,"Layers":[]}]"#,
    )]);
    let bad_name = classic("Not/A:Name:", &[&layer]);
    let cases = [
        wrong,
        missing,
        hostile,
        bad_name,
        tar(&[("x", b"y")]),
        good[..good.len() - 3000].to_vec(),
        b"no tar at all".to_vec(),
        Vec::new(),
    ];
    for (at, archive) in cases.into_iter().enumerate() {
        let error = world.load(archive).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "case {at}: {error:?}");
    }
    assert!(world.images.list().await.unwrap().is_empty());
    let ingests = std::fs::read_dir(world.temp.path().join("content/ingest")).unwrap();
    assert_eq!(ingests.count(), 0);
    world.load(good).await.unwrap();
}

#[tokio::test]
async fn what_is_saved_is_loaded_elsewhere() {
    let (here, there) = (World::new().await, World::new().await);
    let one = here.install("one:1", &[("/hello", "binary"), ("/etc/x", "1")]).await;
    let two = here.install("two", &[("/hello", "binary"), ("/etc/x", "1")]).await;
    assert_eq!(one, two, "the same files make the same image");
    let three = here.install("three", &[("/other", "3")]).await;
    let images: &[(_, &[&str])] = &[(one.clone(), &["one:1", "two"]), (three.clone(), &[])];
    let archive = here.save(images).await;
    assert_eq!(archive, here.save(images).await, "the same images make the same archive");
    let loaded = there.load(archive.clone()).await.unwrap();
    assert_eq!(loaded.iter().map(|l| l.id.clone()).collect::<Vec<_>>(), [one.clone(), three]);
    assert_eq!(loaded[0].names, [reference("one:1"), reference("two")]);
    let platform = Platform::host().to_string();
    let by_index = World::new().await.load_for(archive, Some(&platform)).await.unwrap();
    assert_eq!(by_index, loaded);
    let (before, after) =
        (here.images.image(&one).await.unwrap(), there.images.image(&one).await.unwrap());
    assert_eq!((before.manifest, before.document), (after.manifest.clone(), after.document));
    // Nothing is kept but documents, and collection keeps those.
    assert_eq!(there.transfer.collect(&[]).await.unwrap(), 0);
    there.images.remove(&one).await.unwrap();
    assert!(there.transfer.collect(&[]).await.unwrap() > 0);
    assert_eq!(
        there.save(&[(loaded[1].id.clone(), &[])]).await,
        here.save(&[(loaded[1].id.clone(), &[])]).await
    );
}

#[tokio::test]
async fn import_and_commit() {
    let world = World::new().await;
    let request = ImportRequest {
        archive: Box::new(Cursor::new(gzip(&tar(&[("a", b"1")])))),
        name: Some(reference("imported")),
        message: "Imported from -".to_owned(),
        platform: Platform::host(),
        config: ImageConfig::default(),
    };
    let parent = world.transfer.import(request).await.unwrap();
    let image = world.images.resolve("imported").await.unwrap();
    assert_eq!(image.document.history[0].comment, "Imported from -");
    let container = ContainerId::from_random([1; 32]);
    let layers = image.document.rootfs.diff_ids.clone();
    world.snapshots.prepare(SnapshotRequest { container, layers, size: None }).await.unwrap();
    let commit = || CommitRequest {
        container,
        parent: Some(parent.clone()),
        config: ImageConfig { user: "me".to_owned(), ..ImageConfig::default() },
        author: "someone".to_owned(),
        comment: "why".to_owned(),
        created_by: "/bin/sh".to_owned(),
        created: Timestamp::from_nanos(1_000_000_000),
        platform: Platform::host(),
        name: Some(reference("committed:1")),
    };
    let unchanged = world.transfer.commit(commit()).await.unwrap();
    let document = world.images.image(&unchanged).await.unwrap().document;
    assert_eq!((document.rootfs.diff_ids.len(), document.history.len()), (1, 2));
    assert!(document.history[1].empty_layer);

    std::fs::write(world.snapshots.container_dir(&container).join("upper/b"), "22").unwrap();
    let id = world.transfer.commit(commit()).await.unwrap();
    let image = world.images.resolve("committed:1").await.unwrap();
    assert_eq!((image.id, image.size, image.document.rootfs.diff_ids.len()), (id, 3, 2));
    assert_eq!(image.document.created, "1970-01-01T00:00:01Z");
    assert_eq!(
        (image.document.author.as_str(), image.document.config.user.as_str()),
        ("someone", "me")
    );
    let missing = CommitRequest { container: ContainerId::from_random([9; 32]), ..commit() };
    let error = world.transfer.commit(missing).await.unwrap_err();
    assert!(matches!(error, Error::Snapshot(_)));
}

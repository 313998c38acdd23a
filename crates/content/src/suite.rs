//! What every store of blobs and of image records owes its users; run for the real ones and for the fakes.
#![expect(
    clippy::missing_panics_doc,
    clippy::unwrap_used,
    clippy::cognitive_complexity,
    reason = "these are tests"
)]

use std::io::{Read, Write};

use rorqual_core::{DiffId, Digest, ImageId, Reference, Timestamp};

use crate::{Blobs, Descriptor, Error, ImageDocument, ImageRecord, Images, media_type};

fn put(blobs: &dyn Blobs, bytes: &[u8]) -> Digest {
    let mut ingest = blobs.ingest(1 << 20).unwrap();
    ingest.write_all(bytes).unwrap();
    let (digest, size) = ingest.commit(None).unwrap();
    assert_eq!(size, bytes.len() as u64);
    digest
}

/// Blobs are visible whole, under their own digest, once.
pub async fn blobs_are_their_digests(blobs: &dyn Blobs) {
    let digest = put(blobs, b"hello");
    assert_eq!(
        digest.to_string(),
        "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
    );
    assert_eq!(put(blobs, b"hello"), digest);
    assert_eq!(blobs.disk_usage().await.unwrap(), 5);
    assert_eq!(blobs.size(&digest).unwrap(), Some(5));
    let mut text = String::new();
    blobs.open(&digest).unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(text, "hello");
    assert_eq!(blobs.read(&digest, 5).unwrap(), b"hello");
    assert!(matches!(blobs.read(&digest, 4), Err(Error::WrongSize(_))));

    let mut ingest = blobs.ingest(10).unwrap();
    ingest.write_all(b"oth").unwrap();
    let reader = ingest.reader().unwrap();
    let mut bytes = [0; 8];
    assert_eq!(reader.read_at(&mut bytes, 1).unwrap(), 2);
    ingest.write_all(b"er").unwrap();
    assert_eq!(reader.read_at(&mut bytes, 3).unwrap(), 2);
    assert_eq!(&bytes[..2], b"er");
    assert_eq!(reader.read_at(&mut bytes, 5).unwrap(), 0);
    assert_eq!(reader.read_at(&mut bytes, 50).unwrap(), 0);
    assert_ne!(ingest.digest(), digest);
    assert!(matches!(ingest.commit(Some(&digest)), Err(Error::WrongDigest { .. })));
    let mut ingest = blobs.ingest(3).unwrap();
    assert!(ingest.write_all(b"too long").is_err());
    drop(ingest);
    assert_eq!(blobs.disk_usage().await.unwrap(), 5);
}

/// Collection keeps what roots reach and what leases protect.
pub async fn collection_follows_documents(blobs: &dyn Blobs) {
    blobs.collect(Vec::new()).await.unwrap();
    let (config, layer) = (put(blobs, b"{\"os\":\"linux\"}"), put(blobs, b"layer"));
    let manifest =
        format!(r#"{{"config":{{"digest":"{config}"}},"layers":[{{"digest":"{layer}"}}]}}"#);
    let manifest = put(blobs, manifest.as_bytes());
    let index = put(blobs, format!(r#"{{"manifests":[{{"digest":"{manifest}"}}]}}"#).as_bytes());
    let loose = put(blobs, b"loose");

    assert_eq!(blobs.collect(vec![index.clone()]).await.unwrap(), 5);
    for kept in [&config, &layer, &manifest, &index] {
        assert!(blobs.size(kept).unwrap().is_some(), "{kept} is reachable");
    }
    assert!(blobs.size(&loose).unwrap().is_none());

    let lease = blobs.lease();
    let leased = put(blobs, b"leased");
    blobs.collect(vec![index.clone()]).await.unwrap();
    assert!(blobs.size(&leased).unwrap().is_some());
    drop(lease);
    assert_eq!(blobs.collect(vec![index.clone()]).await.unwrap(), 6);
    // What only a forgotten document leads to goes, though another still names that document.
    assert!(blobs.forget(&manifest).await.unwrap());
    assert!(!blobs.forget(&manifest).await.unwrap());
    assert!(blobs.collect(vec![index]).await.unwrap() > 0);
    assert!(blobs.collect(Vec::new()).await.unwrap() > 0);
    assert_eq!(blobs.disk_usage().await.unwrap(), 0);
}

fn image(letter: char, tags: &[&str]) -> ImageRecord {
    let digest: Digest = format!("sha256:{}", letter.to_string().repeat(64)).parse().unwrap();
    let descriptor = Descriptor::new(media_type::OCI_MANIFEST, digest.clone(), 1);
    ImageRecord {
        id: ImageId(digest),
        target: descriptor.clone(),
        manifest: descriptor,
        document: ImageDocument { os: "linux".to_owned(), ..ImageDocument::default() },
        tags: tags.iter().map(|tag| tag.parse().unwrap()).collect(),
        digests: Vec::new(),
        size: 7,
        tagged_at: None,
    }
}

/// Names move between images and lead to exactly one.
pub async fn names_lead_to_one_image(images: &dyn Images) {
    let (a, b) = (image('a', &["app:1", "app:latest"]), image('b', &["app:latest"]));
    images.put(a.clone()).await.unwrap();
    images.put(b.clone()).await.unwrap();
    assert_eq!(images.resolve("app").await.unwrap().id, b.id);
    assert_eq!(images.image(&a.id).await.unwrap().tags, ["app:1".parse::<Reference>().unwrap()]);

    let name: Reference = "app:1".parse().unwrap();
    let at = Timestamp::from_nanos(5);
    assert_eq!(images.tag(&b.id, &name, at).await.unwrap(), Some(a.id.clone()));
    assert_eq!(images.tag(&b.id, &name, at).await.unwrap(), None);
    assert_eq!(images.image(&b.id).await.unwrap().tagged_at, Some(at));
    assert!(images.untag(&b.id, &name).await.unwrap());
    assert!(!images.untag(&b.id, &name).await.unwrap());

    // Putting an image again adds names and forgets none.
    images.put(image('b', &["other:1"])).await.unwrap();
    assert_eq!(images.image(&b.id).await.unwrap().tags.len(), 2);
    assert_eq!(images.list().await.unwrap().len(), 2);
    images.remove(&a.id).await.unwrap();
    assert!(images.image(&a.id).await.is_err());
    assert!(images.remove(&a.id).await.is_err());
    let error = images.resolve("gone").await.unwrap_err();
    assert_eq!(error.to_string(), "No such image: gone:latest");
}

/// What layers were packed to is noted, replaced and forgotten.
pub async fn packed_forms_are_notes(images: &dyn Images) {
    let layer = |byte: u8| DiffId(Digest::sha256([byte; 32]));
    let packed =
        |byte: u8| Descriptor::new(media_type::OCI_LAYER_GZIP, Digest::sha256([byte; 32]), 7);
    assert!(images.packed_forms().await.unwrap().is_empty());
    images.note_packed(&layer(1), &packed(11)).await.unwrap();
    images.note_packed(&layer(2), &packed(12)).await.unwrap();
    images.note_packed(&layer(1), &packed(13)).await.unwrap();
    let mut forms = images.packed_forms().await.unwrap();
    forms.sort_by(|a, b| a.0.cmp(&b.0));
    assert_eq!(forms, [(layer(1), packed(13)), (layer(2), packed(12))]);
    images.forget_packed(vec![layer(1), layer(9)]).await.unwrap();
    assert_eq!(images.packed_forms().await.unwrap(), [(layer(2), packed(12))]);
}

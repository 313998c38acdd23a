//! What every storage owes the registry; run for the disk and for object stores.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use rorqual_core::{Algorithm, Digest};

use super::cloud::Cloud;
use super::disk::Disk;
use super::{Content, Durability, Hasher, Pieces, Storage, Swapped, list_all};
use crate::error::Error;

fn pieces(parts: &[&'static [u8]]) -> Pieces {
    let parts: Vec<_> = parts.iter().map(|part| Ok(Bytes::from_static(part))).collect();
    futures_util::stream::iter(parts).boxed()
}

fn broken(part: &'static [u8]) -> Pieces {
    let parts = [Ok(Bytes::from_static(part)), Err("connection reset".into())];
    futures_util::stream::iter(parts).boxed()
}

fn digest(bytes: &[u8]) -> Digest {
    Hasher::digest(Algorithm::Sha256, bytes).unwrap()
}

async fn read(storage: &dyn Storage, key: &str, range: std::ops::Range<u64>) -> Vec<u8> {
    match storage.open(key, range).await.unwrap() {
        Content::Bytes(bytes) => bytes.to_vec(),
        Content::File(file, range) => {
            let mut bytes = vec![0; (range.end - range.start) as usize];
            std::os::unix::fs::FileExt::read_exact_at(&*file, &mut bytes, range.start).unwrap();
            bytes
        }
        Content::Pieces(pieces) => {
            pieces.map(|piece| piece.unwrap().to_vec()).collect::<Vec<_>>().await.concat()
        }
    }
}

/// Objects are replaced whole, listed in order, and gone when removed.
#[expect(clippy::cognitive_complexity, reason = "assertions in a row")]
async fn objects_come_and_go(storage: &dyn Storage) {
    assert!(storage.get("a/b").await.unwrap().is_none());
    storage.delete("a/b").await.unwrap();
    for name in ["b", "a", "B", "c/d", "a-b"] {
        let key = format!("f/{name}");
        storage.put(&key, Bytes::from(name.to_owned()), Durability::Durable).await.unwrap();
    }
    storage.put("f/a", Bytes::from_static(b"new"), Durability::Volatile).await.unwrap();
    assert_eq!(storage.get("f/a").await.unwrap().unwrap().bytes, "new");
    assert_eq!(storage.head("f/a").await.unwrap().unwrap().size, 3);
    assert!(storage.head("f").await.unwrap().is_none());
    let names = |entries: Vec<super::Entry>| {
        entries.into_iter().map(|entry| entry.name).collect::<Vec<_>>()
    };
    assert_eq!(names(storage.list("f", None, 10).await.unwrap()), ["B", "a", "a-b", "b"]);
    assert_eq!(names(storage.list("f", Some("B"), 2).await.unwrap()), ["a", "a-b"]);
    assert_eq!(names(storage.list("f", Some("aa"), 2).await.unwrap()), ["b"]);
    assert_eq!(storage.folders("f").await.unwrap(), ["c"]);
    assert!(storage.list("none", None, 10).await.unwrap().is_empty());
    assert!(storage.folders("none").await.unwrap().is_empty());
    for name in ["b", "a", "B", "c/d", "a-b"] {
        storage.delete(&format!("f/{name}")).await.unwrap();
    }
    assert!(storage.folders("f").await.unwrap().is_empty());
    storage.probe().await.unwrap();
}

/// A write that depends on what is there happens only then.
async fn swaps_see_what_is_there(storage: &dyn Storage) {
    let (a, b) = (Bytes::from_static(b"a"), Bytes::from_static(b"b"));
    let swap =
        async |expected, bytes: &Bytes| storage.swap("s/x", expected, bytes.clone()).await.unwrap();
    assert_eq!(swap(Some(b"a".as_slice()), &b).await, Swapped::Differs, "nothing is there");
    assert_eq!(swap(None, &a).await, Swapped::Done);
    assert_eq!(swap(None, &b).await, Swapped::Differs);
    assert_eq!(swap(Some(b"b".as_slice()), &b).await, Swapped::Differs);
    assert_eq!(storage.get("s/x").await.unwrap().unwrap().bytes, "a");
    assert_eq!(swap(Some(b"a".as_slice()), &b).await, Swapped::Done);
    assert_eq!(storage.get("s/x").await.unwrap().unwrap().bytes, "b");
    storage.delete("s/x").await.unwrap();
    assert_eq!(swap(None, &b).await, Swapped::Done);
    storage.delete("s/x").await.unwrap();
}

/// An upload grows strictly in order, survives a broken body, and is visible only under its digest.
#[expect(clippy::cognitive_complexity, reason = "assertions in a row")]
async fn uploads_grow_in_order(storage: &dyn Storage) {
    let limit = 1 << 30;
    assert_eq!(storage.append("u", 0, pieces(&[b"he", b"ll"]), limit).await.unwrap(), 4);
    let error = storage.append("u", 3, pieces(&[b"x"]), limit).await.unwrap_err();
    assert_eq!(error.wire().1, http::StatusCode::RANGE_NOT_SATISFIABLE);
    let error = storage.append("u", 4, broken(b"o "), limit).await.unwrap_err();
    assert!(matches!(error, Error::Body(_)), "{error:?}");
    assert_eq!(storage.length("u").await.unwrap(), 6);
    assert_eq!(storage.append("u", 6, pieces(&[b"you"]), limit).await.unwrap(), 9);
    let whole = digest(b"hello you");
    assert_eq!(storage.commit("u", &whole, "blobs/x/y").await.unwrap(), 9);
    assert_eq!(storage.length("u").await.unwrap(), 0);
    assert_eq!(read(storage, "blobs/x/y", 0..9).await, b"hello you");
    assert_eq!(read(storage, "blobs/x/y", 6..8).await, b"yo");

    // The other hash function, and one piece.
    storage.append("v", 0, pieces(&[b"one"]), limit).await.unwrap();
    let sha512 = Hasher::digest(Algorithm::Sha512, b"one").unwrap();
    storage.commit("v", &sha512, "blobs/x/z").await.unwrap();
    assert_eq!(read(storage, "blobs/x/z", 0..3).await, b"one");
    storage.append("w", 0, pieces(&[b"one"]), limit).await.unwrap();
    storage.commit("w", &digest(b"one"), "blobs/x/one").await.unwrap();
    assert_eq!(read(storage, "blobs/x/one", 0..3).await, b"one");
    // Nothing at all has a digest, too.
    storage.commit("empty", &digest(b""), "blobs/x/empty").await.unwrap();
    assert_eq!(storage.head("blobs/x/empty").await.unwrap().unwrap().size, 0);
}

/// What does not have its digest, or is too long, is never visible and leaves nothing.
async fn wrong_uploads_vanish(storage: &dyn Storage) {
    storage.append("u", 0, pieces(&[b"abc"]), 10).await.unwrap();
    let error = storage.commit("u", &digest(b"abd"), "blobs/w/1").await.unwrap_err();
    assert!(matches!(error, Error::WrongDigest { .. }), "{error:?}");
    assert!(storage.head("blobs/w/1").await.unwrap().is_none());
    assert_eq!(storage.length("u").await.unwrap(), 0);
    let error = storage.append("v", 0, pieces(&[b"abcdef", b"ghijkl"]), 10).await.unwrap_err();
    assert_eq!(error.wire().0, "SIZE_INVALID");
    storage.discard("v").await.unwrap();
    storage.discard("never").await.unwrap();
    assert!(storage.folders(crate::name::key::UPLOADS).await.unwrap().is_empty());
    assert!(list_all(storage, "blobs/w").await.unwrap().is_empty());
}

/// A large blob in many pieces, and a local file that becomes a blob.
async fn large_blobs(storage: &dyn Storage) {
    let piece: Bytes = (0..1 << 20).map(|i: u32| (i % 251) as u8).collect::<Vec<_>>().into();
    let whole: Vec<u8> = piece.iter().copied().cycle().take(piece.len() * 20).collect();
    let repeated = futures_util::stream::iter(vec![piece; 20]).map(Ok).boxed();
    let end = storage.append("big", 0, repeated, 1 << 30);
    assert_eq!(end.await.unwrap(), whole.len() as u64);
    storage.commit("big", &digest(&whole), "blobs/b/big").await.unwrap();
    assert!(read(storage, "blobs/b/big", 0..whole.len() as u64).await == whole);
    assert!(read(storage, "blobs/b/big", 5..9_000_000).await == whole[5..9_000_000]);

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("spool");
    std::fs::write(&file, b"spooled").unwrap();
    storage.adopt(&file, "blobs/b/spool").await.unwrap();
    assert_eq!(read(storage, "blobs/b/spool", 0..7).await, b"spooled");
}

async fn run(storage: &dyn Storage) {
    objects_come_and_go(storage).await;
    swaps_see_what_is_there(storage).await;
    uploads_grow_in_order(storage).await;
    wrong_uploads_vanish(storage).await;
    large_blobs(storage).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn disk() {
    // On the disk of the build, where a file can be adopted by renaming.
    let folder = tempfile::tempdir().unwrap();
    run(&Disk::open(folder.path()).await.unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn object_store_in_memory() {
    run(&Cloud::over(Arc::new(object_store::memory::InMemory::new()))).await;
}

/// Against a real server: `RORQUAL_TEST_STORE=URL`, with what the store needs in the environment.
#[tokio::test(flavor = "multi_thread")]
async fn object_store_of_the_environment() {
    let Ok(location) = std::env::var("RORQUAL_TEST_STORE") else { return };
    run(&Cloud::open(&location).unwrap()).await;
}

/// An upload goes on after the process was gone.
#[tokio::test(flavor = "multi_thread")]
async fn uploads_survive_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let first = Disk::open(folder.path()).await.unwrap();
    first.append("u", 0, pieces(&[b"half"]), 100).await.unwrap();
    drop(first);
    let second = Disk::open(folder.path()).await.unwrap();
    assert_eq!(second.length("u").await.unwrap(), 4);
    second.append("u", 4, pieces(&[b"way"]), 100).await.unwrap();
    second.commit("u", &digest(b"halfway"), "blobs/h").await.unwrap();
    assert_eq!(read(&second, "blobs/h", 0..7).await, b"halfway");
}

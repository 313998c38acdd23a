use super::*;
use crate::fake::FakeBlobs;
use crate::suite;

#[tokio::test]
async fn the_suite_holds() {
    let temp = tempfile::tempdir().unwrap();
    let blobs = LocalBlobs::open(temp.path()).unwrap();
    suite::blobs_are_their_digests(&blobs).await;
    suite::collection_follows_documents(&blobs).await;
    suite::blobs_are_their_digests(&FakeBlobs::new()).await;
    suite::collection_follows_documents(&FakeBlobs::new()).await;
}

#[test]
fn what_was_not_committed_is_gone_after_a_crash() {
    let temp = tempfile::tempdir().unwrap();
    let blobs = LocalBlobs::open(temp.path()).unwrap();
    let mut ingest = blobs.ingest(100).unwrap();
    ingest.write_all(b"half").unwrap();
    std::mem::drop(LocalBlobs::open(temp.path()).unwrap());
    assert_eq!(fs::read_dir(temp.path().join("content/ingest")).unwrap().count(), 0);
    // The ingest of a store that was opened over fails instead of publishing nothing.
    assert!(ingest.commit(None).is_err());
}

#[test]
fn longer_digests_are_verified_too() {
    let temp = tempfile::tempdir().unwrap();
    let blobs = LocalBlobs::open(temp.path()).unwrap();
    let right: Digest = "sha512:9b71d224bd62f3785d96d46ad3ea3d73319bfbc2890caadae2dff72519673ca72323c3d99ba5c11d7c7acc6e14b8c5da0c4663475c2e5c3adef46f73bcdec043".parse().unwrap();
    let mut ingest = blobs.ingest(100).unwrap();
    ingest.write_all(b"hello").unwrap();
    assert_eq!(ingest.commit(Some(&right)).unwrap().0, right);
    let mut ingest = blobs.ingest(100).unwrap();
    ingest.write_all(b"hallo").unwrap();
    assert!(ingest.commit(Some(&right)).is_err());
}

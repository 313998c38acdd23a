//! What every snapshotter owes its users, whatever it keeps layers in; run for the real one and for the fake.
#![expect(
    clippy::missing_panics_doc,
    clippy::unwrap_used,
    clippy::panic,
    clippy::cognitive_complexity,
    reason = "these are tests"
)]

use std::io::Cursor;

use rorqual_core::mount::RootfsPlan;
use rorqual_core::{Classify, ContainerId, DiffId, ErrorKind};

use crate::tar::{Entry, Kind, Writer};
use crate::{Error, LayerInfo, LayerSource, SnapshotRequest, Snapshotter};

fn tar(content: &[u8]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    writer.file(Entry::new("file", Kind::File, 0o644), content).unwrap();
    writer.finish().unwrap()
}

async fn apply(
    snapshots: &dyn Snapshotter,
    bytes: Vec<u8>,
    expected: Option<DiffId>,
) -> Result<LayerInfo, Error> {
    snapshots.apply(LayerSource { blob: Box::new(Cursor::new(bytes)), expected }).await
}

fn kind<T: std::fmt::Debug>(result: Result<T, Error>) -> ErrorKind {
    result.unwrap_err().kind()
}

/// Layers are known by the digest of their plain tar, packed or not, and only if it is the promised one.
pub async fn layers_are_their_digests(snapshots: &dyn Snapshotter) {
    let bytes = tar(b"one");
    let packed = zstd::stream::encode_all(&*bytes, 1).unwrap();
    let plain = apply(snapshots, bytes.clone(), None).await.unwrap();
    assert_eq!(plain.tar, bytes.len() as u64);
    assert_eq!(apply(snapshots, packed.clone(), None).await.unwrap(), plain);
    let promised = Some(plain.diff_id.clone());
    assert_eq!(apply(snapshots, packed, promised.clone()).await.unwrap(), plain);
    assert_eq!(snapshots.find_layer(&plain.diff_id).await.unwrap(), Some(plain));
    snapshots.retain(&[], &[]).await.unwrap();
    let wrong = apply(snapshots, tar(b"two"), promised).await;
    assert!(matches!(wrong, Err(Error::WrongDigest { .. })));
}

/// A snapshot is there from its preparation to its removal, and removing is repeatable.
pub async fn snapshots_live_until_removed(snapshots: &dyn Snapshotter) {
    let layer = apply(snapshots, tar(b"base"), None).await.unwrap().diff_id;
    let container = ContainerId::from_random([3; 32]);
    assert_eq!(kind(snapshots.rootfs(&container).await), ErrorKind::NotFound);
    let request = SnapshotRequest { container, layers: vec![layer.clone()], size: None };
    snapshots.prepare(request).await.unwrap();
    let RootfsPlan::Overlay(plan) = snapshots.rootfs(&container).await.unwrap() else {
        panic!("an overlay is expected");
    };
    let upper = plan.upper.unwrap().upper;
    assert!(upper.starts_with(snapshots.container_dir(&container)));
    assert!(!plan.lower.is_empty());
    assert!(snapshots.changes(&container).await.unwrap().is_empty());
    assert!(snapshots.usage(&container).await.unwrap().layers > 0);
    let tree = snapshots.open(&container, None).await.unwrap();
    assert_eq!(tree.read("/no/such/file", 10).await.unwrap(), None);
    assert_eq!(kind(tree.stat("/no/such/file").await), ErrorKind::NotFound);

    snapshots.retain(&[], &[container]).await.unwrap();
    assert!(snapshots.rootfs(&container).await.is_ok());
    assert!(snapshots.find_layer(&layer).await.unwrap().is_some(), "a container stands on it");
    snapshots.remove(&container).await.unwrap();
    snapshots.remove(&container).await.unwrap();
    assert_eq!(kind(snapshots.usage(&container).await), ErrorKind::NotFound);
    assert!(snapshots.retain(&[], &[]).await.unwrap() > 0);
    let request = SnapshotRequest { container, layers: vec![layer], size: None };
    assert_eq!(kind(snapshots.prepare(request).await), ErrorKind::NotFound);
}

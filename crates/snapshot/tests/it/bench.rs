//! Throughput of unpacking, against GNU tar. Ignored by default: it measures, it does not judge.

use std::fs::File;
use std::process::Command;
use std::time::Instant;

use rorqual_snapshot::{LayerSource, Options, Overlay, Snapshotter};

#[tokio::test]
#[ignore = "measures; set RORQUAL_BENCH_LAYER to a compressed layer"]
async fn a_large_layer() {
    let Ok(path) = std::env::var("RORQUAL_BENCH_LAYER") else { return };
    let temp = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    for durable in [false, true, false, true] {
        let overlay =
            Overlay::open(temp.path(), Options { durable, ..Options::default() }).unwrap();
        overlay.retain(&[], &[]).await.unwrap();
        let begun = Instant::now();
        let blob = Box::new(File::open(&path).unwrap());
        let info = overlay.apply(LayerSource { blob, expected: None }).await.unwrap();
        eprintln!("durable={durable}: {:?} for {} bytes", begun.elapsed(), info.tar);
        let peer = temp.path().join("peer");
        std::fs::create_dir(&peer).unwrap();
        let begun = Instant::now();
        let tar = Command::new("tar").arg("-xf").arg(&path).arg("-C").arg(&peer).status().unwrap();
        assert!(tar.success());
        eprintln!("tar -x: {:?}", begun.elapsed());
        std::fs::remove_dir_all(&peer).unwrap();
    }
}

#[tokio::test]
#[ignore = "measures"]
async fn snapshots() {
    use rorqual_core::ContainerId;
    use rorqual_snapshot::SnapshotRequest;
    let world = crate::world::World::new();
    let layer = world.layer(&[("a", "b")]).await;
    let (mut prepare, mut rootfs, mut remove) = (Vec::new(), Vec::new(), Vec::new());
    for number in 0..200 {
        let container = ContainerId::from_random([number; 32]);
        let request = SnapshotRequest { container, layers: vec![layer.clone()], size: None };
        let begun = Instant::now();
        world.overlay.prepare(request).await.unwrap();
        prepare.push(begun.elapsed());
        let begun = Instant::now();
        world.overlay.rootfs(&container).await.unwrap();
        rootfs.push(begun.elapsed());
        let begun = Instant::now();
        world.overlay.remove(&container).await.unwrap();
        remove.push(begun.elapsed());
    }
    for (name, mut times) in [("prepare", prepare), ("rootfs", rootfs), ("remove", remove)] {
        times.sort();
        eprintln!("{name}: median {:?}", times[times.len() / 2]);
    }
}

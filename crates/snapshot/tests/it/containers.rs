//! Snapshots of containers: differences, new layers, archives in and out.

use std::io::{Cursor, Read};
use std::os::unix::fs::MetadataExt;

use rorqual_core::mount::{OverlayPlan, RootfsPlan};
use rorqual_core::{Classify, ContainerId, ErrorKind};
use rorqual_snapshot::{ChangeKind, Error, Extract, Snapshotter};

use crate::layers::Buffer;
use crate::world::{World, mounted, tar};

async fn plan(world: &World, container: &ContainerId) -> OverlayPlan {
    match world.overlay.rootfs(container).await.unwrap() {
        RootfsPlan::Overlay(plan) => plan,
        RootfsPlan::Directory { .. } => panic!("an overlay is expected"),
    }
}

async fn changes(world: &World, container: &ContainerId) -> Vec<String> {
    let changes = world.overlay.changes(container).await.unwrap();
    let letter = |kind| match kind {
        ChangeKind::Modified => 'C',
        ChangeKind::Added => 'A',
        ChangeKind::Deleted => 'D',
    };
    changes.iter().map(|change| format!("{} {}", letter(change.kind), change.path)).collect()
}

#[tokio::test]
async fn a_fresh_container_differs_in_nothing_and_has_its_mount_points() {
    let world = World::new();
    let layer = world.layer(&[("etc/", ""), ("etc/hosts", "own"), ("dev", "-> /etc")]).await;
    let container = world.container(1, &[layer]).await;
    assert_eq!(changes(&world, &container).await, [""; 0]);
    mounted(&plan(&world, &container).await, |root| {
        assert_eq!(std::fs::read_to_string(root.join("etc/hosts")).unwrap(), "own");
        assert_eq!(std::fs::read_link(root.join("dev")).unwrap().to_str(), Some("/etc"));
        for path in ["proc", "sys", ".dockerenv", "etc/resolv.conf", "etc/hostname"] {
            assert!(root.join(path).exists(), "{path}");
        }
    });
    assert_eq!(changes(&world, &container).await, [""; 0]);
}

#[tokio::test]
async fn differences_are_docker_s() {
    let world = World::new();
    let below = world
        .layer(&[
            ("dir/", ""),
            ("dir/old", "1"),
            ("dir/sub/", ""),
            ("dir/sub/deep", "1"),
            ("keep/", ""),
            ("keep/same", "1"),
            ("gone", "1"),
            ("swap/", ""),
            ("swap/x", "1"),
        ])
        .await;
    let above = world.layer(&[("dir/new", "2"), (".wh.never", "")]).await;
    let container = world.container(1, &[below, above]).await;
    mounted(&plan(&world, &container).await, |root| {
        std::fs::write(root.join("dir/old"), "changed").unwrap();
        std::fs::write(root.join("keep/added"), "a").unwrap();
        std::fs::remove_file(root.join("gone")).unwrap();
        std::fs::remove_dir_all(root.join("swap")).unwrap();
        std::fs::create_dir(root.join("swap")).unwrap();
        std::fs::write(root.join("swap/y"), "new").unwrap();
        std::fs::create_dir_all(root.join("fresh/inner")).unwrap();
        std::fs::write(root.join("temp"), "x").unwrap();
        std::fs::remove_file(root.join("temp")).unwrap();
    });
    assert_eq!(
        changes(&world, &container).await,
        [
            "C /dir",
            "C /dir/old",
            "A /fresh",
            "A /fresh/inner",
            "D /gone",
            "C /keep",
            "A /keep/added",
            "C /swap",
            "D /swap/x",
            "A /swap/y",
        ]
    );
}

#[tokio::test]
async fn a_diff_applied_on_top_is_the_container() {
    let world = World::new();
    let base = world
        .layer(&[
            ("a", "1"),
            ("b", "1"),
            ("d/", ""),
            ("d/x", "1"),
            ("d/y", "1"),
            ("f/", ""),
            ("f/z", "1"),
        ])
        .await;
    let container = world.container(1, std::slice::from_ref(&base)).await;
    mounted(&plan(&world, &container).await, |root| {
        std::fs::remove_file(root.join("a")).unwrap();
        std::fs::write(root.join("b"), "2").unwrap();
        std::fs::hard_link(root.join("b"), root.join("b2")).unwrap();
        std::fs::remove_dir_all(root.join("d")).unwrap();
        std::fs::create_dir(root.join("d")).unwrap();
        std::fs::write(root.join("d/new"), "2").unwrap();
        std::fs::remove_dir_all(root.join("f")).unwrap();
        std::os::unix::fs::symlink("/b", root.join("f")).unwrap();
        std::os::unix::fs::chown(root.join("b"), Some(7), Some(8)).unwrap();
    });
    let buffer = Buffer::default();
    let layer = world.overlay.diff(&container, Box::new(buffer.clone())).await.unwrap();
    let second = Buffer::default();
    let same = world.overlay.diff(&container, Box::new(second.clone())).await.unwrap();
    assert_eq!(layer, same);
    assert_eq!(buffer.bytes(), second.bytes());
    assert_eq!(buffer.bytes().len() as u64, layer.tar);

    let copy = world.container(2, &[base, layer.diff_id]).await;
    mounted(&plan(&world, &copy).await, |root| {
        assert!(!root.join("a").exists());
        let stat = std::fs::metadata(root.join("b")).unwrap();
        assert_eq!((stat.uid(), stat.gid(), stat.nlink()), (7, 8, 2));
        let names = std::fs::read_dir(root.join("d")).unwrap();
        assert_eq!(names.map(|n| n.unwrap().file_name()).collect::<Vec<_>>(), ["new"]);
        assert_eq!(std::fs::read_link(root.join("f")).unwrap().to_str(), Some("/b"));
    });
    let empty = world.container(3, &[]).await;
    let nothing = world.overlay.diff(&empty, Box::new(std::io::sink())).await.unwrap();
    assert_eq!(nothing.tar, 1024);
}

#[tokio::test]
async fn whiteouts_mean_the_layers_below_whatever_their_order() {
    let world = World::new();
    let base = world.layer(&[("d/", ""), ("d/old", "1"), ("e/", ""), ("e/old", "1")]).await;
    let above = world
        .layer(&[("d/new", "2"), ("d/.wh..wh..opq", ""), (".wh.e", ""), ("e/", ""), ("e/new", "2")])
        .await;
    let container = world.container(1, &[base, above]).await;
    mounted(&plan(&world, &container).await, |root| {
        for dir in ["d", "e"] {
            let names = std::fs::read_dir(root.join(dir)).unwrap();
            let names = names.map(|name| name.unwrap().file_name()).collect::<Vec<_>>();
            assert_eq!(names, ["new"], "{dir}");
        }
    });
}

fn names(archive: &mut dyn Read) -> Vec<String> {
    let mut bytes = Vec::new();
    archive.read_to_end(&mut bytes).unwrap();
    let mut reader = rorqual_snapshot::tar::Reader::new(Cursor::new(bytes));
    let mut names = Vec::new();
    while let Some(entry) = reader.next_entry().unwrap() {
        names.push(String::from_utf8(entry.path).unwrap());
    }
    names
}

#[tokio::test]
async fn files_go_in_and_out_of_a_stopped_container() {
    let world = World::new();
    let layer = world
        .layer(&[
            ("data/", ""),
            ("data/file", "text"),
            ("data/sub/", ""),
            ("link", "-> data"),
            ("escape", "-> ../../../../etc"),
            ("dangling", "-> /nowhere/x"),
            ("real/", ""),
            ("data/abs", "-> /real"),
        ])
        .await;
    let container = world.container(1, &[layer]).await;
    let tree = world.overlay.open(&container, None).await.unwrap();
    assert_eq!(
        names(&mut tree.archive("/data").await.unwrap()),
        ["data/", "data/abs", "data/file", "data/sub/"]
    );
    assert_eq!(
        names(&mut tree.archive("/data/.").await.unwrap()),
        ["./", "./abs", "./file", "./sub/"]
    );
    assert_eq!(names(&mut tree.archive("link").await.unwrap()), ["link"]);
    assert_eq!(
        names(&mut tree.archive("link/").await.unwrap()),
        ["link/", "link/abs", "link/file", "link/sub/"]
    );
    assert_eq!(tree.stat("/link").await.unwrap().link_target, "/data");
    assert_eq!(tree.stat("/escape").await.unwrap().link_target, "/etc");
    assert_eq!(tree.stat("/dangling").await.unwrap().link_target, "/nowhere/x");
    let stat = tree.stat("link/file").await.unwrap();
    assert_eq!((stat.name.as_str(), stat.size), ("file", 4));
    assert_eq!(tree.read("/link/file", 10).await.unwrap().unwrap(), b"text");
    assert_eq!(tree.read("/no/such", 10).await.unwrap(), None);
    assert!(tree.read("/data/file", 2).await.is_err());
    let error = tree.stat("/missing").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert_eq!(
        error.to_string(),
        format!("Could not find the file /missing in container {container}")
    );

    let put = |files: &[(&str, &str)]| Box::new(Cursor::new(tar(files)));
    let how = Extract::default();
    tree.extract("/link", put(&[("new", "2"), ("abs/inner", "3")]), how).await.unwrap();
    let after = world.overlay.open(&container, None).await.unwrap();
    assert_eq!(after.read("/data/new", 9).await.unwrap().unwrap(), b"2");
    assert_eq!(after.read("/real/inner", 9).await.unwrap().unwrap(), b"3");
    let keep = Extract { no_overwrite_dir_non_dir: true, ..how };
    let error = tree.extract("/data", put(&[("sub", "file")]), keep).await.unwrap_err();
    assert!(error.to_string().contains("cannot overwrite directory"), "{error}");
    assert!(tree.extract("/data/file", put(&[]), how).await.is_err());
    assert!(matches!(tree.extract("/no", put(&[]), how).await, Err(Error::NoSuchPath { .. })));
    let read_only = Extract { read_only: true, ..how };
    assert!(tree.extract("/data", put(&[]), read_only).await.is_err());

    let volume = world.temp.path().join("volume");
    std::fs::create_dir(&volume).unwrap();
    after.copy_out("/data", volume.clone()).await.unwrap();
    assert_eq!(std::fs::read_to_string(volume.join("file")).unwrap(), "text");
    after.copy_out("/nothing", volume).await.unwrap();
    let all = names(&mut after.export().await.unwrap());
    assert!(
        all.contains(&"data/file".to_owned()) && all.contains(&".dockerenv".to_owned()),
        "{all:?}"
    );
}

#[tokio::test]
async fn a_running_container_is_seen_with_its_mounts() {
    let world = World::new();
    let container = world.container(1, &[]).await;
    // Our own root stands for a container's.
    let pid = i32::try_from(std::process::id()).unwrap();
    let tree = world.overlay.open(&container, Some(pid)).await.unwrap();
    assert!(tree.stat("/proc/version").await.is_ok());
    assert!(tree.stat("/proc/self/root/etc").await.is_err(), "magic links lead nowhere");
}

#[tokio::test]
async fn removal_and_usage() {
    let world = World::new();
    let layer = world.layer(&[("a", "12345")]).await;
    let container = world.container(1, &[layer]).await;
    mounted(&plan(&world, &container).await, |root| {
        std::fs::write(root.join("b"), "123").unwrap();
    });
    let usage = world.overlay.usage(&container).await.unwrap();
    assert_eq!((usage.writable, usage.layers), (3, 5));
    // Preparing again keeps what was written.
    world.container(1, &[]).await;
    assert_eq!(world.overlay.usage(&container).await.unwrap().writable, 3);
    world.overlay.remove(&container).await.unwrap();
    world.overlay.remove(&container).await.unwrap();
    assert!(!world.overlay.container_dir(&container).exists());
    let error = world.overlay.rootfs(&container).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

//! Layers: unpacked inside their root, verified, written again.

use std::io::{Cursor, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::process::Command;
use std::sync::{Arc, Mutex};

use rorqual_core::DiffId;
use rorqual_snapshot::tar::{Entry, Kind, Writer};
use rorqual_snapshot::{Error, LayerSource, Overlay, Snapshotter};

use crate::world::{World, options, tar};

#[derive(Clone, Default)]
pub(crate) struct Buffer(Arc<Mutex<Vec<u8>>>);

impl Buffer {
    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.0.lock().unwrap().clone()
    }
}

impl Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

async fn again(world: &World, id: &DiffId) -> Vec<u8> {
    let buffer = Buffer::default();
    world.overlay.layer_tar(id, Box::new(buffer.clone())).await.unwrap();
    buffer.bytes()
}

pub(crate) fn leftovers(world: &World) -> Vec<String> {
    let layers = std::fs::read_dir(world.temp.path().join("layers")).unwrap();
    let names = layers.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned());
    names.filter(|name| name.starts_with(".ingest")).collect()
}

#[tokio::test]
async fn a_layer_is_written_again_byte_for_byte() {
    let world = World::new();
    let twice = tar(&[
        ("a", "first"),
        ("d/", ""),
        ("d/x", "in a directory that goes"),
        ("a", "second"),
        ("link", "=> a"),
        ("d", "now a file"),
        (".wh.gone", ""),
        ("empty", ""),
    ]);
    let info = world.apply(twice.clone()).await.unwrap();
    assert_eq!(info.tar, twice.len() as u64);
    assert_eq!(again(&world, &info.diff_id).await, twice);
    assert_eq!(std::fs::read_to_string(world.tree(&info.diff_id).join("link")).unwrap(), "second");
    let empty = world.apply(vec![0; 10240]).await.unwrap();
    assert_eq!(again(&world, &empty.diff_id).await, vec![0; 10240]);
}

#[tokio::test]
async fn archives_of_gnu_tar_come_out_whole() {
    use std::os::unix::fs::FileExt;
    let world = World::new();
    let from = world.temp.path().join("from");
    std::fs::create_dir_all(from.join("dir/sub")).unwrap();
    std::fs::write(from.join("dir/file"), vec![7; 300_000]).unwrap();
    std::fs::hard_link(from.join("dir/file"), from.join("dir/sub/link")).unwrap();
    std::fs::write(from.join("n".repeat(200)), "long").unwrap();
    let sparse = std::fs::File::create(from.join("sparse")).unwrap();
    sparse.write_all_at(b"end", 3_000_000).unwrap();
    sparse.write_all_at(b"start", 0).unwrap();
    let run = |program: &str, arguments: &[&str]| {
        let status = Command::new(program).args(arguments).current_dir(&from).status().unwrap();
        assert!(status.success(), "{program} {arguments:?}");
    };
    run("mknod", &["null", "c", "1", "3"]);
    run("mkfifo", &["pipe"]);
    run("chown", &["12:34", "dir/file"]);
    run("chmod", &["6755", "dir/file"]);
    run("touch", &["-d", "2001-02-03 04:05:06.789012345", "dir/file", "dir/sub", "dir"]);
    for format in ["gnu", "pax"] {
        for more in [&[][..], &["--sparse"], &["--sparse", "-z"]] {
            let out = Command::new("tar")
                .arg(format!("--format={format}"))
                .args(["--numeric-owner", "-C"])
                .arg(&from)
                .args(more)
                .args(["-cf", "-", "."])
                .output()
                .unwrap();
            assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
            let info = world.apply(out.stdout.clone()).await.unwrap();
            let tree = world.tree(&info.diff_id);
            let stat = std::fs::metadata(tree.join("dir/file")).unwrap();
            assert_eq!((stat.uid(), stat.gid(), stat.mode() & 0o7777), (12, 34, 0o6755));
            assert_eq!(stat.ino(), std::fs::metadata(tree.join("dir/sub/link")).unwrap().ino());
            let nanos = if format == "pax" { 789_012_345 } else { 0 };
            let directory = std::fs::metadata(tree.join("dir/sub")).unwrap();
            assert_eq!((directory.mtime(), directory.mtime_nsec()), (981_173_106, nanos));
            assert_eq!(
                std::fs::read(tree.join("sparse")).unwrap(),
                std::fs::read(from.join("sparse")).unwrap()
            );
            assert_eq!(std::fs::metadata(tree.join("null")).unwrap().rdev(), 0x103);
            assert!(std::fs::metadata(tree.join("pipe")).unwrap().file_type().is_fifo());
            if !more.contains(&"-z") {
                assert_eq!(again(&world, &info.diff_id).await, out.stdout);
            }
        }
    }
}

#[tokio::test]
async fn hostile_archives_stay_inside_and_leave_nothing() {
    let world = World::new();
    std::fs::write(world.temp.path().join("victim"), "untouched").unwrap();
    let refused: &[&[(&str, &str)]] = &[
        &[("../victim", "x")],
        &[("a/../../victim", "x")],
        &[("/../victim", "x")],
        &[("link", "=> ../victim")],
        &[("link", "=> nowhere")],
        &[(".wh.", "")],
        &[(".wh..", "")],
        &[("a/.wh...", "")],
        &[("file", "x"), ("file/below", "x")],
        &[("loop", "-> loop"), ("loop/x", "y")],
        &[("dangling", "-> nowhere/at/all"), ("dangling/x", "y")],
    ];
    for files in refused {
        let error = world.apply(tar(files)).await.unwrap_err();
        assert!(matches!(error, Error::InvalidArchive(_)), "{files:?}: {error:?}");
    }
    let long = "n".repeat(256);
    assert!(matches!(world.apply(tar(&[(&long, "")])).await, Err(Error::InvalidArchive(_))));
    let truncated = tar(&[("a", &"x".repeat(3000))])[..2000].to_vec();
    assert!(matches!(world.apply(truncated).await, Err(Error::InvalidArchive(_))));
    let garbage = b"this is no archive at all".repeat(100);
    assert!(matches!(world.apply(garbage).await, Err(Error::InvalidArchive(_))));
    let contained: &[&[(&str, &str)]] = &[
        &[("up", "-> ../../../.."), ("up/victim", "x")],
        &[("abs", "-> /"), ("abs/victim", "x")],
        &[("abs", "-> /tmp"), ("tmp/", ""), ("abs/victim", "x")],
        &[("victim", "-> ../../../victim"), ("victim", "x")],
    ];
    for files in contained {
        world.apply(tar(files)).await.unwrap();
    }
    assert_eq!(std::fs::read_to_string(world.temp.path().join("victim")).unwrap(), "untouched");
    assert!(
        !std::path::Path::new("/victim").exists() && !std::path::Path::new("/tmp/victim").exists()
    );
    assert_eq!(leftovers(&world), [""; 0]);
}

#[tokio::test]
async fn a_bomb_ends_at_its_limit() {
    let temp = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let mut small = options();
    small.max_layer = 1 << 20;
    let overlay = Overlay::open(temp.path(), small).unwrap();
    let mut writer = Writer::new(Vec::new());
    let mut entry = Entry::new("bomb", Kind::File, 0o644);
    entry.size = 1 << 40;
    writer.header(&entry).unwrap();
    let head = writer.sink().clone();
    let bomb = std::io::Read::chain(Cursor::new(head), std::io::repeat(0));
    let source = LayerSource { blob: Box::new(bomb), expected: None };
    assert!(matches!(overlay.apply(source).await, Err(Error::InvalidArchive(_))));
}

#[tokio::test]
async fn digests_are_verified_and_work_is_shared() {
    let world = World::new();
    let bytes = tar(&[("a", "b")]);
    let id = world.apply(bytes.clone()).await.unwrap().diff_id;
    let other = tar(&[("a", "c")]);
    let source = || LayerSource {
        blob: Box::new(Cursor::new(other.clone())),
        expected: Some(format!("sha256:{}", "0".repeat(64)).parse().unwrap()),
    };
    assert!(matches!(world.overlay.apply(source()).await, Err(Error::WrongDigest { .. })));
    let same =
        || LayerSource { blob: Box::new(Cursor::new(bytes.clone())), expected: Some(id.clone()) };
    let (one, two) = tokio::join!(world.overlay.apply(same()), world.overlay.apply(same()));
    assert_eq!(one.unwrap(), two.unwrap());
    // Opened again, the layer is still there and the rest is swept.
    std::fs::create_dir(world.temp.path().join("layers/.ingest-left")).unwrap();
    let again = Overlay::open(world.temp.path(), options()).unwrap();
    assert!(again.find_layer(&id).await.unwrap().is_some());
    assert_eq!(leftovers(&world), [""; 0]);
    again.retain(&[], &[]).await.unwrap();
    assert!(again.find_layer(&id).await.unwrap().is_none());
}

//! A client's directory, announced honestly and not.

use rorqual_snapshot::Selection;

use super::*;
use crate::contract::TreeEntry;

fn entry(path: &str, mode: u32, link: &str) -> TreeEntry {
    TreeEntry {
        path: path.to_owned(),
        mode,
        uid: 0,
        gid: 0,
        size: 3,
        mtime: 5_000_000_007,
        link: link.to_owned(),
        device: (0, 0),
        xattrs: Vec::new(),
    }
}

const DIR: u32 = 0o040_755;
const FILE: u32 = 0o100_644;
const LINK: u32 = 0o120_777;

/// Announces entries; those whose content is asked for get `text`. Returns which were.
fn send(
    sink: &mut Box<dyn TreeSink>,
    entries: &[(&str, u32, &str)],
    text: &str,
) -> Result<Vec<String>, Error> {
    let mut asked = Vec::new();
    for (path, mode, link) in entries {
        if sink.entry(entry(path, *mode, link))? {
            sink.data(path, text.as_bytes())?;
            sink.end(path)?;
            asked.push((*path).to_owned());
        }
    }
    Ok(asked)
}

fn whole() -> Selection {
    Selection {
        source: "/".to_owned(),
        wildcard: false,
        allow_empty: false,
        follow: false,
        parents: false,
        filter: None,
        owners: false,
    }
}

async fn opened(folder: &Path) -> (Mirrors, Lease) {
    let mirrors = Mirrors::open(folder).unwrap();
    let lease = mirrors.lease("key").await.unwrap();
    (mirrors, lease)
}

#[tokio::test]
async fn only_what_changed_comes_again_also_to_the_next_daemon() {
    let folder = tempfile::tempdir().unwrap();
    let list = [("a", DIR, ""), ("a/f", FILE, ""), ("a/l", LINK, "f"), ("b", FILE, "")];
    let (_mirrors, lease) = opened(folder.path()).await;
    let mut sink = lease.sink(Box::new(|_| {})).unwrap();
    assert_eq!(send(&mut sink, &list, "one").unwrap(), ["a/f", "b"]);
    sink.finish().unwrap();
    let before = lease.contents(whole()).await.unwrap();
    drop(lease);

    let (_mirrors, lease) = opened(folder.path()).await;
    assert_eq!(lease.contents(whole()).await.unwrap(), before);
    let mut sink = lease.sink(Box::new(|_| {})).unwrap();
    assert!(send(&mut sink, &list, "one").unwrap().is_empty(), "nothing changed");
    sink.finish().unwrap();
    // One that went, and one that became something else.
    let mut sink = lease.sink(Box::new(|_| {})).unwrap();
    let list = [("a", FILE, ""), ("b", FILE, "")];
    assert_eq!(send(&mut sink, &list, "two").unwrap(), ["a"]);
    sink.finish().unwrap();
    assert_eq!(std::fs::read(lease.files().join("a")).unwrap(), b"two");
    assert_ne!(lease.contents(whole()).await.unwrap().digest, before.digest);
}

#[tokio::test]
async fn what_came_before_the_client_went_away_is_true() {
    let folder = tempfile::tempdir().unwrap();
    let (_mirrors, lease) = opened(folder.path()).await;
    let mut sink = lease.sink(Box::new(|_| {})).unwrap();
    send(&mut sink, &[("a", FILE, "")], "one").unwrap();
    assert!(sink.entry(entry("b", FILE, "")).unwrap());
    sink.data("b", b"ha").unwrap();
    drop(sink);
    drop(lease);
    let (_mirrors, lease) = opened(folder.path()).await;
    let mut sink = lease.sink(Box::new(|_| {})).unwrap();
    assert_eq!(send(&mut sink, &[("a", FILE, ""), ("b", FILE, "")], "one").unwrap(), ["b"]);
    sink.finish().unwrap();
    // A copy whose index is not true begins anew.
    drop(lease);
    std::fs::write(
        std::fs::read_dir(folder.path().join("mirrors"))
            .unwrap()
            .next()
            .unwrap()
            .unwrap()
            .path()
            .join("index"),
        "RQI1x",
    )
    .unwrap();
    let (_mirrors, lease) = opened(folder.path()).await;
    assert_eq!(std::fs::read_dir(lease.files()).unwrap().count(), 0);
}

#[tokio::test]
async fn dishonest_clients_are_refused_and_reach_nothing() {
    let outside = tempfile::tempdir().unwrap();
    let away = outside.path().display().to_string();
    let lists: [&[(&str, u32, &str)]; 10] = [
        &[("../x", FILE, "")],
        &[("/x", FILE, "")],
        &[("a//b", FILE, "")],
        &[("b", FILE, ""), ("a", FILE, "")],
        &[("a", FILE, ""), ("a", FILE, "")],
        &[("a/b", FILE, "")],
        &[("a", LINK, &away), ("a/planted", FILE, "")],
        &[("a", FILE, ""), ("a/b", FILE, "")],
        &[("a", FILE, "nowhere")],
        &[("a", LINK, "")],
    ];
    for list in lists {
        let folder = tempfile::tempdir().unwrap();
        let (_mirrors, lease) = opened(folder.path()).await;
        let mut sink = lease.sink(Box::new(|_| {})).unwrap();
        assert!(send(&mut sink, list, "one").is_err(), "{list:?}");
    }
    let folder = tempfile::tempdir().unwrap();
    let (_mirrors, lease) = opened(folder.path()).await;
    let mut sink = lease.sink(Box::new(|_| {})).unwrap();
    assert!(sink.data("never", b"x").is_err());
    // The device that means a deletion in a layer.
    assert!(sink.entry(entry("dev", 0o020_644, "")).is_err());
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn a_copy_in_use_is_nobody_elses() {
    let folder = tempfile::tempdir().unwrap();
    let mirrors = Mirrors::open(folder.path()).unwrap();
    let first = mirrors.lease("key").await.unwrap();
    let second = mirrors.lease("key").await.unwrap();
    assert_ne!(first.files(), second.files());
    let path = first.files();
    drop(first);
    assert_eq!(mirrors.lease("key").await.unwrap().files(), path);
}

use super::*;
use crate::fake::FakeMounts;
use crate::tree::tests::{listing, rich_tree};
use crate::{VolumeDriver, VolumeOptions};

fn volumes(root: &Path) -> Local {
    FakeMounts::default().driver(root.to_owned())
}

fn name(text: &str) -> VolumeName {
    text.parse().unwrap()
}

/// What is left in the staging directory, as soon as the threads that empty it are done.
fn settled(root: &Path, expected: usize) {
    let left = || std::fs::read_dir(root.join(STAGING)).map_or(0, Iterator::count);
    let until = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while left() != expected && std::time::Instant::now() < until {
        std::thread::yield_now();
    }
    assert_eq!(left(), expected);
}

async fn staged_copy(local: &Local, source: &VolumeName, token: &str) -> Staged {
    let staged = local.stage(token.to_owned()).await.unwrap();
    let source = local.mountpoint(source);
    local.copy_into(&staged, source, Progress::default()).await.unwrap();
    staged
}

#[tokio::test]
async fn a_copy_is_no_volume_before_it_is_published() {
    let root = tempfile::tempdir().unwrap();
    let local = volumes(root.path());
    let (from, to) = (name("from"), name("to"));
    local.create(&from, &VolumeOptions::new()).await.unwrap();
    rich_tree(&local.mountpoint(&from));
    let staged = staged_copy(&local, &from, "t").await;
    assert!(!root.path().join("to").exists());
    local.check_free(&to).await.unwrap();
    // A next daemon does what its record wants, as often as it likes.
    let next = volumes(root.path());
    next.publish(staged.token(), &to).await.unwrap();
    next.publish(staged.token(), &to).await.unwrap();
    assert!(next.sweep().await.is_empty());
    assert_eq!(listing(&next.mountpoint(&from)), listing(&next.mountpoint(&to)));
    assert!(next.check_free(&to).await.is_err());
    settled(root.path(), 0);
}

#[tokio::test]
async fn what_nobody_published_is_swept() {
    let root = tempfile::tempdir().unwrap();
    let local = volumes(root.path());
    let from = name("from");
    local.create(&from, &VolumeOptions::new()).await.unwrap();
    rich_tree(&local.mountpoint(&from));
    let staged = staged_copy(&local, &from, "one").await;
    staged_copy(&local, &from, "two").await;
    local.unstage(staged.token()).await;
    settled(root.path(), 1);
    assert!(volumes(root.path()).sweep().await.is_empty());
    settled(root.path(), 0);
}

#[tokio::test]
async fn a_fill_is_there_wholly_or_not_at_all() {
    let root = tempfile::tempdir().unwrap();
    let local = volumes(root.path());
    let data = name("data");
    local.create(&data, &VolumeOptions::new()).await.unwrap();
    let fill = local.begin_fill(&data).await.unwrap().unwrap();
    rich_tree(&fill);
    // The daemon dies before it is whole.
    let next = volumes(root.path());
    next.sweep().await;
    assert_eq!(std::fs::read_dir(next.mountpoint(&data)).unwrap().count(), 0);
    settled(root.path(), 0);
    // And while it is moved in.
    let fill = next.begin_fill(&data).await.unwrap().unwrap();
    rich_tree(&fill);
    let expected = listing(&fill);
    let filled = root.path().join(".staging/filled-data");
    std::fs::rename(&fill, &filled).unwrap();
    std::fs::rename(filled.join("big"), next.mountpoint(&data).join("big")).unwrap();
    volumes(root.path()).sweep().await;
    let content = |lines: Vec<String>| lines.into_iter().skip(1).collect::<Vec<_>>();
    assert_eq!(content(listing(&next.mountpoint(&data))), content(expected));
    settled(root.path(), 0);
}

#[tokio::test]
async fn a_removal_is_finished_by_the_next_daemon() {
    let root = tempfile::tempdir().unwrap();
    let local = volumes(root.path());
    let data = name("data");
    local.create(&data, &VolumeOptions::new()).await.unwrap();
    rich_tree(&local.mountpoint(&data));
    local.remove(&data).await.unwrap();
    let next = volumes(root.path());
    assert_eq!(next.sweep().await, std::slice::from_ref(&data));
    next.forget(&data).await;
    settled(root.path(), 0);
}

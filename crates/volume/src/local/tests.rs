use rorqual_core::ContainerId;

use super::*;
use crate::fake::FakeMounts;

fn name(text: &str) -> VolumeName {
    text.parse().unwrap()
}

fn user(seed: u8) -> ContainerId {
    ContainerId::from_random([seed; 32])
}

fn none() -> VolumeOptions {
    VolumeOptions::new()
}

fn bind() -> VolumeOptions {
    [("type", "none"), ("device", "/srv/data"), ("o", "bind")]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into()
}

#[tokio::test]
async fn the_first_user_mounts_and_the_last_one_unmounts() {
    let (root, mounts) = (tempfile::tempdir().unwrap(), FakeMounts::default());
    let volumes = mounts.driver(root.path().to_owned());
    let (data, options) = (name("data"), bind());
    volumes.create(&data, &none()).await.unwrap();
    for seed in [1, 2, 2] {
        volumes.mount(&data, &options, user(seed)).await.unwrap();
        assert_eq!(mounts.mounted().len(), 1);
    }
    volumes.unmount(&data, user(1)).await.unwrap();
    volumes.unmount(&data, user(7)).await.unwrap();
    assert_eq!(mounts.mounted().len(), 1, "one user is left");
    assert!(matches!(volumes.remove(&data).await, Err(Error::Mounted(_))));
    volumes.unmount(&data, user(2)).await.unwrap();
    assert_eq!(mounts.mounted(), Vec::<String>::new());
    volumes.remove(&data).await.unwrap();
    volumes.remove(&data).await.unwrap();
    assert!(!root.path().join("data").exists());
}

#[tokio::test]
async fn a_failed_mount_leaves_no_user() {
    let (root, mounts) = (tempfile::tempdir().unwrap(), FakeMounts::default());
    let volumes = mounts.driver(root.path().to_owned());
    let data = name("data");
    volumes.create(&data, &none()).await.unwrap();
    mounts.fail(true);
    let error = volumes.mount(&data, &bind(), user(1)).await.unwrap_err();
    assert!(error.to_string().starts_with("error while mounting volume '"), "{error}");
    mounts.fail(false);
    volumes.remove(&data).await.unwrap();
}

#[tokio::test]
async fn a_next_life_takes_over_what_is_used_and_undoes_the_rest() {
    let (root, mounts) = (tempfile::tempdir().unwrap(), FakeMounts::default());
    let (used, unused) = (name("used"), name("unused"));
    let old = mounts.driver(root.path().to_owned());
    for volume in [&used, &unused] {
        old.create(volume, &none()).await.unwrap();
        old.mount(volume, &bind(), user(1)).await.unwrap();
    }
    let new = mounts.driver(root.path().to_owned());
    new.recover(vec![used.clone(), unused.clone()], vec![(used.clone(), user(1))]).await;
    assert_eq!(mounts.mounted().len(), 1);
    new.unmount(&used, user(1)).await.unwrap();
    assert_eq!(mounts.mounted(), Vec::<String>::new());
}

#[tokio::test]
async fn volumes_without_options_mount_nothing_and_need_nobody() {
    let (root, mounts) = (tempfile::tempdir().unwrap(), FakeMounts::default());
    let volumes = mounts.driver(root.path().to_owned());
    let data = name("data");
    volumes.create(&data, &none()).await.unwrap();
    volumes.mount(&data, &VolumeOptions::new(), user(1)).await.unwrap();
    assert_eq!(mounts.mounted(), Vec::<String>::new());
    std::fs::write(volumes.mountpoint(&data).join("file"), [0; 100]).unwrap();
    std::fs::hard_link(
        volumes.mountpoint(&data).join("file"),
        volumes.mountpoint(&data).join("name"),
    )
    .unwrap();
    assert_eq!(volumes.size(&data).await, Some(100), "two names of one file");
    volumes.remove(&data).await.unwrap();
}

/// Needs root: a mount namespace of its own, in a thread of its own.
#[test]
fn the_host_mounts_and_never_removes_what_is_mounted() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let root = tempfile::tempdir().unwrap();
    let (volumes, source) = (root.path().join("volumes"), root.path().join("source"));
    std::fs::create_dir(&source).unwrap();
    std::fs::write(source.join("precious"), "x").unwrap();
    let plan = MountPlan::parse(
        &[
            ("type".to_owned(), "none".to_owned()),
            ("device".to_owned(), source.to_string_lossy().into_owned()),
            ("o".to_owned(), "bind,ro".to_owned()),
        ]
        .into(),
    )
    .unwrap()
    .unwrap();
    let data = volumes.join("data/_data");
    make_directory(&data).unwrap();
    let host = HostMounter;
    assert!(!host.is_mounted(&data).unwrap());
    host.mount(&plan, &data).unwrap();
    assert!(host.is_mounted(&data).unwrap());
    assert!(std::fs::write(data.join("new"), "x").is_err(), "read-only");
    let driver = Local::new(volumes.clone());
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(driver.remove(&name("data"))).unwrap();
    assert!(source.join("precious").exists());
    assert!(!volumes.join("data").exists());
}

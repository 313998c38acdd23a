use std::collections::BTreeSet;

use rorqual_plugin::fake::FakePlugin;
use rorqual_plugin::{Patience, Places};

use super::*;
use crate::{Drivers, Local};

/// A plugin as the protocol wants it: counts the ids that mounted each volume.
fn volumes() -> impl Fn(&str, &Value) -> (u16, Value) + Send + Sync + 'static {
    let mounts: Mutex<BTreeMap<String, BTreeSet<String>>> = Mutex::default();
    move |method, question| {
        let mut mounts = mounts.lock().unwrap();
        let text = |key: &str| question[key].as_str().unwrap_or_default().to_owned();
        let name = text("Name");
        let unknown = (500, json!({ "Err": format!("no volume {name}") }));
        match method {
            "Plugin.Activate" => return (200, json!({ "Implements": ["VolumeDriver"] })),
            "VolumeDriver.Create" => drop(mounts.entry(name).or_default()),
            "VolumeDriver.List" => {
                let all: Vec<_> = mounts.keys().map(|name| json!({ "Name": name })).collect();
                return (200, json!({ "Volumes": all }));
            }
            _ if !mounts.contains_key(&name) => return unknown,
            "VolumeDriver.Get" => {
                let volume = json!({ "Name": name, "Status": { "mounts": mounts[&name].len() } });
                return (200, json!({ "Volume": volume }));
            }
            "VolumeDriver.Mount" => {
                assert!(mounts.get_mut(&name).unwrap().insert(text("ID")), "mounted twice");
                return (200, json!({ "Mountpoint": format!("/mnt/{name}") }));
            }
            "VolumeDriver.Path" => {
                return (200, json!({ "Mountpoint": format!("/mnt/{name}") }));
            }
            "VolumeDriver.Unmount" => {
                if !mounts.get_mut(&name).unwrap().remove(&text("ID")) {
                    return (500, json!({ "Err": "not mounted" }));
                }
            }
            "VolumeDriver.Remove" => drop(mounts.remove(&name)),
            _ => return (404, json!({})),
        }
        (200, json!({}))
    }
}

fn drivers(folder: &std::path::Path) -> Drivers {
    let places = Places { sockets: folder.to_owned(), files: Vec::new() };
    let patience = Patience {
        first: Duration::from_millis(1),
        longest: Duration::from_millis(1),
        total: Duration::from_millis(50),
    };
    let plugins = Arc::new(Plugins::with_patience(places, patience));
    Drivers::new(Arc::new(Local::new(folder.join("volumes"))), Some(plugins))
}

fn name(text: &str) -> VolumeName {
    text.parse().unwrap()
}

fn user(byte: u8) -> ContainerId {
    ContainerId::from_random([byte; 32])
}

#[tokio::test]
async fn a_container_mounts_once_however_often_it_uses_a_volume() {
    let folder = tempfile::tempdir().unwrap();
    let fake = FakePlugin::serve(folder.path().join("p.sock"), volumes()).unwrap();
    let drivers = drivers(folder.path());
    drivers.settle();
    let driver = drivers.find("p").await.unwrap();
    let (data, none) = (name("data"), VolumeOptions::new());
    driver.create(&data, &none).await.unwrap();
    assert_eq!(driver.scope().await, "local");
    for _ in 0..2 {
        let path = driver.mount(&data, &none, user(1)).await.unwrap();
        assert_eq!(path, PathBuf::from("/mnt/data"));
    }
    driver.mount(&data, &none, user(2)).await.unwrap();
    let status = driver.describe(&data).await.unwrap().unwrap().status;
    assert_eq!(status["mounts"], 2);
    for _ in 0..2 {
        driver.unmount(&data, user(1)).await.unwrap();
    }
    driver.unmount(&data, user(2)).await.unwrap();
    assert_eq!(driver.list().await.unwrap()[0].0, data);
    driver.remove(&data).await.unwrap();
    assert_eq!(driver.describe(&data).await.unwrap(), None);
    let unmounts = fake.methods().iter().filter(|m| *m == "VolumeDriver.Unmount").count();
    assert_eq!(unmounts, 2);
    assert_eq!(drivers.names(), ["local", "p"]);
}

#[tokio::test]
async fn the_mounts_of_an_earlier_life_are_taken_over_or_taken_back() {
    let folder = tempfile::tempdir().unwrap();
    let fake = FakePlugin::serve(folder.path().join("p.sock"), volumes()).unwrap();
    let (data, none) = (name("data"), VolumeOptions::new());
    {
        let driver = drivers(folder.path()).find("p").await.unwrap();
        driver.create(&data, &none).await.unwrap();
        driver.mount(&data, &none, user(1)).await.unwrap();
        driver.mount(&data, &none, user(2)).await.unwrap();
    }
    let next = drivers(folder.path());
    let driver = next.named("p");
    // Ended while nobody watched.
    driver.unmount(&data, user(2)).await.unwrap();
    driver.recover(Vec::new(), vec![(data.clone(), user(1))]).await;
    next.settle();
    let path = driver.mount(&data, &none, user(1)).await.unwrap();
    assert_eq!(path, PathBuf::from("/mnt/data"));
    driver.unmount(&data, user(1)).await.unwrap();
    assert_eq!(driver.describe(&data).await.unwrap().unwrap().status["mounts"], 0);
    let mounts = fake.methods().iter().filter(|m| *m == "VolumeDriver.Mount").count();
    assert_eq!(mounts, 2);
}

#[tokio::test]
async fn unknown_and_absent_plugins_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let drivers = drivers(folder.path());
    let Err(error) = drivers.find("nosuch").await else { panic!("found") };
    assert_eq!(
        rorqual_core::full_message(&error).split(": plugin").next().unwrap(),
        "error looking up volume plugin nosuch"
    );
    // A socket that nobody listens at.
    drop(std::os::unix::net::UnixListener::bind(folder.path().join("gone.sock")).unwrap());
    let Err(error) = drivers.find("gone").await else { panic!("found") };
    assert!(rorqual_core::full_message(&error).contains("cannot reach plugin \"gone\""), "{error}");
    assert!(drivers.find("local").await.is_ok());
}

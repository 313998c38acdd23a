//! One test per version step.

use serde_json::{Value, json};

use super::{Document, TooOld, downgrade, upgrade};
use crate::ApiVersion;

fn up(document: Document, minor: u16, mut value: Value) -> Result<Value, TooOld> {
    upgrade(document, ApiVersion::v1(minor), &mut value).map(|()| value)
}

fn down(document: Document, minor: u16, mut value: Value) -> Value {
    downgrade(document, ApiVersion::v1(minor), &mut value);
    value
}

#[test]
fn v1_40_knows_no_recursion_choice() {
    let body = json!({"hostconfig": {"mounts": [{"BindOptions": {"NonRecursive": true}}]}});
    let want = json!({"hostconfig": {"mounts": [{"BindOptions": {}}], "CgroupnsMode": "host"}});
    assert_eq!(up(Document::ContainerCreate, 39, body.clone()), Ok(want));
    let newer = up(Document::ContainerCreate, 40, body).unwrap();
    assert_eq!(newer["hostconfig"]["mounts"][0]["BindOptions"]["NonRecursive"], true);
}

#[test]
fn v1_41_defaults_to_the_hosts_cgroup_namespace() {
    let body = json!({"HostConfig": {"CgroupnsMode": ""}});
    assert_eq!(
        up(Document::ContainerCreate, 40, body.clone()).unwrap()["HostConfig"]["CgroupnsMode"],
        "host"
    );
    assert_eq!(up(Document::ContainerCreate, 41, body.clone()), Ok(body));
    let asked = json!({"HostConfig": {"CgroupnsMode": "private"}});
    assert_eq!(up(Document::ContainerCreate, 40, asked.clone()), Ok(asked));
}

#[test]
fn v1_42_ignores_console_sizes() {
    let body = json!({"Cmd": ["x"], "ConsoleSize": [1, 2]});
    assert_eq!(up(Document::Exec, 41, body.clone()), Ok(json!({"Cmd": ["x"]})));
    assert_eq!(up(Document::Exec, 42, body.clone()), Ok(body));
}

#[test]
fn v1_43_names_the_nameless() {
    let list = json!([{"RepoTags": [], "RepoDigests": []}, {"RepoTags": ["a"], "RepoDigests": []}]);
    let old = down(Document::ImageList, 42, list);
    assert_eq!(old[0]["RepoTags"], json!(["<none>:<none>"]));
    assert_eq!(old[1]["RepoTags"], json!(["a"]));
    let body = json!({"HostConfig": {"Annotations": {"a": "b"}}});
    assert_eq!(up(Document::ContainerCreate, 42, body), Ok(json!({"HostConfig": {}})));
}

#[test]
fn v1_44_had_virtual_sizes() {
    assert_eq!(down(Document::ImageInspect, 43, json!({"Size": 5}))["VirtualSize"], 5);
    assert_eq!(down(Document::ImageInspect, 44, json!({"Size": 5})).get("VirtualSize"), None);
    assert_eq!(
        down(Document::DiskUsage, 43, json!({"Images": [{"Size": 5}]}))["Images"][0]["VirtualSize"],
        5
    );
    let body =
        json!({"HostConfig": {"Mounts": [{"BindOptions": {"ReadOnlyForceRecursive": true}}]}});
    let error = up(Document::ContainerCreate, 43, body.clone()).unwrap_err();
    assert_eq!(error.to_string(), "BindOptions.ReadOnlyForceRecursive needs API v1.44 or newer");
    assert!(up(Document::ContainerCreate, 44, body).is_ok());
}

#[test]
fn v1_45_adds_the_short_id_to_aliases() {
    let answer = json!({"Id": "0123456789abcdef", "NetworkSettings": {"Networks": {"n": {"Aliases": ["a"]}}}});
    let old = down(Document::ContainerInspect, 44, answer.clone());
    assert_eq!(old["NetworkSettings"]["Networks"]["n"]["Aliases"], json!(["a", "0123456789ab"]));
    assert_eq!(down(Document::ContainerInspect, 45, answer.clone()), answer);
    let body = json!({"HostConfig": {"Mounts": [{"VolumeOptions": {"Subpath": "x"}}]}});
    assert!(up(Document::ContainerCreate, 44, body).is_err());
}

#[test]
fn v1_46_hides_annotations_and_containerd() {
    let list = json!([{"HostConfig": {"NetworkMode": "a", "Annotations": {}}}]);
    assert_eq!(
        down(Document::ContainerList, 45, list),
        json!([{"HostConfig": {"NetworkMode": "a"}}])
    );
    assert_eq!(down(Document::Info, 45, json!({"Containerd": {}})).get("Containerd"), None);
}

#[test]
fn v1_48_hides_descriptors() {
    let image = json!({"Descriptor": {}, "Manifests": [], "Size": 1});
    assert_eq!(down(Document::ImageInspect, 47, image.clone()).get("Descriptor"), None);
    assert_eq!(down(Document::ImageInspect, 48, image)["Manifests"], json!([]));
    let body = json!({"HostConfig": {"Mounts": [{"Type": "image"}]}});
    assert!(up(Document::ContainerCreate, 47, body.clone()).is_err());
    assert!(up(Document::ContainerCreate, 48, body).is_ok());
}

#[test]
fn v1_49_expects_commits() {
    let info = json!({"FirewallBackend": {}, "RuncCommit": {"ID": "x"}});
    let old = down(Document::Info, 48, info);
    assert_eq!(old["RuncCommit"], json!({"ID": "x", "Expected": "x"}));
    assert_eq!(old.get("FirewallBackend"), None);
}

#[test]
fn v1_50_fills_image_configs() {
    let old = down(Document::ImageInspect, 49, json!({"Config": {"Cmd": null}}));
    assert_eq!(old["Config"]["AttachStdin"], false);
    assert_eq!(old["Config"]["Cmd"], Value::Null);
    assert_eq!(down(Document::Info, 49, json!({}))["BridgeNfIptables"], false);
}

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::json;

use super::{Place, find, finish, parse, place, read};

#[test]
fn each_form_is_understood() {
    let simple = parse("example.com/app:cache").unwrap();
    assert_eq!(
        (simple.kind.as_str(), simple.attrs["ref"].as_str()),
        ("registry", "example.com/app:cache")
    );
    let local = parse("type=local,dest=/x,mode=max,tag=a").unwrap();
    let expected = Place { directory: PathBuf::from("/x"), name: "a".to_owned() };
    assert_eq!(place(&local, "dest").unwrap(), Some(expected));
    assert!(place(&local, "src").is_err());
    assert!(parse("ref=x").is_err());
    assert_eq!(place(&parse("type=inline").unwrap(), "dest").unwrap(), None);
}

#[test]
fn a_cache_is_listed_by_its_name_beside_others() {
    let folder = tempfile::tempdir().unwrap();
    let directory = folder.path().to_owned();
    let told = |digest: &str| {
        let text = json!({ "mediaType": "m", "digest": digest, "size": 1 }).to_string();
        BTreeMap::from([("cache.manifest".to_owned(), text)])
    };
    let at = |name: &str| [Place { directory: directory.clone(), name: name.to_owned() }];
    finish(&at("latest"), &told("sha256:1")).unwrap();
    finish(&at("other"), &told("sha256:2")).unwrap();
    finish(&at("latest"), &told("sha256:3")).unwrap();
    finish(&at("latest"), &BTreeMap::new()).unwrap();
    let index = read(&directory).unwrap();
    assert_eq!(index["manifests"].as_array().unwrap().len(), 2);
    assert_eq!(find(&index, "latest").as_deref(), Some("sha256:3"));
    assert_eq!(find(&index, "other").as_deref(), Some("sha256:2"));
    assert_eq!(find(&index, "none"), None);
    std::fs::write(directory.join("index.json"), "{").unwrap();
    assert!(finish(&at("latest"), &told("sha256:4")).is_err());
}

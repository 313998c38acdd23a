//! Spellings of mounts.

use std::collections::BTreeMap;

use rorqual_api::host_config::Mount;
use rorqual_engine::spec::{MountKind, MountSpec};

use super::{mounts, volumes_from};

fn bind(text: &str) -> Result<MountSpec, String> {
    let all = mounts(vec![text.to_owned()], Vec::new(), BTreeMap::new());
    all.map(|mut all| all.remove(0)).map_err(|error| error.to_string())
}

#[test]
fn short_forms() {
    let source = |mount: &MountSpec| match &mount.kind {
        MountKind::Bind { source, .. } => source.clone(),
        MountKind::Volume { name, .. } => name.as_ref().map_or("?".to_owned(), ToString::to_string),
        MountKind::Tmpfs(_) => "tmpfs".to_owned(),
        MountKind::Image { reference, .. } => reference.clone(),
    };
    for (text, want) in [
        ("/a:/b", Ok(("/a", "/b", false))),
        ("/a:/b:ro", Ok(("/a", "/b", true))),
        ("vol:/b:ro,z", Ok(("vol", "/b", true))),
        ("/a:/b:rslave", Ok(("/a", "/b", false))),
        ("/b", Ok(("?", "/b", false))),
        ("/a:b", Err("mount path must be absolute")),
        ("/a:/", Err("destination can't be '/'")),
        ("/a:/b:ro,rw", Err("invalid mode: ro,rw")),
        ("/a:/b:nocopy", Err("invalid mode: nocopy")),
        ("vol:/b:rshared", Err("invalid mode: rshared")),
        ("/a:/b:what", Err("invalid mode: what")),
        ("v!:/b", Err("includes invalid characters for a local volume name")),
        (":/b", Err("invalid volume specification: ':/b'")),
        ("", Err("invalid volume specification: ''")),
    ] {
        match (bind(text), want) {
            (Ok(mount), Ok((from, to, read_only))) => {
                assert_eq!(
                    (source(&mount).as_str(), mount.target.as_str(), mount.read_only),
                    (from, to, read_only)
                );
            }
            (Err(error), Err(words)) => assert!(error.contains(words), "{text}: {error}"),
            (got, want) => panic!("{text}: {got:?}, not {want:?}"),
        }
    }
}

#[test]
fn long_forms() {
    let read = |text: &str| {
        let mount: Mount = rorqual_api::from_slice(text.as_bytes()).unwrap();
        mounts(Vec::new(), vec![mount], BTreeMap::new()).map_err(|error| error.to_string())
    };
    assert!(read(r#"{"Type":"tmpfs","Target":"/t","TmpfsOptions":{"SizeBytes":5}}"#).is_ok());
    for (text, words) in [
        (r#"{"Type":"bind","Target":"/t"}"#, "field Source must not be empty"),
        (r#"{"Type":"bind","Source":"a","Target":"/t"}"#, "must be absolute"),
        (r#"{"Type":"bind","Source":"/a"}"#, "field Target must not be empty"),
        (r#"{"Type":"tmpfs","Source":"/a","Target":"/t"}"#, "field Source must not be specified"),
        (
            r#"{"Type":"tmpfs","Target":"/t","BindOptions":{}}"#,
            "field BindOptions must not be specified",
        ),
        (r#"{"Type":"what","Target":"/t"}"#, "mount type unknown"),
    ] {
        let error = read(text).unwrap_err();
        assert!(error.contains(words), "{error}");
    }
}

#[test]
fn twice_the_same_target() {
    let twice = mounts(vec!["/a:/b".to_owned(), "/c:/b/".to_owned()], Vec::new(), BTreeMap::new());
    assert_eq!(twice.unwrap_err().to_string(), "Duplicate mount point: /b/");
}

#[test]
fn taken_over() {
    assert_eq!(volumes_from("a:ro").unwrap().read_only, Some(true));
    assert_eq!(volumes_from("a").unwrap().read_only, None);
    assert!(volumes_from("a:what").is_err() && volumes_from("").is_err());
}

use std::collections::BTreeMap;

use super::{Annotations, Level};

fn parsed(pairs: &[(&str, &str)]) -> Result<Annotations, String> {
    let attrs = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Annotations::parse(&attrs.collect()).map_err(|error| error.to_string())
}

#[test]
fn each_document_has_its_own() {
    let all = parsed(&[
        ("name", "x"),
        ("annotation.a.b", "1"),
        ("annotation-manifest.c", "2"),
        ("annotation-manifest[linux/arm64].c", "3"),
        ("annotation-manifest[linux/arm/v7].d.e", "4"),
        ("annotation-index.f", "5"),
        ("annotation-index-descriptor.g", "6"),
        ("annotation-manifest-descriptor.h", "7"),
    ])
    .unwrap();
    let of = |level, platform: Option<&str>| {
        let platform = platform.map(|text| text.parse().unwrap());
        let found: BTreeMap<_, _> = all.of(level, platform.as_ref());
        found.into_iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>()
    };
    assert_eq!(of(Level::Manifest, Some("linux/amd64")), ["a.b=1", "c=2"]);
    assert_eq!(of(Level::Manifest, Some("linux/arm64")), ["a.b=1", "c=3"]);
    assert_eq!(of(Level::Manifest, Some("linux/arm/v7")), ["a.b=1", "c=2", "d.e=4"]);
    assert_eq!(of(Level::Index, None), ["f=5"]);
    assert_eq!(of(Level::IndexDescriptor, None), ["g=6"]);
    assert_eq!(of(Level::ManifestDescriptor, Some("linux/amd64")), ["h=7"]);
    assert!(!all.is_empty());
}

#[test]
fn what_is_no_annotation_is_refused() {
    for key in ["annotation", "annotation-other.a", "annotation.", "annotation[linux/amd64"] {
        assert!(parsed(&[(key, "x")]).is_err(), "{key}");
    }
    assert!(parsed(&[("name", "x"), ("push", "true")]).is_ok_and(|all| all.is_empty()));
    let much = "x".repeat(2 << 20);
    assert!(parsed(&[("annotation.a", &much)]).is_err());
}

//! Locations against addresses.

use http::Uri;

use super::{resolve, same_server};

#[test]
fn locations_are_resolved() {
    let base: Uri = "https://r.test:5000/v2/a/blobs/uploads/".parse().unwrap();
    let cases = [
        ("/v2/a/b?x=1", Some("https://r.test:5000/v2/a/b?x=1")),
        ("https://cdn.test/x", Some("https://cdn.test/x")),
        ("//cdn.test/x", Some("https://cdn.test/x")),
        ("uuid?state=y", Some("https://r.test:5000/v2/a/blobs/uploads/uuid?state=y")),
        ("?state=y", Some("https://r.test:5000/v2/a/blobs/uploads/?state=y")),
        ("https://cdn.test/x#part", Some("https://cdn.test/x")),
        ("file:///etc/passwd", None),
        ("https://user:secret@cdn.test/x", None),
        ("http://[", None),
    ];
    for (location, expected) in cases {
        let found = resolve(&base, location).map(|uri| uri.to_string());
        assert_eq!(found.as_deref(), expected, "{location}");
    }
}

#[test]
fn servers_are_told_apart() {
    let same = |a: &str, b: &str| same_server(&a.parse().unwrap(), &b.parse().unwrap());
    assert!(same("https://R.test/a", "https://r.test:443/b"));
    assert!(!same("https://r.test/a", "http://r.test/a"));
    assert!(!same("https://r.test/a", "https://r.test:5000/a"));
    assert!(!same("https://r.test/a", "https://x.r.test/a"));
}

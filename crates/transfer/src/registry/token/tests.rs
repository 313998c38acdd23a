//! Whose token server is whose.

use super::{form, is_related, read};

#[test]
fn owners_of_names_are_told() {
    for (a, b, expected) in [
        ("registry-1.docker.io", "auth.docker.io", true),
        ("registry.gitlab.com", "gitlab.com", true),
        ("ghcr.io", "GHCR.io", true),
        ("r.example.com", "evil.com", false),
        ("r.example.com", "example.com.evil.net", false),
        ("r.foo.co.uk", "auth.foo.co.uk", true),
        ("r.foo.co.uk", "evil.co.uk", false),
        ("registry", "auth", false),
        ("registry", "registry", true),
        ("10.0.0.1", "10.0.0.1", true),
        ("10.0.0.1", "11.0.0.1", false),
        ("io", "docker.io", false),
    ] {
        assert_eq!(is_related(a, b), expected, "{a} {b}");
        assert_eq!(is_related(b, a), expected, "{b} {a}");
    }
}

#[test]
fn answers_are_read() {
    assert!(read(br#"{"token":"t"}"#).is_ok());
    assert!(read(br#"{"access_token":"t","expires_in":99999999999}"#).is_ok());
    assert_eq!(
        read(br#"{"token":"t","refresh_token":"r"}"#).unwrap().refresh.as_deref(),
        Some("r")
    );
    assert!(read(br#"{"token":"a\r\nb"}"#).is_err());
    assert!(read(b"{}").is_err());
    assert!(read(b"[").is_err());
}

#[test]
fn forms_are_encoded() {
    assert_eq!(form(&[("a", "x y"), ("b", "p&q=r")]), "a=x%20y&b=p%26q%3Dr");
}

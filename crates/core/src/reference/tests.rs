//! References as Docker completes, shortens and refuses them.

use super::*;

const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

#[test]
fn short_forms_are_completed_and_shortened_again() {
    let cases = [
        ("debian", "docker.io/library/debian", "debian"),
        ("debian:12", "docker.io/library/debian:12", "debian:12"),
        ("rorqual/hello", "docker.io/rorqual/hello", "rorqual/hello"),
        ("docker.io/debian", "docker.io/library/debian", "debian"),
        ("index.docker.io/library/debian", "docker.io/library/debian", "debian"),
        ("localhost/app", "localhost/app", "localhost/app"),
        ("localhost:5000/a/b:v1", "localhost:5000/a/b:v1", "localhost:5000/a/b:v1"),
        ("ghcr.io/a/b_c/d__e/f-g", "ghcr.io/a/b_c/d__e/f-g", "ghcr.io/a/b_c/d__e/f-g"),
        ("[::1]:5000/app:x", "[::1]:5000/app:x", "[::1]:5000/app:x"),
    ];
    for (text, full, short) in cases {
        let parsed: Reference = text.parse().expect(text);
        assert_eq!((parsed.to_string().as_str(), parsed.familiar().as_str()), (full, short));
    }
    let text = format!("debian:12@{DIGEST}");
    let parsed: Reference = text.parse().expect("tag and digest");
    assert_eq!((parsed.tag(), parsed.digest().is_some()), (Some("12"), true));
    assert_eq!(parsed.familiar(), text);
    let latest = "debian".parse::<Reference>().expect("plain").or_latest();
    assert_eq!(latest.tag(), Some("latest"));
}

#[test]
fn what_is_not_a_reference_is_refused() {
    let long = "a/".repeat(200) + "b";
    let hex = "a".repeat(64);
    let cases = [
        "",
        ":",
        "a:",
        "a:b:c",
        "-a",
        "a-",
        "a..b",
        "a___b",
        "a//b",
        "/a",
        "a/",
        "Debian",
        "a b",
        "a@sha256:1",
        "a:ä",
        "[::1/app",
        "localhost:x/app",
        &long,
        &hex,
    ];
    for text in cases {
        assert!(text.parse::<Reference>().is_err(), "{text:?}");
    }
    let error = "Debian".parse::<Reference>().expect_err("capital");
    assert_eq!(
        error.to_string(),
        "invalid reference format: repository name (library/Debian) must be lowercase"
    );
}

proptest::proptest! {
    #[test]
    fn parsing_never_panics_and_reads_back(text in "[a-zA-Z0-9./:@_\\[\\]-]{0,40}") {
        if let Ok(parsed) = text.parse::<Reference>() {
            proptest::prop_assert_eq!(parsed.to_string().parse::<Reference>(), Ok(parsed.clone()));
            proptest::prop_assert_eq!(parsed.familiar().parse::<Reference>(), Ok(parsed));
        }
    }
}

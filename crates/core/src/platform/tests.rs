//! Platforms in their short and long forms.

use super::*;

#[test]
fn platforms_are_completed() {
    for (text, full) in [
        ("linux/amd64", "linux/amd64"),
        ("linux/x86_64", "linux/amd64"),
        ("linux/arm64", "linux/arm64/v8"),
        ("linux/aarch64", "linux/arm64/v8"),
        ("linux/arm/v6", "linux/arm/v6"),
        ("arm", "linux/arm/v7"),
        ("windows/amd64", "windows/amd64"),
    ] {
        assert_eq!(text.parse::<Platform>().map(|p| p.to_string()), Ok(full.to_owned()));
    }
    for text in ["", "/", "linux/", "a/b/c/d", "linux/am d64"] {
        assert!(text.parse::<Platform>().is_err(), "{text}");
    }
    let amd: Platform = "linux/amd64".parse().expect("valid");
    let arm: Platform = "linux/arm64".parse().expect("valid");
    assert!(amd.runs(&amd) && !amd.runs(&arm));
}

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
        ("LINUX/ARM/7", "linux/arm/v7"),
        ("armel", "linux/arm/v6"),
        ("linux/arm64/8", "linux/arm64/v8"),
        ("macos/arm64", "darwin/arm64/v8"),
        ("linux/nosuch", "linux/nosuch"),
    ] {
        assert_eq!(text.parse::<Platform>().map(|p| p.to_string()), Ok(full.to_owned()));
    }
    let amd: Platform = "linux/amd64".parse().expect("valid");
    let arm: Platform = "linux/arm64".parse().expect("valid");
    assert!(amd.runs(&amd) && !amd.runs(&arm));
}

#[test]
fn what_is_no_platform_is_refused_with_the_reason() {
    let owned = str::to_owned;
    let system =
        |part: &str, text: &str| InvalidPlatform::System { part: part.into(), text: text.into() };
    let component = |part: &str, text: &str| InvalidPlatform::Component {
        part: part.into(),
        text: text.into(),
    };
    for (text, error) in [
        ("nosuch", InvalidPlatform::Unknown(owned("nosuch"))),
        ("", system("", "")),
        ("/", system("", "/")),
        ("a b/c", system("a b", "a b/c")),
        ("linux(1.2)/amd64", system("linux(1.2)", "linux(1.2)/amd64")),
        ("linux/", component("", "linux/")),
        ("linux/am d64", component("am d64", "linux/am d64")),
        ("linux/amd64/v 1", component("v 1", "linux/amd64/v 1")),
        ("a/b/c/d", InvalidPlatform::Form(owned("a/b/c/d"))),
        ("linux/*", InvalidPlatform::Wildcard(owned("linux/*"))),
    ] {
        assert_eq!(text.parse::<Platform>(), Err(error), "{text}");
    }
    let error = "nosuch".parse::<Platform>().unwrap_err();
    assert_eq!(
        error.to_string(),
        r#""nosuch": unknown operating system or architecture: invalid argument"#
    );
}

use super::*;

#[test]
fn unknown_keys_are_refused() {
    for (text, complaint) in [
        (r#"{"lissten": []}"#, "unknown field `lissten`"),
        (r#"{"gc": {"grace": "x"}}"#, "invalid duration"),
        (r#"{"limits": {"blob": "many"}}"#, "invalid size"),
        (r#"{"tls": {"crt": "x"}}"#, "unknown field `crt`"),
        ("{", "EOF"),
    ] {
        let error = serde_json::from_str::<Config>(text).unwrap_err().to_string();
        assert!(error.contains(complaint), "{text}: {error}");
    }
    let config: Config = serde_json::from_str(
        r#"{"storage": "/x", "gc": {"untagged": "30d"}, "limits": {"blob": "1g", "manifest": 7}}"#,
    )
    .unwrap();
    assert_eq!(config.gc.untagged, Some(Span::secs(30 * 86_400)));
    assert_eq!((config.limits.blob, config.limits.manifest), (Size(1 << 30), Size(7)));
    config.check().unwrap();
}

#[test]
fn contradictions_are_refused() {
    for (text, complaint) in [
        ("{}", "no storage"),
        (r#"{"storage":"x","tls":{"cert":"a"}}"#, "both"),
        (r#"{"storage":"x","auth":{"policy":"a"}}"#, "needs users"),
        (r#"{"storage":"x","auth":{"token":{}}}"#, "needs users"),
        (r#"{"storage":"x","auth":{"token":{"public-keys":"k"}}}"#, "realm"),
        (r#"{"storage":"x","read-only":true,"proxy":{"url":"https://x"}}"#, "read-only"),
        (r#"{"storage":"x","retention":[{"repository":"*"}]}"#, "keep or age"),
    ] {
        let config: Config = serde_json::from_str(text).unwrap();
        let error = config.check().unwrap_err().to_string();
        assert!(error.contains(complaint), "{text}: {error}");
    }
}

#[test]
fn patterns() {
    for (pattern, name, expected) in [
        ("*", "a/b", true),
        ("a/*", "a/b", true),
        ("a/*", "a", false),
        ("a", "a", true),
        ("a", "ab", false),
        ("*-ci", "a/b-ci", true),
        ("a*c*e", "abcde", true),
        ("a*c*e", "abcd", false),
    ] {
        assert_eq!(fits(pattern, name), expected, "{pattern} {name}");
    }
}

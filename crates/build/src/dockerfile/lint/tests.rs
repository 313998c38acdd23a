use super::*;

#[test]
fn names_that_hold_secrets() {
    for name in ["API_TOKEN", "password", "DB_PASSWD", "secret_message", "AUTH", "my_key"] {
        assert!(names_a_secret(name), "{name}");
    }
    for name in ["KEYBOARD", "PUBLIC_KEY", "TOKEN_FILE", "author", "GIT_TOKEN_VERSION", "monkey"] {
        assert!(!names_a_secret(name), "{name}");
    }
}

#[test]
fn options_are_read() {
    let config = LintConfig::parse("skip=A, B;error=true;experimental=all").unwrap();
    assert!(config.error && config.experimental_all && config.skip == ["A", "B"]);
    for (text, message) in [
        ("foo", "invalid check option \"foo\""),
        ("foo=1", "invalid check option \"foo\""),
        ("error=x", "failed to parse check option \"error=x\": invalid syntax"),
    ] {
        assert_eq!(LintConfig::parse(text).unwrap_err(), message);
    }
}

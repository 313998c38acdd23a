use super::*;

#[test]
fn a_change_keeps_what_it_does_not_know() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.json");
    std::fs::write(&path, r#"{"zeta":{"a":1},"psFormat":"x","auths":{}}"#).unwrap();
    let mut config = Config::load(dir.path()).unwrap();
    config.set("currentContext", Some("far".into()));
    config.save().unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.starts_with("{\n\t\"zeta\": {\n\t\t\"a\": 1\n\t},"), "{text}");
    let again = Config::load(dir.path()).unwrap();
    assert_eq!(again.text("currentContext"), Some("far"));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn proxies_become_variables_in_both_cases() {
    let dir = tempfile::tempdir().unwrap();
    let text = r#"{"proxies":{"default":{"httpProxy":"http://p"},"tcp://h:1":{"noProxy":"x"}}}"#;
    std::fs::write(dir.path().join("config.json"), text).unwrap();
    let config = Config::load(dir.path()).unwrap();
    let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
    let expected = vec![pair("HTTP_PROXY", "http://p"), pair("http_proxy", "http://p")];
    assert_eq!(config.proxy_variables("unix:///x"), expected);
    assert_eq!(config.proxy_variables("tcp://h:1")[0], pair("NO_PROXY", "x"));
}

#[test]
fn a_broken_file_is_an_error_and_not_an_empty_one() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("config.json"), "[]").unwrap();
    assert!(matches!(Config::load(dir.path()), Err(ConfigError::Syntax { .. })));
}

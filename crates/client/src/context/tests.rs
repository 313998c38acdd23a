use super::*;

#[test]
fn a_context_is_stored_where_docker_looks() {
    let dir = tempfile::tempdir().unwrap();
    let store = ContextStore::new(dir.path());
    let meta = new_meta("far", "away", &json!({"Host": "tcp://h:1", "SkipTLSVerify": false}));
    store.save(&meta, Some(&[("ca.pem".to_owned(), b"x".to_vec())])).unwrap();
    let hash = "8ce7b1c5a15b4dfaf5ea0b10a9b63e26b4a3d6e9a8b2f0c94d0f3c6f6fb6f0b0".len();
    let path = store.meta_directory("far").join("meta.json");
    assert_eq!(path.parent().unwrap().file_name().unwrap().len(), hash);
    let (host, tls) = store.endpoint("far").unwrap();
    assert_eq!(host, "tcp://h:1");
    assert!(tls.unwrap().ca.unwrap().ends_with("docker/ca.pem"));
    assert_eq!(store.list().unwrap().len(), 1);
    store.remove("far").unwrap();
    assert!(matches!(store.load("far"), Err(ContextError::NotFound(..))));
    assert!(!store.tls_directory("far").exists());
}

#[test]
fn names_are_checked() {
    for (name, valid) in [("ab", true), ("a", false), ("-a", false), ("a/b", false), ("a.+b", true)]
    {
        assert_eq!(is_valid_name(name), valid, "{name}");
    }
    let store = ContextStore::new(Path::new("/nonexistent"));
    let meta = new_meta("default", "", &json!({}));
    assert!(matches!(store.save(&meta, None), Err(ContextError::Reserved)));
}

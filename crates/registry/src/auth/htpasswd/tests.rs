use super::*;

#[test]
fn only_bcrypt() {
    let hash = bcrypt::hash("secret", 4).unwrap();
    assert_eq!(parse(&format!("# team\n\nann:{hash}\n")).unwrap().len(), 1);
    for bad in [
        "ann",
        "ann:secret",
        "ann:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=",
        "ann:$apr1$x$y",
        "ann:$2y$05$short",
    ] {
        assert!(parse(bad).unwrap_err().starts_with("line 1"), "{bad}");
    }
}

#[tokio::test]
async fn verifies_remembers_and_reads_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("users");
    let write = |password: &str| {
        let hash = bcrypt::hash(password, 4).unwrap();
        std::fs::write(&path, format!("ann:{hash}\n")).unwrap();
    };
    write("one");
    let users = Arc::new(Htpasswd::load(&path).unwrap());
    assert!(users.verify("ann", "one").await.unwrap());
    assert!(users.verify("ann", "one").await.unwrap());
    for (user, password) in [("ann", "two"), ("bob", "one"), ("", ""), ("ann", "")] {
        assert!(!users.verify(user, password).await.unwrap(), "{user}:{password}");
    }
    let before = users.generation("ann");
    write("two");
    users.reload();
    assert!(!users.verify("ann", "one").await.unwrap(), "what was remembered holds no longer");
    assert!(users.verify("ann", "two").await.unwrap());
    assert_ne!(users.generation("ann"), before);
    std::fs::write(&path, "ann:plain").unwrap();
    users.reload();
    assert!(users.verify("ann", "two").await.unwrap(), "a broken file changes nothing");
}

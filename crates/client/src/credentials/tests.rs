//! Keeping and finding credentials.

use std::os::unix::fs::PermissionsExt as _;

use serde_json::json;

use super::vault::Vault;
use super::{Credential, HUB, plain, server_key};

fn user(name: &str, secret: &str) -> Credential {
    Credential { username: name.to_owned(), secret: secret.to_owned(), is_token: false }
}

#[test]
fn registries_have_one_name_each() {
    for text in
        ["", "docker.io", "https://index.docker.io/v1/", "index.docker.io", "registry-1.docker.io"]
    {
        assert_eq!(server_key(text), HUB, "{text}");
    }
    for text in ["r.test:5000", "https://r.test:5000", "http://r.test:5000/v2/", "r.test:5000/path"]
    {
        assert_eq!(server_key(text), "r.test:5000", "{text}");
    }
}

#[test]
fn plain_entries_of_others_are_read() {
    let auths = json!({
        "https://r.test/v1/": {"auth": "dXNlcjpwYTpzcw=="},
        "token.test": {"auth": "Og==", "identitytoken": "abc"},
        "names.test": {"username": "u", "password": "p"},
        "empty.test": {},
        "broken.test": {"auth": "%%"},
    });
    assert_eq!(plain(&auths, "r.test"), Some(user("user", "pa:ss")));
    let token = Credential { username: String::new(), secret: "abc".to_owned(), is_token: true };
    assert_eq!(plain(&auths, "token.test"), Some(token));
    assert_eq!(plain(&auths, "names.test"), Some(user("u", "p")));
    for nobody in ["empty.test", "broken.test", "other.test"] {
        assert_eq!(plain(&auths, nobody), None, "{nobody}");
    }
}

#[test]
fn the_vault_keeps_secrets_sealed() {
    let temp = tempfile::tempdir().unwrap();
    let (file, key) = (temp.path().join("c/file.json"), temp.path().join("k/key"));
    std::fs::create_dir(temp.path().join("c")).unwrap();
    let vault = Vault::at(file.clone(), key.clone());
    assert_eq!(vault.get("r.test").unwrap(), None);
    vault.store("r.test", &user("me", "hidden-secret")).unwrap();
    let token = Credential { username: String::new(), secret: "tok".to_owned(), is_token: true };
    vault.store("t.test", &token).unwrap();
    assert_eq!(vault.get("r.test").unwrap(), Some(user("me", "hidden-secret")));
    assert_eq!(vault.get("t.test").unwrap(), Some(token));
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(!text.contains("hidden-secret") && !text.contains("\"me\""), "{text}");
    for path in [&file, &key] {
        assert_eq!(std::fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
    }
    // An entry belongs to its registry.
    std::fs::write(&file, text.replace("r.test", "evil.test")).unwrap();
    assert!(vault.get("evil.test").is_err());
    std::fs::write(&file, &text).unwrap();
    assert!(vault.erase("r.test").unwrap());
    assert!(!vault.erase("r.test").unwrap());
    assert_eq!(vault.list().unwrap(), [("t.test".to_owned(), "<token>".to_owned())]);
    // Another key opens nothing, and a key that others may read is not used.
    std::fs::write(&key, [7; 32]).unwrap();
    assert!(vault.get("t.test").unwrap_err().to_string().contains("log in again"));
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    assert!(vault.get("t.test").unwrap_err().to_string().contains("chmod 600"));
}

use super::*;

fn login(username: &str, secret: &str) -> Login {
    Login { username: username.to_owned(), secret: secret.to_owned() }
}

#[test]
fn logins_are_found_by_the_host_that_is_asked() {
    let logins = Logins::new(
        [
            ("https://index.docker.io/v1/", login("hub", "a")),
            ("registry.test:5000", login("port", "b")),
            ("http://old.test/v2/", login("", "token")),
            ("nothing.test", login("nobody", "")),
        ]
        .map(|(key, login)| (key.to_owned(), login)),
    );
    for (host, user) in [
        ("registry-1.docker.io", Some("hub")),
        ("registry.test:5000", Some("port")),
        ("registry.test", None),
        ("old.test", Some("")),
        ("nothing.test", None),
        ("index.docker.io.evil.test", None),
    ] {
        assert_eq!(logins.find(host).as_ref().map(|login| login.username.as_str()), user, "{host}");
    }
}

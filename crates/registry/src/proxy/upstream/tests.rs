use super::*;

#[test]
fn challenges() {
    let found = parameters(
        r#"Bearer realm="https://auth.test/token",service="a, b",scope="repository:x:pull",error=x"#,
    );
    assert_eq!(found["realm"], "https://auth.test/token");
    assert_eq!((&*found["service"], &*found["error"]), ("a, b", "x"));
    for odd in ["Bearer", "Bearer ", "Bearer realm", "Bearer realm=\"x", "=,=,="] {
        let _ = parameters(odd);
    }
}

#[test]
fn private_addresses() {
    for (url, expected) in [
        ("http://127.0.0.1:5000/", true),
        ("http://[::1]/", true),
        ("http://[::ffff:10.0.0.1]/", true),
        ("http://169.254.169.254/latest", true),
        ("http://192.168.1.1/", true),
        ("http://localhost/", true),
        ("https://registry-1.docker.io/", false),
        ("https://1.1.1.1/", false),
    ] {
        assert_eq!(is_local(&Url::parse(url).unwrap()), expected, "{url}");
    }
}

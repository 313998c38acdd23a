use serde_json::json;

use super::*;

#[test]
fn ports_are_drawn_together() {
    let port = |inside: i64, outside: i64, ip: &str| match outside {
        0 => json!({"PrivatePort": inside, "Type": "tcp"}),
        _ => json!({"IP": ip, "PrivatePort": inside, "PublicPort": outside, "Type": "tcp"}),
    };
    let cases = [
        (json!([port(80, 0, "")]), "80/tcp"),
        (json!([port(80, 0, ""), port(81, 0, ""), port(83, 0, "")]), "80-81/tcp, 83/tcp"),
        (
            json!([port(80, 8080, "0.0.0.0"), port(80, 8080, "::")]),
            "0.0.0.0:8080->80/tcp, [::]:8080->80/tcp",
        ),
        (json!([port(80, 80, "0.0.0.0"), port(81, 81, "0.0.0.0")]), "0.0.0.0:80-81->80-81/tcp"),
    ];
    for (document, expected) in cases {
        assert_eq!(ports(&document), expected);
    }
}

#[test]
fn health_is_read_from_the_status() {
    assert_eq!(health("Up 2 minutes (healthy)"), "healthy");
    assert_eq!(health("Up 1 second (health: starting)"), "starting");
    assert_eq!(health("Exited (0)"), "");
}

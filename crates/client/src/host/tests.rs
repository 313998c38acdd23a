use super::*;

#[test]
fn addresses_are_read() {
    let cases = [
        ("unix:///run/d.sock", Some(Host::Unix("/run/d.sock".into()))),
        ("tcp://h:1", Some(Host::Tcp { address: "h:1".into(), base: String::new(), https: false })),
        (
            "tcp://[::1]/x/",
            Some(Host::Tcp { address: "[::1]:2375".into(), base: "/x".into(), https: false }),
        ),
        (
            "https://h",
            Some(Host::Tcp { address: "h:443".into(), base: String::new(), https: true }),
        ),
        (
            "ssh://me@h:22/run/d.sock",
            Some(Host::Ssh { target: "me@h".into(), port: Some(22), socket: "/run/d.sock".into() }),
        ),
        ("ssh://h", Some(Host::Ssh { target: "h".into(), port: None, socket: String::new() })),
        ("ssh://-oProxyCommand=x", None),
        ("ssh://-l@h", None),
        ("h:2375", None),
        ("unix://", None),
        ("foo://x", None),
    ];
    for (text, expected) in cases {
        assert_eq!(text.parse::<Host>().ok(), expected, "{text}");
    }
}

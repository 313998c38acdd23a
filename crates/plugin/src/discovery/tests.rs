use std::os::unix::net::UnixListener;

use super::*;

struct Fixture {
    folder: tempfile::TempDir,
    places: Places,
}

fn fixture() -> Fixture {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| {
        let path = folder.path().join(name);
        std::fs::create_dir(&path).unwrap();
        path
    };
    let places = Places { sockets: at("run"), files: vec![at("etc"), at("usr")] };
    Fixture { folder, places }
}

impl Fixture {
    fn write(&self, path: &str, text: &str) {
        let path = self.folder.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn host(&self, name: &str) -> String {
        self.places.find(name).unwrap().host.to_string()
    }

    fn refusal(&self, name: &str) -> String {
        self.places.find(name).unwrap_err().to_string()
    }
}

#[test]
fn sockets_come_first_then_spec_then_json_then_the_next_directory() {
    let f = fixture();
    f.write("usr/x.spec", "tcp://10.0.0.1:1\n");
    assert_eq!(f.host("x"), "tcp://10.0.0.1:1");
    f.write("etc/x.json", r#"{"Name": "x", "Addr": "tcp://10.0.0.1:2"}"#);
    assert_eq!(f.host("x"), "tcp://10.0.0.1:2");
    f.write("etc/x/x.spec", " unix:///other.sock \n");
    assert_eq!(f.host("x"), "unix:///other.sock");
    // A plain file is no socket.
    f.write("run/x.sock", "");
    assert_eq!(f.host("x"), "unix:///other.sock");
    std::fs::create_dir(f.places.sockets.join("x")).unwrap();
    let path = f.places.sockets.join("x/x.sock");
    let _listener = UnixListener::bind(&path).unwrap();
    assert_eq!(f.host("x"), format!("unix://{}", path.display()));
    f.write("usr/y.spec", "tcp://h:1");
    assert_eq!(f.places.names().into_iter().collect::<Vec<_>>(), ["x", "y"]);
}

#[test]
fn tls_comes_from_json_and_without_an_authority_anybody_is_trusted() {
    let f = fixture();
    f.write(
        "etc/a.json",
        r#"{"Addr":"https://h:4","TLSConfig":{"CAFile":"/ca","CertFile":"/c","KeyFile":"/k"}}"#,
    );
    let address = f.places.find("a").unwrap();
    assert_eq!(address.host.to_string(), "https://h:4");
    let path = |text: &str| Some(PathBuf::from(text));
    let expected =
        TlsFiles { ca: path("/ca"), cert: path("/c"), key: path("/k"), skip_verify: false };
    assert_eq!(address.tls, Some(expected));
    f.write("etc/b.json", r#"{"Addr":"https://h:4","TLSConfig":{}}"#);
    assert!(f.places.find("b").unwrap().tls.unwrap().skip_verify);
}

#[test]
fn what_is_no_plugin_is_said() {
    let f = fixture();
    for name in ["", ".", "..", "../etc/x", "a/b", "no", &"x".repeat(300)] {
        assert_eq!(f.refusal(name), format!("plugin {name:?} not found"));
    }
    for (file, text, expected) in [
        ("a.spec", "", "no address"),
        ("a.spec", "localhost:80", "no address"),
        ("a.spec", "ssh://host", "no address"),
        ("a.spec", "https://host", "TLSConfig"),
        ("b.json", "{", "EOF"),
        ("b.json", "{}", "no address"),
        ("b.json", r#"{"Addr": 7}"#, "invalid type"),
        ("c.spec", &"x".repeat(70_000), "larger than 65536 bytes"),
    ] {
        f.write(&format!("etc/{file}"), text);
        let refusal = f.refusal(&file[..1]);
        assert!(refusal.contains(expected), "{file} {refusal}");
    }
}

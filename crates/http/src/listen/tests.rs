//! Addresses, stale sockets, modes.

use std::os::unix::fs::{MetadataExt, PermissionsExt};

use super::{Address, ListenError, UnixAccess, bind, inherited};

#[test]
fn reads_addresses() {
    let tcp = |host: &str, port| Some(Address::Tcp { host: host.to_owned(), port });
    for (text, want) in [
        ("unix:///run/a.sock", Some(Address::Unix("/run/a.sock".into()))),
        ("tcp://:2375", tcp("", Some(2375))),
        ("tcp://0.0.0.0", tcp("0.0.0.0", None)),
        ("tcp://[::1]:5", tcp("::1", Some(5))),
        ("tcp://[::1]", tcp("::1", None)),
        ("fd://", Some(Address::Fd(String::new()))),
        ("unix://relative", None),
        ("tcp://a:b", None),
        ("tcp://a:1/b", None),
        ("npipe://x", None),
        ("/run/a.sock", None),
        ("", None),
    ] {
        assert_eq!(text.parse::<Address>().ok(), want, "{text}");
    }
}

#[tokio::test]
async fn replaces_what_is_stale_and_only_that() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.sock");
    let address = Address::Unix(path.clone());
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());

    let bound = bind(&address, UnixAccess::default(), 0).await.unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
    let again = bind(&address, UnixAccess::default(), 0).await.unwrap_err();
    assert!(matches!(again, ListenError::InUse(_)), "{again}");
    drop(bound);
    assert!(!path.exists());

    std::fs::write(&path, "precious").unwrap();
    let file = bind(&address, UnixAccess::default(), 0).await.unwrap_err();
    assert!(matches!(file, ListenError::NotASocket(_)), "{file}");
    assert_eq!(std::fs::read(&path).unwrap(), b"precious");
}

#[tokio::test]
async fn leaves_the_socket_of_a_successor() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.sock");
    let bound = bind(&Address::Unix(path.clone()), UnixAccess::default(), 0).await.unwrap();
    std::fs::rename(&path, folder.path().join("old")).unwrap();
    let _successor = std::os::unix::net::UnixListener::bind(&path).unwrap();
    drop(bound);
    assert!(path.exists());
}

#[tokio::test]
async fn gives_the_socket_to_a_group() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.sock");
    let access = UnixAccess { group: Some(12345), mode: 0o660 };
    let _bound = bind(&Address::Unix(path.clone()), access, 0).await.unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().gid(), 12345);
}

#[tokio::test]
async fn refuses_long_paths() {
    let path = format!("/tmp/{}", "x".repeat(110));
    let error = bind(&Address::Unix(path.into()), UnixAccess::default(), 0).await.unwrap_err();
    assert!(matches!(error, ListenError::PathTooLong(_)), "{error}");
}

#[tokio::test]
async fn takes_what_systemd_hands_over() {
    let variables = |name: &str| match name {
        "LISTEN_PID" => Some(std::process::id().to_string()),
        "LISTEN_FDS" => Some("2".to_owned()),
        "LISTEN_FDNAMES" => Some("http:api".to_owned()),
        _ => None,
    };
    let folder = tempfile::tempdir().unwrap();
    let mut taken = Vec::new();
    let bound = inherited("api", variables, |fd| {
        taken.push(fd);
        let path = folder.path().join(fd.to_string());
        Ok(std::os::unix::net::UnixListener::bind(path)?.into())
    });
    assert_eq!(bound.unwrap().len(), 1);
    assert_eq!(taken, [4]);
    let no_take = |_| -> std::io::Result<std::os::fd::OwnedFd> { panic!("nothing to take") };
    assert!(inherited("other", variables, no_take).is_err());
    assert!(inherited("", |_| None, no_take).is_err());
    let others = |name: &str| (name != "LISTEN_PID").then(|| "1".to_owned());
    assert!(inherited("", others, no_take).is_err());
}

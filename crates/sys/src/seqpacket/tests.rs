use std::fs::File;
use std::io::{Read, Write};

use super::*;

#[test]
fn packets_keep_their_borders_and_bring_descriptors() {
    let (here, there) = pair().unwrap();
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(b"inside").unwrap();
    send(here.as_fd(), b"first", &[file.as_fd()]).unwrap();
    send(here.as_fd(), b"second", &[]).unwrap();
    drop(here);

    let first = receive(there.as_fd(), 100).unwrap().unwrap();
    assert_eq!(first.bytes, b"first");
    let mut text = String::new();
    let mut received = File::from(first.descriptors.into_iter().next().unwrap());
    std::io::Seek::rewind(&mut received).unwrap();
    received.read_to_string(&mut text).unwrap();
    assert_eq!(text, "inside");
    assert!(
        rustix::io::fcntl_getfd(&received).unwrap().contains(rustix::io::FdFlags::CLOEXEC),
        "descriptors must not leak into programs"
    );
    assert_eq!(receive(there.as_fd(), 100).unwrap().unwrap().bytes, b"second");
    assert!(receive(there.as_fd(), 100).unwrap().is_none());
}

#[test]
fn a_packet_beyond_the_limit_is_refused() {
    let (here, there) = pair().unwrap();
    send(here.as_fd(), &[7; 200], &[]).unwrap();
    send(here.as_fd(), b"next", &[]).unwrap();
    assert_eq!(receive(there.as_fd(), 100).unwrap_err().kind(), io::ErrorKind::InvalidData);
    assert_eq!(receive(there.as_fd(), 100).unwrap().unwrap().bytes, b"next");
}

#[test]
fn a_vanished_peer_is_an_error_and_no_signal() {
    let (here, there) = pair().unwrap();
    drop(there);
    assert_eq!(send(here.as_fd(), b"x", &[]).unwrap_err().kind(), io::ErrorKind::BrokenPipe);
}

#[test]
fn deep_directories_are_no_obstacle() {
    let root = tempfile::tempdir().unwrap();
    let deep = root.path().join("d".repeat(100)).join("e".repeat(100));
    std::fs::create_dir_all(&deep).unwrap();
    let directory = File::open(&deep).unwrap();
    let listener = listen(directory.as_fd(), "sock", 4).unwrap();
    let client = connect(directory.as_fd(), "sock").unwrap();
    let server = accept(listener.as_fd()).unwrap();
    send(client.as_fd(), b"hello", &[]).unwrap();
    assert_eq!(receive(server.as_fd(), 10).unwrap().unwrap().bytes, b"hello");
}

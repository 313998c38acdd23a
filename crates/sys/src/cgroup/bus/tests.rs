use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use super::{Bus, Fault, Peer, Target, Value, Writer, read_line, word};

/// A bus that greets one client, answers its hello, and then what `answer` says.
fn bus(answer: fn(serial: u32) -> Vec<Vec<u8>>) -> (UnixStream, std::thread::JoinHandle<Vec<u8>>) {
    let (ours, theirs) = UnixStream::pair().expect("a pair");
    let server = std::thread::spawn(move || {
        let mut stream = theirs;
        let hello = read_line(&mut stream).expect("a line");
        let uid = rustix::process::geteuid().as_raw().to_string();
        let hex = uid.bytes().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat();
        assert_eq!(hello, format!("\0AUTH EXTERNAL {hex}"));
        stream.write_all(b"OK 0123\r\n").expect("written");
        assert_eq!(read_line(&mut stream).expect("a line"), "BEGIN");
        read_message(&mut stream);
        stream.write_all(&reply(2, 1, None)).expect("written");
        let call = read_message(&mut stream);
        for message in answer(word(&call, 8).expect("a serial")) {
            stream.write_all(&message).expect("written");
        }
        call
    });
    (ours, server)
}

fn read_message(stream: &mut UnixStream) -> Vec<u8> {
    let mut message = vec![0; 16];
    stream.read_exact(&mut message).expect("a head");
    let fields = word(&message, 12).expect("a length") as usize;
    let body = word(&message, 4).expect("a length") as usize;
    message.resize(16 + fields.next_multiple_of(8) + body, 0);
    stream.read_exact(&mut message[16..]).expect("the rest");
    message
}

/// An answer as a real bus sends it: with the sender's and receiver's names before what matters.
fn reply(kind: u8, to: u32, error: Option<(&str, &str)>) -> Vec<u8> {
    let mut body = Writer::default();
    if let Some((_, text)) = error {
        body.text(text);
    }
    let mut out = Writer(vec![b'l', kind, 1, 1]);
    out.u32(body.0.len() as u32);
    out.u32(77);
    out.array(8, |out| {
        out.0.push(6);
        out.signature("s");
        out.text(":1.5");
        if let Some((name, _)) = error {
            out.align(8);
            out.0.push(4);
            out.signature("s");
            out.text(name);
            out.align(8);
            out.0.push(8);
            out.signature("g");
            out.signature("s");
        }
        out.align(8);
        out.0.push(5);
        out.signature("u");
        out.u32(to);
    });
    out.align(8);
    out.0.extend(body.0);
    out.0
}

fn call(stream: UnixStream) -> Result<(), Fault> {
    let mut body = Writer::default();
    body.text("x.scope");
    body.properties(&[("Delegate", Value::Flag(true)), ("PIDs", Value::Numbers(vec![7]))]);
    let target = Target { destination: "d", path: "/p", interface: "i", member: "m" };
    Bus::greet(stream, Peer::Bus)?.call(&target, "sa(sv)", &body)
}

#[test]
fn a_call_and_its_answer() {
    let (stream, server) =
        bus(|serial| vec![reply(4, 0, None), reply(2, serial + 9, None), reply(2, serial, None)]);
    call(stream).expect("answered");
    let message = server.join().expect("the server ended");
    assert_eq!(message[..4], [b'l', 1, 0, 1]);
    // The body, by hand: a string, then the array of two structures aligned to eight bytes.
    let body = [
        &[7, 0, 0, 0][..],
        b"x.scope\0",
        &[48, 0, 0, 0],
        &[8, 0, 0, 0],
        b"Delegate\0",
        b"\x01b\0",
        &[1, 0, 0, 0],
        &[0, 0, 0, 0],
        &[4, 0, 0, 0],
        b"PIDs\0",
        b"\x02au\0",
        &[0, 0, 0],
        &[4, 0, 0, 0],
        &[7, 0, 0, 0],
    ]
    .concat();
    assert_eq!(word(&message, 4), Some(body.len() as u32));
    assert_eq!(message[message.len() - body.len()..], body);
}

#[test]
fn an_error_is_told_in_the_callees_words() {
    let (stream, server) =
        bus(|serial| vec![reply(3, serial, Some(("org.x.NoSuchUnit", "no such unit")))]);
    let Err(Fault::Refused { name, text }) = call(stream) else { panic!("not refused") };
    assert_eq!((name.as_str(), text.as_str()), ("org.x.NoSuchUnit", "no such unit"));
    server.join().expect("the server ended");
}

#[test]
fn nonsense_is_an_error() {
    for garbage in [vec![0_u8; 16], [&b"l\x02\0\x01"[..], &[255; 12]].concat()] {
        let (mut ours, theirs) = UnixStream::pair().expect("a pair");
        ours.write_all(b"OK x\r\n").expect("written");
        ours.write_all(&garbage).expect("written");
        assert!(matches!(call(theirs), Err(Fault::Io(_))));
    }
}

#[test]
fn a_service_without_a_bus_gets_no_hello() {
    let (ours, theirs) = UnixStream::pair().expect("a pair");
    let server = std::thread::spawn(move || {
        let mut stream = theirs;
        read_line(&mut stream).expect("a line");
        stream.write_all(b"OK 0123\r\n").expect("written");
        assert_eq!(read_line(&mut stream).expect("a line"), "BEGIN");
        let first = read_message(&mut stream);
        stream.write_all(&reply(2, 1, None)).expect("written");
        word(&first, 8)
    });
    let target = Target { destination: "d", path: "/p", interface: "i", member: "m" };
    let mut bus = Bus::greet(ours, Peer::Direct).expect("authenticated");
    bus.call(&target, "", &Writer::default()).expect("answered");
    assert_eq!(server.join().expect("the server ended"), Some(1));
}

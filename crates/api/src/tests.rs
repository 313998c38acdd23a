//! Documents against what dockerd 28.5 printed: reading and writing again must give every byte back.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::frame::{BadFrame, Decoder, Stream, encode};
use crate::message::{Message, ProgressDetail};
use crate::{ApiVersion, StrSlice, container, event, exec, image, network, stats, system, volume};

fn check<T: Serialize + DeserializeOwned>(golden: &str) {
    for line in golden.lines() {
        let document: T = crate::from_slice(line.as_bytes()).unwrap();
        let written = serde_json::to_string(&document).unwrap();
        pretty_eq(line, &written);
        let plain: T = serde_json::from_str(line).unwrap();
        assert_eq!(serde_json::to_string(&plain).unwrap(), line, "read without leniency");
    }
}

/// Compares key by key first, so that a failure is readable.
fn pretty_eq(expected: &str, written: &str) {
    if expected != written {
        let pretty = |text: &str| {
            let value: serde_json::Value = serde_json::from_str(text).unwrap();
            serde_json::to_string_pretty(&value).unwrap()
        };
        let (expected, written) = (pretty(expected), pretty(written));
        for (want, have) in expected.lines().zip(written.lines()) {
            assert_eq!(want, have);
        }
        assert_eq!(expected, written);
    }
}

macro_rules! golden {
    ($($name:ident: $type:ty),* $(,)?) => {
        $(#[test]
        fn $name() {
            check::<$type>(include_str!(concat!("tests/golden/", stringify!($name), ".json")));
        })*
    };
}

golden! {
    container_created: container::Inspect,
    container_full: container::Inspect,
    container_running: container::Inspect,
    container_list: Vec<container::Summary>,
    container_create: container::CreateResponse,
    container_prune: container::PruneReport,
    changes: Vec<container::Change>,
    version: system::Version,
    info: system::Info,
    disk_usage: system::DiskUsage,
    image_list: Vec<image::Summary>,
    image_inspect: image::Inspect,
    image_history: Vec<image::HistoryItem>,
    volume_list: volume::ListResponse,
    network_list: Vec<network::Inspect>,
    network_inspect: network::Inspect,
    stats: stats::Stats,
    stats_stopped: stats::Stats,
    exec_new: exec::Inspect,
    exec_ended: exec::Inspect,
    events: event::Event,
}

#[test]
fn reads_as_go_does() {
    let text = br#"{"IMAGE":"a","image":"b","cmd":"ls","Entrypoint":["x",null],"Labels":null,"Tty":null,
        "hostconfig":{"memory":5,"ConsoleSize":[1],"Binds":null,"PortBindings":{"80/tcp":null}},"unknown":{"a":[1]}}"#;
    let request: container::CreateRequest = crate::from_slice(text).unwrap();
    assert_eq!(request.config.image, "b");
    assert_eq!(request.config.cmd, Some(StrSlice(vec!["ls".to_owned()])));
    assert_eq!(request.config.entrypoint, Some(StrSlice(vec!["x".to_owned(), String::new()])));
    assert_eq!((request.config.labels, request.config.tty), (None, false));
    let host = request.host_config.unwrap();
    assert_eq!((host.memory, host.console_size, host.binds), (5, [1, 0], None));
    assert_eq!(host.port_bindings.unwrap()["80/tcp"], None);
}

#[test]
fn an_exact_key_wins() {
    let exec: exec::StartRequest = crate::from_slice(br#"{"Detach":true,"detach":false}"#).unwrap();
    assert!(exec.detach);
}

#[test]
fn wrong_types_are_refused() {
    for text in [
        r#"{"Image":5}"#,
        r#"{"Env":"a"}"#,
        r#"{"Tty":"yes"}"#,
        "[]",
        "7",
        r#"{"HostConfig":{"Memory":"1g"}}"#,
    ] {
        assert!(crate::from_slice::<container::CreateRequest>(text.as_bytes()).is_err(), "{text}");
    }
}

#[test]
fn create_request_survives_the_wire() {
    let text = r#"{"Image":"a","Cmd":["b"],"HostConfig":{"AutoRemove":true},"NetworkingConfig":{"EndpointsConfig":{"n":{"Aliases":["x"]}}}}"#;
    let request: container::CreateRequest = crate::from_slice(text.as_bytes()).unwrap();
    let again: container::CreateRequest =
        crate::from_slice(&serde_json::to_vec(&request).unwrap()).unwrap();
    assert_eq!(request, again);
    assert!(again.host_config.unwrap().auto_remove);
}

#[test]
fn versions() {
    assert_eq!("1.51".parse(), Ok(ApiVersion::v1(51)));
    assert!(ApiVersion::v1(9) < ApiVersion::v1(10));
    for text in ["", "1", "1.", "v1.2", "1.2.3", "+1.2", "1.99999"] {
        assert!(text.parse::<ApiVersion>().is_err(), "{text}");
    }
}

#[test]
fn frames_survive_any_cut() {
    let mut wire = encode(Stream::Stdout, b"hello");
    wire.extend(encode(Stream::Stderr, b""));
    wire.extend(encode(Stream::Stderr, b"oh"));
    for size in 1..=wire.len() {
        let mut decoder = Decoder::default();
        let (mut out, mut err) = (Vec::new(), Vec::new());
        for piece in wire.chunks(size) {
            decoder
                .feed(piece, |stream, bytes| match stream {
                    Stream::Stdout => out.extend_from_slice(bytes),
                    _ => err.extend_from_slice(bytes),
                })
                .unwrap();
        }
        assert_eq!((out.as_slice(), err.as_slice()), (&b"hello"[..], &b"oh"[..]));
        assert!(decoder.is_complete());
    }
}

#[test]
fn bad_frames_are_refused() {
    let feed = |bytes: &[u8]| Decoder::default().feed(bytes, |_, _| {});
    assert_eq!(feed(&[9, 0, 0, 0, 0, 0, 0, 0]), Err(BadFrame::Stream(9)));
    assert_eq!(feed(&[1, 0, 0, 0, 255, 0, 0, 0]), Err(BadFrame::TooLong(255 << 24)));
}

#[test]
fn messages() {
    let loading = Message {
        progress_detail: Some(ProgressDetail { current: 1, total: 2, ..ProgressDetail::default() }),
        ..Message::status("abc", "Loading layer")
    };
    assert_eq!(
        String::from_utf8(loading.line()).unwrap(),
        "{\"status\":\"Loading layer\",\"progressDetail\":{\"current\":1,\"total\":2},\"id\":\"abc\"}\r\n"
    );
    assert_eq!(
        String::from_utf8(Message::error("no").line()).unwrap(),
        "{\"errorDetail\":{\"message\":\"no\"},\"error\":\"no\"}\r\n"
    );
}

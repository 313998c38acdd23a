use std::collections::BTreeMap;

use futures_util::FutureExt as _;
use rorqual_core::Timestamp;
use tokio::io::{AsyncWriteExt as _, BufReader};

use super::{LogRecord, LogStream, MAX_FIELD, Partial, attributes};

/// Three entries as `journalctl --output=export` writes them; the second's message has a line feed in it.
fn exported() -> Vec<u8> {
    let size = 5_u64.to_le_bytes();
    [
        &b"__CURSOR=s=1;i=2\n__REALTIME_TIMESTAMP=1500000000000001\nMESSAGE=a=b\nPRIORITY=6\n\n"[..],
        b"__CURSOR=s=1;i=3\nMESSAGE\n",
        &size,
        b"c\n\nde\nPRIORITY=3\nSYSLOG_TIMESTAMP=1970-01-01T00:00:01.5Z\nCONTAINER_PARTIAL_MESSAGE=true\n\n",
        b"__CURSOR=s=1;i=4\n__REALTIME_TIMESTAMP=2000000\n\n",
    ]
    .concat()
}

fn expected() -> Vec<Option<LogRecord>> {
    let record = |nanos, stream, line: &[u8]| LogRecord {
        at: Timestamp::from_nanos(nanos),
        stream,
        line: line.to_vec(),
        attrs: BTreeMap::new(),
    };
    vec![
        Some(record(1_500_000_000_000_001_000, LogStream::Stdout, b"a=b\n")),
        Some(record(1_500_000_000, LogStream::Stderr, b"c\n\nde")),
        // Without a message.
        None,
    ]
}

#[tokio::test]
async fn entries_are_read_however_they_come() {
    let all = exported();
    for at in 0..all.len() {
        let (mut sender, receiver) = tokio::io::duplex(4096);
        let (mut output, mut partial) = (BufReader::new(receiver), Partial::default());
        let mut found = Vec::new();
        sender.write_all(&all[..at]).await.expect("written");
        // Every wait is given up, as it is when the container ends.
        while let Some(entry) = partial.read(&mut output).now_or_never() {
            found.push(entry.expect("no garbage").expect("not the end"));
        }
        sender.write_all(&all[at..]).await.expect("written");
        drop(sender);
        while let Some(entry) = partial.read(&mut output).await.expect("no garbage") {
            found.push(entry);
        }
        let cursors: Vec<_> = found.iter().map(|entry| entry.text("__CURSOR")).collect();
        assert_eq!(cursors, [Some("s=1;i=2"), Some("s=1;i=3"), Some("s=1;i=4")], "at {at}");
        let none = BTreeMap::new();
        let records: Vec<_> = found.into_iter().map(|entry| entry.record(&none)).collect();
        assert_eq!(records, expected(), "at {at}");
    }
}

#[tokio::test]
async fn what_is_torn_or_too_large_is_an_error() {
    let huge = [&b"MESSAGE\n"[..], &(MAX_FIELD + 1).to_le_bytes()].concat();
    for bytes in [&b"__CURSOR=s"[..], b"MESSAGE\n\x05\0\0\0\0\0\0\0ab", b"MESSAGE\n\x05\0", &huge] {
        let mut output = BufReader::new(bytes);
        assert!(Partial::default().read(&mut output).await.is_err(), "{bytes:?}");
    }
}

#[test]
fn attributes_are_what_the_user_asked_for() {
    let fields = ["CONTAINER_ID", "CONTAINER_TAG", "IMAGE_NAME", "SYSLOG_IDENTIFIER", "MINE"];
    let fields = fields.map(|name| (name.to_owned(), String::new())).into();
    assert_eq!(attributes(&fields).into_keys().collect::<Vec<_>>(), ["MINE"]);
}

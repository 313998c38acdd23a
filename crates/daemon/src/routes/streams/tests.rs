//! Log lines on the wire.

use rorqual_core::Timestamp;
use rorqual_shim::log::{LogRecord, LogStream};

use super::record_bytes;

#[test]
fn log_lines() {
    let record = LogRecord {
        at: Timestamp::from_nanos(1_795_218_397_000_000_050),
        stream: LogStream::Stderr,
        line: b"oh\n".to_vec(),
        attrs: [("a b".to_owned(), "c=d".to_owned()), ("e".to_owned(), "f".to_owned())].into(),
    };
    let check = |tty, timestamps, details, want: &[u8]| {
        let bytes = record_bytes(&record, tty, timestamps, details);
        assert_eq!(String::from_utf8_lossy(&bytes), String::from_utf8_lossy(want));
    };
    check(true, false, false, b"oh\n");
    check(false, false, false, b"\x02\0\0\0\0\0\0\x03oh\n");
    check(true, true, false, b"2026-11-20T23:46:37.000000050Z oh\n");
    check(true, true, true, b"2026-11-20T23:46:37.000000050Z a+b=c%3Dd,e=f oh\n");
}

use std::fs;
use std::path::Path;
use std::time::Duration;

use futures_util::StreamExt;

use super::*;
use crate::log::sink::Sink;
use crate::log::{FileLog, LogStream};

fn log(directory: &Path, json: bool, max_size: Option<u64>) -> LogTarget {
    let file = FileLog {
        path: directory.join("log"),
        max_size,
        max_files: 4,
        compress: false,
        attrs: [("k".to_owned(), "v".to_owned())].into(),
    };
    if json { LogTarget::JsonFile(file) } else { LogTarget::Local(file) }
}

fn stamp(second: u64) -> Timestamp {
    Timestamp::from_nanos(second * 1_000_000_000)
}

fn write_lines(sink: &mut Sink, range: std::ops::Range<u64>) {
    for number in range {
        sink.write(LogStream::Stdout, format!("line {number}\n").as_bytes(), stamp(number));
    }
}

async fn lines(target: &LogTarget, query: LogQuery) -> Vec<String> {
    let (_, running) = watch::channel(false);
    let records = read(target, &query, running).unwrap();
    records
        .map(|record| String::from_utf8(record.unwrap().line).unwrap().trim_end().to_owned())
        .collect()
        .await
}

fn numbered_lines(range: std::ops::Range<u64>) -> Vec<String> {
    range.map(|number| format!("line {number}")).collect()
}

#[tokio::test]
async fn tail_and_time_windows_select_records() {
    for json in [true, false] {
        let directory = tempfile::tempdir().unwrap();
        let target = log(directory.path(), json, None);
        let mut sink = Sink::open(&target).unwrap();
        write_lines(&mut sink, 0..100);
        let query = LogQuery::default;
        assert_eq!(lines(&target, query()).await, numbered_lines(0..100));
        for tail in [0, 1, 7, 99, 100, 1000] {
            let expected = numbered_lines(100 - tail.min(100)..100);
            assert_eq!(lines(&target, LogQuery { tail: Some(tail), ..query() }).await, expected);
        }
        let window = LogQuery { since: Some(stamp(10)), until: Some(stamp(12)), ..query() };
        assert_eq!(lines(&target, window).await, numbered_lines(10..13));
    }
}

#[tokio::test]
async fn rotated_files_are_read_as_one_log() {
    for (json, size) in [(true, 1200), (false, 450)] {
        let directory = tempfile::tempdir().unwrap();
        let target = log(directory.path(), json, Some(size));
        let mut sink = Sink::open(&target).unwrap();
        write_lines(&mut sink, 0..30);
        assert!(directory.path().join("log.1").exists());
        assert_eq!(lines(&target, LogQuery::default()).await, numbered_lines(0..30));
        crate::log::file::compress(&directory.path().join("log.1")).unwrap();
        assert!(!directory.path().join("log.1").exists());
        assert_eq!(lines(&target, LogQuery::default()).await, numbered_lines(0..30));
        let tail = LogQuery { tail: Some(25), ..LogQuery::default() };
        assert_eq!(lines(&target, tail).await, numbered_lines(5..30));
        for file in fs::read_dir(directory.path()).unwrap() {
            let length = file.unwrap().metadata().unwrap().len();
            assert!(length <= size, "a file grew to {length}");
        }
    }
}

#[tokio::test]
async fn only_so_many_files_are_kept() {
    let directory = tempfile::tempdir().unwrap();
    let target = log(directory.path(), true, Some(300));
    let mut sink = Sink::open(&target).unwrap();
    write_lines(&mut sink, 0..200);
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 4);
    let kept = lines(&target, LogQuery::default()).await;
    assert_eq!(kept.last().unwrap(), "line 199");
}

#[tokio::test]
async fn a_torn_last_record_is_passed_over() {
    for json in [true, false] {
        let directory = tempfile::tempdir().unwrap();
        let target = log(directory.path(), json, None);
        write_lines(&mut Sink::open(&target).unwrap(), 0..3);
        let path = directory.path().join("log");
        let whole = fs::read(&path).unwrap();
        fs::write(&path, &whole[..whole.len() - 5]).unwrap();
        assert_eq!(lines(&target, LogQuery::default()).await, numbered_lines(0..2));
        // The next writer must not make the following records unreadable.
        write_lines(&mut Sink::open(&target).unwrap(), 3..5);
        let expected = ["line 0", "line 1", "line 3", "line 4"];
        assert_eq!(lines(&target, LogQuery::default()).await, expected);
        let tail = LogQuery { tail: Some(2), ..LogQuery::default() };
        assert_eq!(lines(&target, tail).await, expected[2..]);
    }
}

#[tokio::test]
async fn followers_see_everything_across_rotations_and_end_with_the_container() {
    for (json, compress) in [(true, false), (true, true), (false, true)] {
        let directory = tempfile::tempdir().unwrap();
        let target = log(directory.path(), json, Some(4000));
        let (alive, running) = watch::channel(true);
        let query = LogQuery { follow: true, ..LogQuery::default() };
        let mut records = read(&target, &query, running).unwrap();
        let mut sink = Sink::open(&target).unwrap();
        let mut seen = Vec::new();
        for round in 0..40 {
            write_lines(&mut sink, round * 10..round * 10 + 10);
            let packed = directory.path().join("log.1");
            if compress && packed.exists() {
                crate::log::file::compress(&packed).unwrap();
            }
            while seen.len() < (round as usize + 1) * 10 {
                let next = tokio::time::timeout(Duration::from_secs(10), records.next());
                let record = next.await.expect("a record in time").unwrap().unwrap();
                seen.push(String::from_utf8(record.line).unwrap().trim_end().to_owned());
            }
        }
        write_lines(&mut sink, 400..401);
        alive.send_replace(false);
        while let Some(record) = records.next().await {
            seen.push(String::from_utf8(record.unwrap().line).unwrap().trim_end().to_owned());
        }
        assert_eq!(seen, numbered_lines(0..401));
    }
}

#[tokio::test]
async fn drivers_without_files_cannot_be_read() {
    let (_, running) = watch::channel(false);
    assert!(read(&LogTarget::None, &LogQuery::default(), running).is_none());
}

use rorqual_core::Digest;
use sha2::{Digest as _, Sha256};

use super::{Part, place};
use crate::content::{Action, WriteRequest};

fn message(action: Action, offset: i64, data: &[u8], expected: &str) -> WriteRequest {
    WriteRequest {
        action: action as i32,
        r#ref: "x".to_owned(),
        total: 5,
        expected: expected.to_owned(),
        offset,
        data: data.to_vec(),
    }
}

fn files(directory: &std::path::Path) -> usize {
    let Ok(entries) = std::fs::read_dir(directory) else { return 0 };
    entries
        .flatten()
        .map(|entry| if entry.path().is_dir() { files(&entry.path()) } else { 1 })
        .sum()
}

#[test]
fn a_blob_is_there_when_all_of_it_has_come() {
    let folder = tempfile::tempdir().unwrap();
    let digest = Digest::sha256(Sha256::digest(b"hello").into());
    let expected = digest.to_string();
    let take = |part, message| Part::take(part, folder.path(), message);
    let (part, _) = take(None, message(Action::Stat, 0, b"", &expected)).unwrap();
    let (part, answer) = take(part, message(Action::Write, 0, b"hel", &expected)).unwrap();
    assert_eq!(answer.offset, 3);
    assert!(!place(folder.path(), &digest).exists());
    let (part, answer) = take(part, message(Action::Commit, 3, b"lo", &expected)).unwrap();
    assert!(part.is_none());
    assert_eq!(answer.digest, expected);
    assert_eq!(std::fs::read(place(folder.path(), &digest)).unwrap(), b"hello");
    assert_eq!(files(folder.path()), 1);
}

#[test]
fn what_is_not_what_was_announced_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let wrong = format!("sha256:{}", "0".repeat(64));
    let right = Digest::sha256(Sha256::digest(b"hello").into()).to_string();
    for (expected, first, second) in [
        (&wrong, (0, &b"hel"[..]), (3, &b"lo"[..])),
        (&right, (0, b"hel"), (4, b"lo")),
        (&right, (0, b"he"), (2, b"l")),
    ] {
        let begun = message(Action::Write, first.0, first.1, expected);
        let (part, _) = Part::take(None, folder.path(), begun).unwrap();
        let ended = message(Action::Commit, second.0, second.1, expected);
        assert!(Part::take(part, folder.path(), ended).is_err());
        assert_eq!(files(folder.path()), 0);
    }
}

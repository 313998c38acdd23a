//! Tests of the undo journal.

use std::fs;
use std::io::Write;

use serde_json::json;

use super::Journal;

#[test]
fn what_did_not_end_is_found_again() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("journal");
    let (journal, unfinished) = Journal::open(&path).unwrap();
    assert!(unfinished.is_empty());
    let (first, second) = (journal.begin(), journal.begin());
    journal.note(first, &"a").unwrap();
    journal.note(second, &"b").unwrap();
    journal.note(first, &"c").unwrap();
    journal.note(first, &"d").unwrap();
    journal.undone(first).unwrap();
    journal.end(second).unwrap();
    drop(journal);

    let (journal, unfinished) = Journal::open(&path).unwrap();
    assert_eq!(unfinished.len(), 1);
    assert_eq!(unfinished[0].undos, [json!("a"), json!("c")]);
    assert!(journal.begin() > unfinished[0].id);
    journal.end(unfinished[0].id).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().len(), 0);
}

#[test]
fn a_torn_last_line_is_ignored() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("journal");
    let (journal, _) = Journal::open(&path).unwrap();
    let id = journal.begin();
    journal.note(id, &"a").unwrap();
    fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(b"{\"Undo\":[0,").unwrap();
    drop(journal);
    let (_, unfinished) = Journal::open(&path).unwrap();
    assert_eq!(unfinished[0].undos, [json!("a")]);
}

#[test]
fn an_operation_without_notes_writes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("journal");
    let (journal, _) = Journal::open(&path).unwrap();
    let id = journal.begin();
    journal.end(id).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().len(), 0);
}

//! Tests of the database.

use rorqual_core::BoxError;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Database, Durability, Record};
use crate::Error;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Old {
    name: String,
}

impl Record for Old {
    const KIND: &'static str = "thing";
    const VERSION: u32 = 1;

    fn id(&self) -> String {
        self.name.clone()
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Thing {
    name: String,
    size: u64,
}

impl Record for Thing {
    const KIND: &'static str = "thing";
    const VERSION: u32 = 2;

    fn id(&self) -> String {
        self.name.clone()
    }

    fn migrate(_version: u32, mut body: Value) -> Result<Value, BoxError> {
        body["size"] = Value::from(7);
        Ok(body)
    }
}

fn thing(name: &str, size: u64) -> Thing {
    Thing { name: name.to_owned(), size }
}

#[tokio::test]
async fn records_survive_a_reopening() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state.db");
    let database = Database::open(&path).unwrap();
    database.put(Durability::Full, thing("b", 2)).await.unwrap();
    database.put(Durability::Normal, thing("a", 1)).await.unwrap();
    database.put(Durability::Normal, thing("a", 3)).await.unwrap();
    drop(database);

    let database = Database::open(&path).unwrap();
    assert_eq!(database.list::<Thing>().await.unwrap(), [thing("a", 3), thing("b", 2)]);
    assert!(database.remove::<Thing>(Durability::Full, "a").await.unwrap());
    assert!(!database.remove::<Thing>(Durability::Full, "a").await.unwrap());
    let found = database.read(|records| records.find::<Thing>("b")).await.unwrap();
    assert_eq!(found, Some(thing("b", 2)));
}

#[tokio::test]
async fn a_failed_transaction_changes_nothing() {
    let database = Database::in_memory().unwrap();
    let result: Result<(), Error> = database
        .write(Durability::Normal, |records| {
            records.put(&thing("a", 1))?;
            Err(Error::Closed)
        })
        .await;
    assert!(result.is_err());
    assert_eq!(database.list::<Thing>().await.unwrap(), []);
}

#[tokio::test]
async fn old_records_are_migrated_and_newer_ones_refused() {
    let database = Database::in_memory().unwrap();
    database.put(Durability::Normal, Old { name: "a".to_owned() }).await.unwrap();
    assert_eq!(database.list::<Thing>().await.unwrap(), [thing("a", 7)]);
    database.put(Durability::Normal, thing("a", 8)).await.unwrap();
    assert!(matches!(database.list::<Old>().await, Err(Error::Record { .. })));
}

#[tokio::test]
async fn a_newer_schema_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state.db");
    let connection = rusqlite::Connection::open(&path).unwrap();
    connection.pragma_update(None, "user_version", 99).unwrap();
    drop(connection);
    assert!(matches!(Database::open(&path), Err(Error::TooNew { found: 99, .. })));
}

#[tokio::test]
async fn space_is_set_aside_behind_both_files() {
    use std::os::unix::fs::MetadataExt;

    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state.db");
    let database = Database::open(&path).unwrap();
    database.put(Durability::Normal, thing("a", 1)).await.unwrap();
    for name in ["state.db", "state.db-wal"] {
        let file = directory.path().join(name).metadata().unwrap();
        assert!(file.blocks() * 512 >= super::reserve::ROOM, "{name}: {file:?}");
        assert!(file.len() < super::reserve::ROOM, "{name}: {file:?}");
    }
}

//! The database: typed records in one SQLite file, owned by one thread.
//!
//! Records are JSON with a version; who owns a kind migrates it when it is read. Nothing here knows what they mean.

use std::cmp::Ordering;
use std::path::Path;
use std::sync::mpsc;
use std::thread;

use rorqual_core::BoxError;
use rusqlite::{Connection, OptionalExtension, TransactionBehavior};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::oneshot;

use crate::Error;

mod reserve;

use reserve::Reserve;

/// When a write counts as done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Once it is on disk: survives a power cut.
    Full,
    /// Once the kernel has it: survives our own death, and a power cut may lose the last writes but never tears one.
    Normal,
}

/// A kind of record.
pub trait Record: Serialize + DeserializeOwned {
    /// Name of the kind, for ever.
    const KIND: &'static str;
    /// Version of the body's shape, from 1.
    const VERSION: u32;

    /// Returns the identity within the kind.
    fn id(&self) -> String;

    /// Lifts a body written by an older `version` to the present shape.
    fn migrate(version: u32, body: Value) -> Result<Value, BoxError> {
        let _ = version;
        Ok(body)
    }
}

/// The connection and the space set aside for it; fields are dropped in this order.
struct Held {
    connection: Connection,
    reserve: Option<Reserve>,
}

type Job = Box<dyn FnOnce(&mut Held) + Send>;

/// A handle to the database; clones share it. The last one to be dropped closes it.
#[derive(Clone, Debug)]
pub struct Database {
    jobs: mpsc::Sender<Job>,
}

/// One step per schema version; the n-th lifts version n to n + 1.
const SCHEMA: &[&str] = &["CREATE TABLE records (
    kind TEXT NOT NULL,
    id TEXT NOT NULL,
    version INTEGER NOT NULL,
    body TEXT NOT NULL,
    PRIMARY KEY (kind, id)
) WITHOUT ROWID, STRICT;"];

impl Database {
    /// Opens or makes the database at `path`. Blocking.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let reserve = Reserve::open(path)
            .map_err(|source| Error::Io { action: format!("open {}", path.display()), source })?;
        Self::start(Connection::open(path).map_err(opening)?, Some(reserve))
    }

    /// Makes a database that lives in memory, for tests.
    pub fn in_memory() -> Result<Self, Error> {
        Self::start(Connection::open_in_memory().map_err(opening)?, None)
    }

    fn start(mut connection: Connection, mut reserve: Option<Reserve>) -> Result<Self, Error> {
        prepare(&mut connection)?;
        if let Some(reserve) = &mut reserve {
            reserve.top_up();
        }
        let mut held = Held { connection, reserve };
        let (jobs, queue) = mpsc::channel::<Job>();
        let run = move || {
            while let Ok(job) = queue.recv() {
                job(&mut held);
            }
        };
        thread::Builder::new()
            .name("database".to_owned())
            .spawn(run)
            .map_err(|source| Error::Io { action: "start a thread".to_owned(), source })?;
        Ok(Self { jobs })
    }

    /// Runs `work` in one transaction: all of its changes happen, or none when it fails. It runs a second time when
    /// the first found the disk full.
    ///
    /// # Cancellation
    ///
    /// Dropping the future does not stop the transaction: it is committed or not as if awaited.
    pub async fn write<T, F>(&self, durability: Durability, work: F) -> Result<T, Error>
    where
        F: Fn(&Records<'_>) -> Result<T, Error> + Send + 'static,
        T: Send + 'static,
    {
        self.submit(move |held| transact(held, durability, &work))?
            .await
            .map_err(|_| Error::Closed)?
    }

    /// Runs `work` for reading.
    pub async fn read<T, F>(&self, work: F) -> Result<T, Error>
    where
        F: FnOnce(&Records<'_>) -> Result<T, Error> + Send + 'static,
        T: Send + 'static,
    {
        self.submit(move |held| work(&Records { connection: &held.connection }))?
            .await
            .map_err(|_| Error::Closed)?
    }

    /// Writes one record.
    pub async fn put<R>(&self, durability: Durability, record: R) -> Result<(), Error>
    where
        R: Record + Send + 'static,
    {
        self.write(durability, move |records| records.put(&record)).await
    }

    /// Returns all records of a kind, by id.
    pub async fn list<R: Record + Send + 'static>(&self) -> Result<Vec<R>, Error> {
        // A path to the method would be tied to one lifetime.
        #[expect(clippy::redundant_closure_for_method_calls, reason = "does not compile otherwise")]
        self.read(|records| records.list()).await
    }

    /// Removes a record; returns whether it was there.
    pub async fn remove<R: Record>(&self, durability: Durability, id: &str) -> Result<bool, Error> {
        let id = id.to_owned();
        self.write(durability, move |records| records.remove::<R>(&id)).await
    }

    fn submit<T, F>(&self, work: F) -> Result<oneshot::Receiver<T>, Error>
    where
        F: FnOnce(&mut Held) -> T + Send + 'static,
        T: Send + 'static,
    {
        let (answer, receiver) = oneshot::channel();
        let job: Job = Box::new(move |held| {
            // The asker may have gone away; the work is done all the same.
            answer.send(work(held)).ok();
        });
        self.jobs.send(job).map_err(|_| Error::Closed)?;
        Ok(receiver)
    }
}

fn opening(source: rusqlite::Error) -> Error {
    Error::Database { action: "open", source }
}

fn writing(source: rusqlite::Error) -> Error {
    Error::Database { action: "write", source }
}

fn reading(source: rusqlite::Error) -> Error {
    Error::Database { action: "read", source }
}

fn prepare(connection: &mut Connection) -> Result<(), Error> {
    connection.pragma_update(None, "journal_mode", "WAL").map_err(opening)?;
    connection.pragma_update(None, "synchronous", "NORMAL").map_err(opening)?;
    connection.set_prepared_statement_cache_capacity(32);
    let transaction =
        connection.transaction_with_behavior(TransactionBehavior::Exclusive).map_err(opening)?;
    let found: u32 =
        transaction.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(opening)?;
    let known = SCHEMA.len() as u32;
    if found > known {
        return Err(Error::TooNew { found, known });
    }
    for step in &SCHEMA[found as usize..] {
        transaction.execute_batch(step).map_err(opening)?;
    }
    transaction.pragma_update(None, "user_version", known).map_err(opening)?;
    transaction.commit().map_err(opening)
}

fn transact<T>(
    held: &mut Held,
    durability: Durability,
    work: &impl Fn(&Records<'_>) -> Result<T, Error>,
) -> Result<T, Error> {
    let connection = &mut held.connection;
    // ORDER: outside of the transaction, inside of it the setting is ignored.
    if durability == Durability::Full {
        connection.pragma_update(None, "synchronous", "FULL").map_err(writing)?;
    }
    let mut result = commit(connection, work);
    if result.as_ref().is_err_and(disk_is_full) && reuse_log(connection).is_ok() {
        result = commit(connection, work);
    }
    if durability == Durability::Full {
        connection.pragma_update(None, "synchronous", "NORMAL").map_err(writing)?;
    }
    if let Some(reserve) = &mut held.reserve {
        reserve.note_write();
    }
    result
}

fn disk_is_full(error: &Error) -> bool {
    let Error::Database { source, .. } = error else { return false };
    source.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull)
}

/// Moves the write-ahead log into the database, so that the next transaction goes to the log's beginning, where there is
/// space already.
fn reuse_log(connection: &Connection) -> Result<(), Error> {
    connection.query_row("PRAGMA wal_checkpoint(RESTART)", (), |_| Ok(())).map_err(writing)
}

fn commit<T>(
    connection: &mut Connection,
    work: &impl Fn(&Records<'_>) -> Result<T, Error>,
) -> Result<T, Error> {
    let transaction =
        connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(writing)?;
    let value = work(&Records { connection: &transaction })?;
    transaction.commit().map_err(writing)?;
    Ok(value)
}

/// The records as one transaction sees them.
#[derive(Debug)]
pub struct Records<'c> {
    connection: &'c Connection,
}

impl Records<'_> {
    /// Writes a record, in place of an older one.
    pub fn put<R: Record>(&self, record: &R) -> Result<(), Error> {
        let id = record.id();
        let body = serde_json::to_string(record)
            .map_err(|source| broken::<R>("encode", &id, source.into()))?;
        let sql = "INSERT INTO records (kind, id, version, body) VALUES (?1, ?2, ?3, ?4)
            ON CONFLICT (kind, id) DO UPDATE SET version = ?3, body = ?4";
        let mut statement = self.connection.prepare_cached(sql).map_err(writing)?;
        statement.execute((R::KIND, &id, R::VERSION, &body)).map_err(writing)?;
        Ok(())
    }

    /// Finds a record.
    pub fn find<R: Record>(&self, id: &str) -> Result<Option<R>, Error> {
        let sql = "SELECT version, body FROM records WHERE kind = ?1 AND id = ?2";
        let mut statement = self.connection.prepare_cached(sql).map_err(reading)?;
        let row = statement
            .query_row((R::KIND, id), |row| Ok((row.get::<_, u32>(0)?, row.get::<_, String>(1)?)))
            .optional()
            .map_err(reading)?;
        row.map(|(version, body)| decode(id, version, &body)).transpose()
    }

    /// Returns all records of a kind, by id.
    pub fn list<R: Record>(&self) -> Result<Vec<R>, Error> {
        let sql = "SELECT id, version, body FROM records WHERE kind = ?1 ORDER BY id";
        let mut statement = self.connection.prepare_cached(sql).map_err(reading)?;
        let mut rows = statement.query((R::KIND,)).map_err(reading)?;
        let mut records = Vec::new();
        while let Some(row) = rows.next().map_err(reading)? {
            let id: String = row.get(0).map_err(reading)?;
            let body: String = row.get(2).map_err(reading)?;
            records.push(decode(&id, row.get(1).map_err(reading)?, &body)?);
        }
        Ok(records)
    }

    /// Removes a record; returns whether it was there.
    pub fn remove<R: Record>(&self, id: &str) -> Result<bool, Error> {
        let sql = "DELETE FROM records WHERE kind = ?1 AND id = ?2";
        let mut statement = self.connection.prepare_cached(sql).map_err(writing)?;
        Ok(statement.execute((R::KIND, id)).map_err(writing)? > 0)
    }
}

fn decode<R: Record>(id: &str, version: u32, body: &str) -> Result<R, Error> {
    let result = match version.cmp(&R::VERSION) {
        Ordering::Equal => serde_json::from_str(body).map_err(BoxError::from),
        Ordering::Greater => Err(format!("version {version} is newer than {}", R::VERSION).into()),
        Ordering::Less => serde_json::from_str::<Value>(body)
            .map_err(BoxError::from)
            .and_then(|body| R::migrate(version, body))
            .and_then(|body| serde_json::from_value(body).map_err(BoxError::from)),
    };
    result.map_err(|source| broken::<R>("decode", id, source))
}

fn broken<R: Record>(action: &'static str, id: &str, source: BoxError) -> Error {
    Error::Record { action, kind: R::KIND, id: id.to_owned(), source }
}

#[cfg(test)]
mod tests;

//! Durable state: the database, atomic files, keyed locks, the undo journal, the blocking pool.
//!
//! Knows no containers, images or volumes: records are typed by who owns them.

pub mod atomic;
mod blocking;
mod database;
mod error;
mod journal;
mod locks;
mod operation;

pub use blocking::blocking;
pub use database::{Database, Durability, Record, Records};
pub use error::Error;
pub use journal::{Journal, OperationId, Unfinished};
pub use locks::{KeyGuard, KeyedLocks};
pub use operation::{Operation, Operations, Undoer};

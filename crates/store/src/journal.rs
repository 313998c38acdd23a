//! The undo journal: what must be taken back when an operation does not reach its end.
//!
//! It lies below the run directory (tmpfs), whose loss in a reboot also loses the resources it names; so it is never
//! synced. One line of JSON per note, and the file is cut to nothing whenever no operation is under way.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::Error;

/// Identity of an operation within one journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct OperationId(u64);

/// An operation of an earlier life that did not end.
#[derive(Clone, Debug, PartialEq)]
pub struct Unfinished {
    /// Which.
    pub id: OperationId,
    /// Its undos in the order in which they were noted; take them back from the last one on.
    pub undos: Vec<Value>,
}

#[derive(Serialize, Deserialize)]
enum Line {
    /// This undo may be needed from now on.
    Undo(OperationId, Value),
    /// The last undo was taken back.
    Undone(OperationId),
    /// Nothing of this operation is left to take back.
    End(OperationId),
}

/// The journal of one daemon.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    file: File,
    next: u64,
    // INVARIANT: holds every operation with a line in the file that has not ended.
    open: BTreeMap<OperationId, u32>,
}

impl Journal {
    /// Opens or makes the journal at `path`; returns what an earlier life left. Blocking.
    pub fn open(path: &Path) -> Result<(Self, Vec<Unfinished>), Error> {
        let fail = |source| Error::Io { action: format!("open {}", path.display()), source };
        let file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .mode(0o600)
            .open(path)
            .map_err(fail)?;
        let unfinished = replay(&file).map_err(fail)?;
        let next = unfinished.last().map_or(0, |last| last.id.0 + 1);
        let open = unfinished.iter().map(|one| (one.id, one.undos.len() as u32)).collect();
        let state = Mutex::new(State { file, next, open });
        Ok((Self { path: path.to_owned(), state }, unfinished))
    }

    /// Begins an operation; costs nothing until something is noted.
    pub fn begin(&self) -> OperationId {
        let mut state = self.state();
        let id = OperationId(state.next);
        state.next += 1;
        id
    }

    /// Notes an undo, before the step that makes it necessary.
    pub fn note<U: Serialize>(&self, id: OperationId, undo: &U) -> Result<(), Error> {
        let undo = serde_json::to_value(undo).map_err(|source| self.failed(source.into()))?;
        let mut state = self.state();
        state.append(&Line::Undo(id, undo)).map_err(|source| self.failed(source))?;
        *state.open.entry(id).or_default() += 1;
        Ok(())
    }

    /// Notes that the operation's last undo was taken back.
    pub fn undone(&self, id: OperationId) -> Result<(), Error> {
        let mut state = self.state();
        if !state.open.contains_key(&id) {
            return Ok(());
        }
        state.append(&Line::Undone(id)).map_err(|source| self.failed(source))
    }

    /// Ends an operation: nothing of it will be taken back.
    pub fn end(&self, id: OperationId) -> Result<(), Error> {
        let mut state = self.state();
        if state.open.remove(&id).is_none() {
            return Ok(());
        }
        let result = if state.open.is_empty() {
            state.file.set_len(0)
        } else {
            state.append(&Line::End(id))
        };
        result.map_err(|source| self.failed(source))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failed(&self, source: io::Error) -> Error {
        Error::Io { action: format!("write {}", self.path.display()), source }
    }
}

impl State {
    fn append(&mut self, line: &Line) -> io::Result<()> {
        let mut bytes = serde_json::to_vec(line)?;
        bytes.push(b'\n');
        // One call, so that a killed writer leaves a whole line or a torn last one.
        self.file.write_all(&bytes)
    }
}

fn replay(file: &File) -> io::Result<Vec<Unfinished>> {
    let mut reader = BufReader::new(file);
    reader.rewind()?;
    let mut open: BTreeMap<OperationId, Vec<Value>> = BTreeMap::new();
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line)? > 0 {
        // A torn line is the last one: its step had not begun, because notes come first.
        match serde_json::from_slice(&line) {
            Ok(Line::Undo(id, undo)) => open.entry(id).or_default().push(undo),
            Ok(Line::Undone(id)) => {
                open.get_mut(&id).and_then(Vec::pop);
            }
            Ok(Line::End(id)) => {
                open.remove(&id);
            }
            Err(_) => {}
        }
        line.clear();
    }
    Ok(open.into_iter().map(|(id, undos)| Unfinished { id, undos }).collect())
}

#[cfg(test)]
mod tests;

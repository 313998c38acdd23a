//! Lines for a client, from places that must not wait for it: what it does not take in time is left out with a word.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use tokio::sync::Notify;

/// LIMIT: bytes that wait for a client; BuildKit clips a step's output at two MiB.
const MAX_WAITING: usize = 2 << 20;

#[derive(Default)]
struct Waiting {
    lines: VecDeque<Vec<u8>>,
    bytes: usize,
    clipped: bool,
}

/// Lines that wait.
#[derive(Default)]
pub(super) struct Outbox {
    waiting: Mutex<Waiting>,
    news: Notify,
}

impl Outbox {
    /// Adds a line; tells whether it was taken.
    pub(super) fn push(&self, line: Vec<u8>) -> bool {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.bytes + line.len() > MAX_WAITING {
            waiting.clipped = true;
            return false;
        }
        waiting.bytes += line.len();
        waiting.lines.push_back(line);
        drop(waiting);
        self.news.notify_one();
        true
    }

    fn pop(&self) -> Option<Vec<u8>> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let line = waiting.lines.pop_front()?;
        waiting.bytes -= line.len();
        Some(line)
    }

    /// Waits for the next line.
    pub(super) async fn next(&self) -> Vec<u8> {
        loop {
            if let Some(line) = self.pop() {
                return line;
            }
            self.news.notified().await;
        }
    }

    /// Takes what is there.
    pub(super) fn try_next(&self) -> Option<Vec<u8>> {
        self.pop()
    }

    /// Tells, once, whether something was left out.
    pub(super) fn clipped(&self) -> bool {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut waiting.clipped)
    }
}

//! Tests of operations: whatever happens, undos run once, youngest first, or not at all.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::Poll;

use async_trait::async_trait;

use super::{Operations, Undoer};
use crate::Journal;

#[derive(Default)]
struct Undone(Mutex<Vec<u32>>);

#[async_trait]
impl Undoer for Undone {
    type Undo = u32;

    async fn undo(&self, undo: u32) {
        tokio::task::yield_now().await;
        self.0.lock().unwrap().push(undo);
    }
}

impl Undone {
    fn seen(&self) -> Vec<u32> {
        self.0.lock().unwrap().clone()
    }
}

fn setup() -> (tempfile::TempDir, Arc<Undone>, Operations<Undone>) {
    let directory = tempfile::tempdir().unwrap();
    let (journal, _) = Journal::open(&directory.path().join("journal")).unwrap();
    let undone = Arc::new(Undone::default());
    let operations = Operations::new(Arc::clone(&undone), Arc::new(journal));
    (directory, undone, operations)
}

async fn poll_and_drop<T>(future: impl Future<Output = T>, polls: usize) -> Option<T> {
    let mut future = pin!(future);
    for _ in 0..polls {
        let polled = poll_fn(|context| Poll::Ready(future.as_mut().poll(context))).await;
        if let Poll::Ready(output) = polled {
            return Some(output);
        }
    }
    None
}

#[tokio::test]
async fn success_keeps_and_failure_takes_back_in_reverse() {
    let (_directory, undone, operations) = setup();
    for (result, expected) in [(Ok(()), vec![]), (Err(()), vec![2, 1])] {
        let mut operation = operations.begin("test");
        operation.will_need(1).unwrap();
        operation.will_need(2).unwrap();
        assert_eq!(operation.settle(result).await, result);
        assert_eq!(undone.seen(), expected);
    }
}

#[tokio::test]
async fn a_drop_at_any_moment_takes_everything_back_once() {
    for polls in 0.. {
        let (directory, undone, operations) = setup();
        let work = async {
            let mut operation = operations.begin("test");
            operation.will_need(1).unwrap();
            tokio::task::yield_now().await;
            operation.will_need(2).unwrap();
            tokio::task::yield_now().await;
            operation.settle(Err::<(), ()>(())).await
        };
        let outcome = poll_and_drop(work, polls).await;
        operations.drain().await;
        let expected = match polls {
            0 => vec![],
            1 => vec![1],
            _ => vec![2, 1],
        };
        assert_eq!(undone.seen(), expected, "after {polls} polls");
        let (_, unfinished) = Journal::open(&directory.path().join("journal")).unwrap();
        assert!(unfinished.is_empty(), "after {polls} polls");
        if outcome.is_some() {
            break;
        }
    }
}

#[tokio::test]
async fn a_killed_daemon_takes_back_at_its_next_start() {
    let (directory, undone, operations) = setup();
    let path = directory.path().join("journal");
    let mut operation = operations.begin("test");
    operation.will_need(1).unwrap();
    operation.will_need(2).unwrap();
    // What a new life finds while this one is stopped in its tracks.
    let (journal, unfinished) = Journal::open(&path).unwrap();
    let next = Operations::new(Arc::clone(&undone), Arc::new(journal));
    next.replay(unfinished).await.unwrap();
    assert_eq!(undone.seen(), [2, 1]);
    let (_, unfinished) = Journal::open(&path).unwrap();
    assert!(unfinished.is_empty());
    operation.keep();
}

//! Tests of keyed locks.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use super::KeyedLocks;

#[tokio::test]
async fn one_key_is_exclusive_and_others_are_free() {
    let locks = KeyedLocks::default();
    let first = locks.lock("a").await;
    assert!(locks.try_lock("a").is_none());
    let other = locks.try_lock("b");
    assert!(other.is_some());
    drop(first);
    assert!(locks.try_lock("a").is_some());
}

#[tokio::test]
async fn nothing_is_left_when_all_are_gone() {
    let locks = KeyedLocks::default();
    let held = locks.lock(1).await;
    {
        let mut waiting = pin!(locks.lock(1));
        let mut context = Context::from_waker(Waker::noop());
        assert!(matches!(waiting.as_mut().poll(&mut context), Poll::Pending));
    }
    assert_eq!(locks.len(), 1);
    drop(held);
    assert!(locks.is_empty());
}

#[tokio::test]
async fn a_waiter_gets_its_turn() {
    let locks = KeyedLocks::default();
    let held = locks.lock(1).await;
    let waiter = tokio::spawn({
        let locks = locks.clone();
        async move {
            let _guard = locks.lock(1).await;
        }
    });
    drop(held);
    waiter.await.unwrap();
    assert!(locks.is_empty());
}

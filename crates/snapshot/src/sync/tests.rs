//! Tests of shared syncs.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;

use super::*;

fn syncer() -> Syncer {
    Syncer::new(Dir::open(std::path::Path::new("/")).unwrap())
}

#[test]
fn those_who_wait_share_the_next_one() {
    let (syncer, count) = (syncer(), AtomicUsize::new(0));
    let (began, begins) = channel();
    let (let_go, go) = channel::<()>();
    let go = Mutex::new(go);
    std::thread::scope(|scope| {
        let one = |wait: bool| {
            let (syncer, count, began, go) = (&syncer, &count, began.clone(), &go);
            scope.spawn(move || {
                syncer.sync_with(|_| {
                    count.fetch_add(1, Ordering::SeqCst);
                    if wait {
                        began.send(()).unwrap();
                        go.lock().unwrap().recv().unwrap();
                    }
                    Ok(())
                })
            })
        };
        let first = one(true);
        begins.recv().unwrap();
        let waiting = [one(false), one(false), one(false)];
        // All three have asked once the lock was theirs; the first sync ends only now.
        let_go.send(()).unwrap();
        first.join().unwrap().unwrap();
        for waiter in waiting {
            waiter.join().unwrap().unwrap();
        }
    });
    // Late ones may need a third at worst, never one each and the first.
    assert!((2..=4).contains(&count.load(Ordering::SeqCst)));
}

#[test]
fn a_failure_is_told_to_its_own_and_not_to_the_next() {
    let syncer = syncer();
    let error = syncer.sync_with(|_| Err(io::Error::from_raw_os_error(28))).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(28));
    syncer.sync_with(|_| Ok(())).unwrap();
    syncer.sync().unwrap();
}

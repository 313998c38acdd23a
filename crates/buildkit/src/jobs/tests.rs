use std::collections::BTreeSet;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::{Job, Jobs};
use crate::backend::Scope;
use crate::progress::ProgressLog;

fn job(id: &str) -> Arc<Job> {
    let log = Arc::new(ProgressLog::new());
    let scope = Scope::new(
        id.to_owned(),
        None,
        Arc::clone(&log) as _,
        CancellationToken::new(),
        BTreeSet::new(),
    );
    Arc::new(Job::new(scope, log).0)
}

#[tokio::test]
async fn a_build_that_is_over_before_anybody_looks_is_found_all_the_same() {
    let jobs = Arc::new(Jobs::default());
    let waiting = tokio::spawn({
        let jobs = Arc::clone(&jobs);
        async move { jobs.wait_any("quick").await.map(|job| job.scope.id.clone()) }
    });
    // On this one thread it waits from here on, and is woken when the build is over already.
    tokio::task::yield_now().await;
    drop(jobs.begin(job("quick")).unwrap());
    assert_eq!(waiting.await.unwrap().unwrap(), "quick");
}

#[tokio::test(start_paused = true)]
async fn a_build_that_never_begins_is_not_waited_for_forever() {
    let jobs = Arc::new(Jobs::default());
    assert!(jobs.wait_any("none").await.is_err());
    drop(jobs.begin(job("over")).unwrap());
    assert!(jobs.wait("over").await.is_err(), "it cannot be driven any more");
}

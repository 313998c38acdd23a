use std::fs::{File, FileTimes};
use std::sync::Arc;
use std::time::SystemTime;

use super::*;
use crate::storage::cloud::Cloud;
use crate::storage::disk::Disk;

/// Many collectors at once; exactly one of them may collect.
async fn one_of_many(storage: Arc<dyn Storage>) {
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..16 {
        let storage = Arc::clone(&storage);
        tasks.spawn(async move { Lock::acquire(&*storage).await });
    }
    let mut locks = Vec::new();
    while let Some(result) = tasks.join_next().await {
        match result.unwrap() {
            Ok(lock) => locks.push(lock),
            Err(error) => assert!(matches!(error, Error::TooMany { .. }), "{error:?}"),
        }
    }
    assert_eq!(locks.len(), 1);
    let lock = locks.remove(0);
    lock.renew(&*storage).await.unwrap();
    lock.release(&*storage).await;
    assert!(storage.get(LOCK).await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_many_gets_it_on_disk() {
    let folder = tempfile::tempdir().unwrap();
    let disk = Arc::new(Disk::open(folder.path()).await.unwrap());
    one_of_many(Arc::clone(&disk) as Arc<dyn Storage>).await;
    // The same when a collector died and all want its lock.
    disk.put(LOCK, Bytes::from_static(b"dead"), Durability::Volatile).await.unwrap();
    let long_ago = SystemTime::now() - 2 * HOLDS;
    let file = File::options().write(true).open(folder.path().join(LOCK)).unwrap();
    file.set_times(FileTimes::new().set_modified(long_ago)).unwrap();
    one_of_many(disk).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_many_gets_it_in_an_object_store() {
    one_of_many(Arc::new(Cloud::over(Arc::new(object_store::memory::InMemory::new())))).await;
}

#[tokio::test]
async fn who_lost_it_stops() {
    let folder = tempfile::tempdir().unwrap();
    let disk = Disk::open(folder.path()).await.unwrap();
    let lock = Lock::acquire(&disk).await.unwrap();
    disk.put(LOCK, Bytes::from_static(b"other"), Durability::Volatile).await.unwrap();
    assert!(matches!(lock.renew(&disk).await, Err(Error::TooMany { .. })));
    lock.release(&disk).await;
    assert!(disk.get(LOCK).await.unwrap().is_some(), "what is another's stays");
}

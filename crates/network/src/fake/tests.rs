//! The fake passes the suite that the real networks pass.

use super::FakeNetworks;
use crate::{Error, Networks as _, suite, testing};

#[tokio::test]
async fn passes_the_suite() {
    let directory = tempfile::tempdir().unwrap();
    suite::all(&FakeNetworks::new(), directory.path()).await;
}

#[tokio::test]
async fn fails_when_told_to() {
    let directory = tempfile::tempdir().unwrap();
    let fake = FakeNetworks::new();
    fake.fail_next_attach(Error::Unsupported("not today".to_owned()));
    let attach = testing::attach("bridge", directory.path());
    assert!(fake.attach(attach.clone()).await.is_err());
    assert!(fake.attached().is_empty());
    fake.attach(attach.clone()).await.unwrap();
    assert_eq!(fake.attached(), [attach.container]);
    assert_eq!(fake.log().len(), 1);
}

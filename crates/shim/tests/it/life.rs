//! Obligations of the real shims.

use std::sync::Arc;

use rorqual_shim::suite;

use crate::host::{Host, launch};

#[tokio::test(flavor = "multi_thread")]
async fn shims_keep_the_contract() {
    let host = Host::new();
    let shims = host.shims().await;
    let (dir, rootfs) = (host.dir.path().to_owned(), host.rootfs());
    suite::run(shims, Arc::new(move |args| launch(&dir, &rootfs, args))).await;
    let left: Vec<_> = std::fs::read_dir(host.run_dir().join("shims")).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}

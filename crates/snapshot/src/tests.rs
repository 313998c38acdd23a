use crate::fake::FakeSnapshotter;
use crate::{Options, Overlay, suite};

#[tokio::test]
async fn the_suite_holds() {
    // Not /tmp: overlay takes no directories of some file systems that are common there.
    let temp = tempfile::tempdir_in("/var/tmp").unwrap();
    let options = Options { durable: true, ..Options::default() };
    let overlay = Overlay::open(temp.path(), options).unwrap();
    suite::layers_are_their_digests(&overlay).await;
    suite::snapshots_live_until_removed(&overlay).await;
    let fake = FakeSnapshotter::new("/home");
    suite::layers_are_their_digests(&fake).await;
    suite::snapshots_live_until_removed(&fake).await;
}

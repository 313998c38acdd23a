use crate::fake::FakeSnapshotter;
use crate::{Options, Overlay, suite};

#[tokio::test]
async fn the_suite_holds() {
    let temp = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
    let options = Options { durable: true, ..Options::default() };
    let overlay = Overlay::open(temp.path(), options).unwrap();
    suite::layers_are_their_digests(&overlay).await;
    suite::snapshots_live_until_removed(&overlay).await;
    let fake = FakeSnapshotter::new("/home");
    suite::layers_are_their_digests(&fake).await;
    suite::snapshots_live_until_removed(&fake).await;
}

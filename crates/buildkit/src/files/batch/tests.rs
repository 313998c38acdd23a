use super::*;

fn packet(id: u32, bytes: usize) -> Packet {
    Packet { id, data: vec![0; bytes], ..Packet::default() }
}

#[tokio::test]
async fn what_is_there_comes_together_and_in_order() {
    let (sender, mut receiver) = queue();
    let packets = (0..1000).map(|id| Ok(packet(id, 10)));
    let handing = tokio::spawn(hand_on(futures_util::stream::iter(packets), sender));
    let (mut ids, mut batches) = (Vec::new(), 0);
    while let Some(batch) = receiver.recv().await {
        batches += 1;
        ids.extend(batch.into_iter().map(|packet| packet.id));
    }
    handing.await.unwrap().unwrap();
    assert!(ids.iter().copied().eq(0..1000));
    assert!(batches < 10, "{batches} batches");
}

#[tokio::test]
async fn what_waits_is_bounded_by_its_bytes() {
    let (sender, mut receiver) = queue();
    // Each of them is all that may wait; one larger than that waits alone and still goes through.
    let packets = [ROOM - OVERHEAD, ROOM - OVERHEAD, 4 * ROOM].map(|bytes| Ok(packet(0, bytes)));
    let mut handing = Box::pin(hand_on(futures_util::stream::iter(packets), sender));
    assert!((&mut handing).now_or_never().is_none());
    let first = receiver.try_recv().unwrap();
    assert!(receiver.try_recv().is_err(), "the second waits for the first to be taken");
    drop(first);
    for _ in 0..2 {
        // The end comes with the last one.
        let done = (&mut handing).now_or_never();
        drop(receiver.try_recv().unwrap());
        if done.is_some() {
            return;
        }
    }
    handing.await.unwrap();
}

#[tokio::test]
async fn a_failure_comes_behind_what_came_before_it() {
    let (sender, mut receiver) = queue();
    let packets = vec![Ok(packet(1, 1)), Err(Status::aborted("gone"))];
    let handed = hand_on(futures_util::stream::iter(packets), sender).await;
    assert_eq!(handed.unwrap_err().code(), tonic::Code::Aborted);
    assert_eq!(receiver.recv().await.unwrap().into_iter().count(), 1);
    assert!(receiver.recv().await.is_none());
}

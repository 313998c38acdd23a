use rorqual_core::Digest;

use super::*;

fn log(bytes: usize) -> Progress {
    Progress::Log {
        vertex: Digest::sha256([1; 32]),
        stream: LogStream::Stdout,
        data: vec![b'x'; bytes],
        at: UNIX_EPOCH,
    }
}

fn vertex(number: u8) -> Progress {
    Progress::Vertex(VertexUpdate {
        digest: Digest::sha256([number; 32]),
        inputs: Vec::new(),
        name: format!("step {number}"),
        started: None,
        completed: Some(UNIX_EPOCH),
        cached: number == 1,
        error: String::new(),
    })
}

#[tokio::test]
async fn who_comes_late_hears_all_and_the_end() {
    let log_ = ProgressLog::new();
    log_.tell(vertex(1));
    log_.tell(log(3));
    log_.end();
    let (batch, at) = log_.next(0, &Sources::new()).await.unwrap();
    assert_eq!((batch.vertexes.len(), batch.logs.len(), at), (1, 1, 2));
    assert!(log_.next(at, &Sources::new()).await.is_none());
    assert_eq!(log_.counts(), Counts { total: 1, completed: 1, cached: 1, warnings: 0 });
}

#[tokio::test]
async fn output_is_bounded_and_states_stay() {
    let log_ = ProgressLog::new();
    log_.tell(vertex(1));
    for _ in 0..20 {
        log_.tell(log(1 << 20));
    }
    let (batch, _) = log_.next(0, &Sources::new()).await.unwrap();
    assert_eq!(batch.vertexes.len(), 1);
    assert!(log_.lock().bytes <= MOST_BYTES);
    assert_eq!(log_.counts().total, 1);
}

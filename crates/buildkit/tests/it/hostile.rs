//! Clients that lie: about their directories, their messages, their identity.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;

use bollard_buildkit_proto::fsutil::types::{Packet, Stat, packet::PacketType};
use bollard_buildkit_proto::moby::filesync::packet::file_sync_server::{FileSync, FileSyncServer};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rorqual_build::{Error, LocalSource, Session as _};
use rorqual_buildkit::{Greeting, Sessions};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use tower_service::Service as _;

use crate::fake::{Memory, Tree};

/// Sends the same packets whatever it is asked.
#[derive(Clone)]
struct Liar(Arc<dyn Fn(u64) -> Option<Packet> + Send + Sync>);

type Packets = ReceiverStream<Result<Packet, Status>>;

#[async_trait::async_trait]
impl FileSync for Liar {
    type DiffCopyStream = Packets;
    type TarStreamStream = Packets;

    async fn diff_copy(&self, _: Request<Streaming<Packet>>) -> Result<Response<Packets>, Status> {
        let (sender, receiver) = tokio::sync::mpsc::channel(4);
        let lie = Arc::clone(&self.0);
        tokio::spawn(async move {
            for number in 0.. {
                let Some(packet) = lie(number) else { break };
                if sender.send(Ok(packet)).await.is_err() {
                    break;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn tar_stream(&self, _: Request<Streaming<Packet>>) -> Result<Response<Packets>, Status> {
        Err(Status::unimplemented(""))
    }
}

/// Syncs a directory of a liar.
async fn sync(lie: impl Fn(u64) -> Option<Packet> + Send + Sync + 'static) -> Result<(), Error> {
    let (near, far) = tokio::io::duplex(1 << 20);
    let liar = FileSyncServer::new(Liar(Arc::new(lie)));
    let served = tokio::spawn(async move {
        let service = hyper::service::service_fn(move |request: http::Request<_>| {
            liar.clone().call(request.map(tonic::body::Body::new))
        });
        let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        server.serve_connection(TokioIo::new(far), service).await.ok();
    });
    let sessions = Sessions::new(std::env::temp_dir());
    let greeting = Greeting {
        id: "liar".to_owned(),
        methods: ["/moby.filesync.v1.filesync/diffcopy".to_owned()].into(),
        ..Greeting::default()
    };
    let running = {
        let sessions = sessions.clone();
        tokio::spawn(async move { sessions.run(near, greeting).await })
    };
    let session = sessions.wait("liar").await.unwrap();
    let source = LocalSource { name: "context".to_owned(), ..LocalSource::default() };
    let synced = session.sync(source, Box::new(Memory(Tree::default()))).await;
    served.abort();
    running.abort();
    synced
}

fn stat(path: &str, mode: u32, link: &str) -> Packet {
    let (path, linkname) = (path.to_owned(), link.to_owned());
    let stat = Stat { path, mode, linkname, size: 1, ..Stat::default() };
    Packet { r#type: PacketType::PacketStat as i32, stat: Some(stat), ..Packet::default() }
}

const DIR: u32 = 1 << 31 | 0o755;
const LINK: u32 = 1 << 27 | 0o777;

#[tokio::test]
async fn no_path_leaves_the_directory() {
    let cases: Vec<Vec<Packet>> = vec![
        vec![stat("../evil", 0o644, "")],
        vec![stat("/etc/passwd", 0o644, "")],
        vec![stat("a/../../evil", 0o644, "")],
        vec![stat("a", LINK, "/etc"), stat("a/passwd", 0o644, "")],
        vec![stat("a", 0o644, "/etc/shadow")],
        vec![stat("b", DIR, ""), stat("a", DIR, "")],
        vec![stat("no/parent", 0o644, "")],
    ];
    for packets in cases {
        let shown = format!("{:?}", packets.last().unwrap().stat.as_ref().unwrap().path);
        let error = sync(move |at| packets.get(at as usize).cloned()).await.unwrap_err();
        assert!(matches!(error, Error::Invalid { .. }), "{shown}: {error}");
    }
}

#[tokio::test]
async fn content_without_end_and_unasked_content_are_refused() {
    let data = |id: u32, size: usize| Packet {
        r#type: PacketType::PacketData as i32,
        id,
        data: vec![0; size],
        ..Packet::default()
    };
    let endless = move |at| Some(if at == 0 { stat("f", 0o644, "") } else { data(0, 1 << 20) });
    assert!(sync(endless).await.unwrap_err().to_string().contains("grew"));
    let unasked = move |at| (at == 0).then(|| data(5, 10));
    assert!(sync(unasked).await.unwrap_err().to_string().contains("nobody wanted"));
}

#[tokio::test]
async fn a_client_that_stops_in_the_middle_fails_the_transfer() {
    let half = |at| (at == 0).then(|| stat("f", 0o644, ""));
    assert!(sync(half).await.is_err());
}

//! A connection to a client's ssh agent.

use rorqual_build::AgentStream;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Response, Status, Streaming};

use crate::transport::Caller;
use crate::wire::ssh::{BytesMessage, CheckAgentRequest, ssh_client::SshClient};

pub(crate) const HEADER_ID: &str = "buildkit.ssh.id";
/// LIMIT: bytes on their way; agents speak in short messages.
pub(crate) const BUFFER: usize = 32 << 10;

/// Opens a connection; `None` when the client has no agent of that name.
pub(super) async fn open(caller: Caller, id: &str) -> Result<Option<Box<dyn AgentStream>>, Status> {
    let mut client = SshClient::new(caller);
    match client.check_agent(CheckAgentRequest { id: id.to_owned() }).await {
        Ok(_) => {}
        // Clients answer so for a name that they were not given.
        Err(status) if matches!(status.code(), Code::Unknown | Code::NotFound) => return Ok(None),
        Err(status) => return Err(status),
    }
    let (sender, to_client) = mpsc::channel(4);
    let mut call = Request::new(ReceiverStream::new(to_client));
    call.metadata_mut().insert(HEADER_ID, super::remote::header(id));
    let (near, far) = tokio::io::duplex(BUFFER);
    // ORDER: the head of the answer may come with the agent's first word only, and that after ours.
    tokio::spawn(pump(far, sender, async move { client.forward_agent(call).await }));
    Ok(Some(Box::new(near)))
}

/// Copies both ways until either side has ended.
async fn pump(
    stream: DuplexStream,
    sender: mpsc::Sender<BytesMessage>,
    answer: impl Future<Output = Result<Response<Streaming<BytesMessage>>, Status>> + Send,
) {
    let (mut from, mut to) = tokio::io::split(stream);
    let outward = async move {
        let mut buf = vec![0; BUFFER];
        while let Ok(count @ 1..) = from.read(&mut buf).await {
            if sender.send(BytesMessage { data: buf[..count].to_vec() }).await.is_err() {
                break;
            }
        }
    };
    let inward = async move {
        let Ok(answer) = answer.await else { return };
        let mut incoming = answer.into_inner();
        while let Ok(Some(message)) = incoming.message().await {
            if to.write_all(&message.data).await.is_err() {
                break;
            }
        }
        to.shutdown().await.ok();
    };
    tokio::join!(outward, inward);
}

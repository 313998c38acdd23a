//! The services behind a session, as the builder calls them.

use std::future::Future;
use std::io::Write as _;
use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use http::{Request, Response};
use rorqual_build::Error;
use rorqual_core::{Classify as _, ErrorKind, full_message};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, UnboundedReceiverStream};
use tokio_stream::{Stream, StreamExt as _};
use tonic::body::Body;
use tonic::metadata::MetadataMap;
use tonic::{Code, Status, Streaming};
use tower_service::Service as _;

use super::lend::{Lent, OutputTarget};
use crate::files::{
    self, Batch, DirectorySink, LocalTree, Received, Receiver, Selection, serve_tree,
};
use crate::percent;
use crate::server::Healthy;
use crate::transport::{self, LARGEST_MESSAGE};
use crate::wire::{Packet, dirsync, filesync, health, secrets, ssh};

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;
type Answer = Pin<Box<dyn Future<Output = Response<Body>> + Send>>;

/// All services of a session.
#[derive(Clone)]
pub(super) struct Services {
    lent: Lender,
}

#[derive(Clone)]
struct Lender(Arc<Lent>);

impl Services {
    pub(super) fn new(lent: Lent) -> Self {
        Self { lent: Lender(Arc::new(lent)) }
    }
}

impl transport::Services for Services {
    fn call(&self, request: Request<Body>) -> Answer {
        let path = request.uri().path().to_owned();
        let lent = self.lent.clone();
        let answer = match path.rsplit_once('/').map(|(service, _)| service) {
            Some("/moby.filesync.v1.FileSync") => {
                dirsync::file_sync_server::FileSyncServer::new(lent)
                    .max_decoding_message_size(LARGEST_MESSAGE)
                    .call(request)
            }
            Some("/moby.filesync.v1.FileSend") => {
                // One name for two forms of messages: files, or bytes.
                match lent.0.takes_files(output_id(request.headers())) {
                    Some(true) => dirsync::file_send_server::FileSendServer::new(lent)
                        .max_decoding_message_size(LARGEST_MESSAGE)
                        .call(request),
                    _ => filesync::file_send_server::FileSendServer::new(lent)
                        .max_decoding_message_size(LARGEST_MESSAGE)
                        .call(request),
                }
            }
            Some("/moby.filesync.v1.Auth") => {
                filesync::auth_server::AuthServer::new(lent).call(request)
            }
            Some("/moby.buildkit.secrets.v1.Secrets") => {
                secrets::secrets_server::SecretsServer::new(lent).call(request)
            }
            Some("/moby.sshforward.v1.SSH") => ssh::ssh_server::SshServer::new(lent).call(request),
            Some("/containerd.services.content.v1.Content") => {
                return Box::pin(super::blobs::call(lent.0, request));
            }
            Some("/grpc.health.v1.Health") => {
                health::health_server::HealthServer::new(Healthy).call(request)
            }
            _ => return Box::pin(async move { transport::unimplemented(&path) }),
        };
        Box::pin(async move { answer.await.unwrap_or_else(|never| match never {}) })
    }
}

fn output_id(headers: &http::HeaderMap) -> usize {
    let id = headers.get("buildkit-attachable-exporter-id");
    id.and_then(|id| id.to_str().ok()?.parse().ok()).unwrap_or_default()
}

fn failed(error: &Error) -> Status {
    let code = match error.kind() {
        ErrorKind::NotFound => Code::NotFound,
        ErrorKind::InvalidArgument => Code::InvalidArgument,
        ErrorKind::Forbidden => Code::PermissionDenied,
        ErrorKind::Cancelled => Code::Cancelled,
        _ => Code::Unknown,
    };
    Status::new(code, full_message(error))
}

/// Reads a list of header values, percent-encoded when another header says so.
fn values(metadata: &MetadataMap, name: &str) -> Vec<String> {
    let is_encoded = metadata
        .get(format!("{name}-encoded"))
        .is_some_and(|flag| matches!(flag.as_bytes(), b"1" | b"true"));
    let values = metadata.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.map(|value| if is_encoded { percent::decode(value) } else { value.to_owned() }).collect()
}

/// Passes packets of a call on as a queue.
fn packets(incoming: Streaming<Packet>) -> mpsc::Receiver<Batch> {
    let (sender, receiver) = files::queue();
    // How it ended the other side knows best.
    tokio::spawn(async move { files::hand_on(incoming, sender).await.ok() });
    receiver
}

#[async_trait]
impl dirsync::file_sync_server::FileSync for Lender {
    type DiffCopyStream = Answers<Packet>;
    type TarStreamStream = Answers<Packet>;

    async fn diff_copy(
        &self,
        request: tonic::Request<Streaming<Packet>>,
    ) -> Result<tonic::Response<Self::DiffCopyStream>, Status> {
        let metadata = request.metadata();
        let name = values(metadata, "dir-name").into_iter().next().unwrap_or_default();
        let selection = Selection {
            include: values(metadata, "include-patterns"),
            exclude: values(metadata, "exclude-patterns"),
            follow: values(metadata, "followpaths"),
        };
        let Some(path) = self.0.directories.get(&name).cloned() else {
            return Err(Status::not_found(format!("no access allowed to dir {name:?}")));
        };
        let tree = tokio::task::spawn_blocking(move || LocalTree::open(&path, selection)).await;
        let tree = tree.unwrap_or(Err(Error::Cancelled)).map_err(|error| failed(&error))?;
        let incoming = packets(request.into_inner());
        let (outgoing, answers) = files::queue();
        tokio::spawn(async move {
            if let Err(error) = serve_tree(Arc::new(tree), incoming, outgoing).await {
                tracing::debug!(error = full_message(&error), "a transfer failed");
            }
        });
        Ok(tonic::Response::new(Box::pin(files::stream(answers).map(Ok))))
    }

    async fn tar_stream(
        &self,
        _: tonic::Request<Streaming<Packet>>,
    ) -> Result<tonic::Response<Self::TarStreamStream>, Status> {
        Err(Status::unimplemented("directories are sent with DiffCopy"))
    }
}

#[async_trait]
impl dirsync::file_send_server::FileSend for Lender {
    type DiffCopyStream = Answers<Packet>;

    async fn diff_copy(
        &self,
        request: tonic::Request<Streaming<Packet>>,
    ) -> Result<tonic::Response<Self::DiffCopyStream>, Status> {
        let id = output_id(&request.metadata().clone().into_headers());
        let Some(OutputTarget::Directory(path)) = self.0.output(id, Some(true)) else {
            return Err(Status::not_found(format!("exporter {id} not found")));
        };
        let mut incoming = packets(request.into_inner());
        let (replies, answers) = mpsc::unbounded_channel();
        tokio::task::spawn_blocking(move || {
            let written = DirectorySink::open(&path).and_then(|sink| {
                let mut receiver = Receiver::new(Box::new(sink));
                for packet in std::iter::from_fn(|| incoming.blocking_recv()).flatten() {
                    match receiver.take(packet)? {
                        Received::Nothing => {}
                        Received::Reply(reply) => {
                            replies.send(Ok(reply)).map_err(|_| Error::Cancelled)?;
                        }
                        Received::Finished => return Ok(()),
                    }
                }
                Err(Error::Cancelled)
            });
            if let Err(error) = written {
                replies.send(Err(failed(&error))).ok();
            }
        });
        Ok(tonic::Response::new(Box::pin(UnboundedReceiverStream::new(answers))))
    }
}

#[async_trait]
impl filesync::file_send_server::FileSend for Lender {
    type DiffCopyStream = Answers<filesync::BytesMessage>;

    async fn diff_copy(
        &self,
        request: tonic::Request<Streaming<filesync::BytesMessage>>,
    ) -> Result<tonic::Response<Self::DiffCopyStream>, Status> {
        let headers = request.metadata().clone().into_headers();
        let id = output_id(&headers);
        let Some(OutputTarget::Stream(open)) = self.0.output(id, Some(false)) else {
            return Err(Status::not_found(format!("exporter {id} not found")));
        };
        let facts = headers.iter().filter_map(|(name, value)| {
            let name = name.as_str().strip_prefix("exporter-md-")?;
            Some((name.to_owned(), value.to_str().ok()?.to_owned()))
        });
        let facts = facts.collect();
        let io = |error: std::io::Error| Status::unknown(error.to_string());
        let mut target = open(facts).map_err(io)?;
        let mut incoming = request.into_inner();
        while let Some(message) = incoming.message().await? {
            let written = tokio::task::spawn_blocking(move || {
                target.write_all(&message.data).map(|()| target)
            });
            target = written.await.map_err(|_| Status::aborted("stopped"))?.map_err(io)?;
        }
        let flushed = tokio::task::spawn_blocking(move || target.flush()).await;
        flushed.map_err(|_| Status::aborted("stopped"))?.map_err(io)?;
        Ok(tonic::Response::new(Box::pin(tokio_stream::empty())))
    }
}

#[async_trait]
impl filesync::auth_server::Auth for Lender {
    async fn credentials(
        &self,
        request: tonic::Request<filesync::CredentialsRequest>,
    ) -> Result<tonic::Response<filesync::CredentialsResponse>, Status> {
        let host = request.into_inner().host;
        let found = match &self.0.credentials {
            Some(source) => source.credentials(&host).await.map_err(Status::unknown)?,
            None => None,
        };
        let answer = found.map_or_else(filesync::CredentialsResponse::default, |found| {
            filesync::CredentialsResponse { username: found.username, secret: found.secret }
        });
        Ok(tonic::Response::new(answer))
    }

    async fn fetch_token(
        &self,
        _: tonic::Request<filesync::FetchTokenRequest>,
    ) -> Result<tonic::Response<filesync::FetchTokenResponse>, Status> {
        Err(Status::unimplemented("tokens are fetched by the builder, with the login"))
    }

    async fn get_token_authority(
        &self,
        _: tonic::Request<filesync::GetTokenAuthorityRequest>,
    ) -> Result<tonic::Response<filesync::GetTokenAuthorityResponse>, Status> {
        Err(Status::unavailable("client side tokens disabled"))
    }

    async fn verify_token_authority(
        &self,
        _: tonic::Request<filesync::VerifyTokenAuthorityRequest>,
    ) -> Result<tonic::Response<filesync::VerifyTokenAuthorityResponse>, Status> {
        Err(Status::unavailable("client side tokens disabled"))
    }
}

#[async_trait]
impl secrets::secrets_server::Secrets for Lender {
    async fn get_secret(
        &self,
        request: tonic::Request<secrets::GetSecretRequest>,
    ) -> Result<tonic::Response<secrets::GetSecretResponse>, Status> {
        let id = request.into_inner().id;
        let found = self.0.secrets.get(&id);
        let found = found.ok_or_else(|| Status::not_found(format!("secret {id}: not found")))?;
        Ok(tonic::Response::new(secrets::GetSecretResponse { data: found.0.clone() }))
    }
}

#[async_trait]
impl ssh::ssh_server::Ssh for Lender {
    type ForwardAgentStream = Answers<ssh::BytesMessage>;

    async fn check_agent(
        &self,
        request: tonic::Request<ssh::CheckAgentRequest>,
    ) -> Result<tonic::Response<ssh::CheckAgentResponse>, Status> {
        let id = request.into_inner().id;
        self.agent(&id)?;
        Ok(tonic::Response::new(ssh::CheckAgentResponse {}))
    }

    async fn forward_agent(
        &self,
        request: tonic::Request<Streaming<ssh::BytesMessage>>,
    ) -> Result<tonic::Response<Self::ForwardAgentStream>, Status> {
        let id = values(request.metadata(), "buildkit.ssh.id").into_iter().next();
        let path = self.agent(&id.unwrap_or_default())?.to_owned();
        let socket = tokio::net::UnixStream::connect(&path).await.map_err(|error| {
            Status::unavailable(format!(
                "cannot reach the ssh agent at {}: {error}",
                path.display()
            ))
        })?;
        let (mut from, mut to) = socket.into_split();
        let mut incoming = request.into_inner();
        tokio::spawn(async move {
            while let Ok(Some(message)) = incoming.message().await {
                if to.write_all(&message.data).await.is_err() {
                    break;
                }
            }
        });
        let (sender, answers) = mpsc::channel(4);
        tokio::spawn(async move {
            let mut buf = vec![0; 32 << 10];
            while let Ok(count @ 1..) = from.read(&mut buf).await {
                let data = buf[..count].to_vec();
                if sender.send(Ok(ssh::BytesMessage { data })).await.is_err() {
                    break;
                }
            }
        });
        Ok(tonic::Response::new(Box::pin(ReceiverStream::new(answers))))
    }
}

impl Lender {
    fn agent(&self, id: &str) -> Result<&std::path::Path, Status> {
        let id = if id.is_empty() { "default" } else { id };
        let found = self.0.agents.get(id).map(std::path::PathBuf::as_path);
        found.ok_or_else(|| Status::not_found(format!("unset ssh forward key {id}")))
    }
}

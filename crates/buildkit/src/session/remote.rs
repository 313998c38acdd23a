//! A client's session seen from the daemon: the build's contract on one side, calls on the other.

use std::io::Read;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use rorqual_build::solver::FailedStep;
use rorqual_build::{
    AgentStream, BlobSource, Error, Login, OutputSink, SecretValue, Session, SyncRequest, TreeSink,
    Upload,
};
use rorqual_core::ErrorKind;
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, UnboundedReceiverStream};
use tokio_util::sync::CancellationToken;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code, Request, Status};

use super::{Greeting, agent, output};
use crate::files::{self, Batch, Received, Receiver};
use crate::spool::Spooled;
use crate::transport::{Caller, LARGEST_MESSAGE};
use crate::wire::{Packet, dirsync, filesync, secrets, upload};

/// LIMIT: as clients bound it.
const LARGEST_SECRET: usize = 500 << 10;

/// A client's session.
pub struct RemoteSession {
    greeting: Greeting,
    caller: Caller,
    closed: CancellationToken,
    /// Where trees wait that are sent file by file.
    spool: Arc<Path>,
    failed: Mutex<Option<Arc<FailedStep>>>,
}

impl RemoteSession {
    pub(super) const fn new(
        greeting: Greeting,
        caller: Caller,
        closed: CancellationToken,
        spool: Arc<Path>,
    ) -> Self {
        Self { greeting, caller, closed, spool, failed: Mutex::new(None) }
    }

    /// Returns the token that fires when the client goes away.
    pub fn closed(&self) -> CancellationToken {
        self.closed.clone()
    }

    /// Keeps a step that failed for as long as the client is there.
    pub(crate) fn keep_failed(&self, step: FailedStep) {
        let mut failed = self.lock_failed();
        // INVARIANT: what was kept before the end is let go by it, and nothing is kept behind it.
        if !self.closed.is_cancelled() {
            *failed = Some(Arc::new(step));
        }
    }

    /// Returns the step that failed, when one is kept.
    pub(crate) fn failed_step(&self) -> Option<Arc<FailedStep>> {
        self.lock_failed().clone()
    }

    /// Lets go what is kept; called once the client has gone.
    pub(super) fn forget_failed(&self) {
        let failed = self.lock_failed().take();
        drop(failed);
    }

    fn lock_failed(&self) -> MutexGuard<'_, Option<Arc<FailedStep>>> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn offers(&self, method: &str) -> bool {
        self.greeting.methods.contains(method)
    }

    /// Waits for an answer for as long as the client is there.
    pub(super) async fn alive<T>(
        &self,
        answer: impl Future<Output = Result<T, Status>>,
    ) -> Result<T, Status> {
        tokio::select! {
            answer = answer => answer,
            () = self.closed.cancelled() => Err(Status::cancelled("the client went away")),
        }
    }

    pub(super) fn failed(&self, action: String, status: &Status) -> Error {
        if self.closed.is_cancelled() {
            return Error::Cancelled;
        }
        let kind = match status.code() {
            Code::NotFound => ErrorKind::NotFound,
            Code::InvalidArgument => ErrorKind::InvalidArgument,
            Code::PermissionDenied => ErrorKind::Forbidden,
            Code::Unimplemented => ErrorKind::Unsupported,
            _ => ErrorKind::Internal,
        };
        Error::Other { action, kind, source: status.message().to_owned().into() }
    }

    pub(super) fn caller(&self) -> Caller {
        self.caller.clone()
    }

    pub(super) fn require(&self, method: &str, what: &str) -> Result<(), Error> {
        if self.offers(method) {
            return Ok(());
        }
        Err(Error::Unsupported(format!("the client does not offer {what} in its session")))
    }
}

pub(super) fn header(value: &str) -> MetadataValue<tonic::metadata::Ascii> {
    MetadataValue::try_from(value).unwrap_or_else(|_| MetadataValue::from_static(""))
}

/// Adds a list of values; those outside of ASCII travel percent-encoded, which another header says.
fn add_values(metadata: &mut MetadataMap, name: &'static str, values: &[String]) {
    let is_plain = values.iter().all(|value| value.is_ascii() && !value.contains(['\n', '\r']));
    if !is_plain {
        let flag = tonic::metadata::MetadataKey::from_bytes(format!("{name}-encoded").as_bytes());
        if let Ok(flag) = flag {
            metadata.insert(flag, MetadataValue::from_static("1"));
        }
    }
    for value in values {
        let value = if is_plain { value.clone() } else { crate::percent::encode(value) };
        metadata.append(name, header(&value));
    }
}

#[async_trait]
impl Session for RemoteSession {
    fn id(&self) -> &str {
        &self.greeting.id
    }

    fn shared_key(&self) -> String {
        self.greeting.shared_key.clone()
    }

    async fn sync(&self, request: SyncRequest, sink: Box<dyn TreeSink>) -> Result<(), Error> {
        self.require("/moby.filesync.v1.filesync/diffcopy", "directories")?;
        // The number of requests is bounded by that of the announced files, so this cannot grow without bound; were
        // it bounded itself, both ends could wait for each other.
        let (replies, to_client) = mpsc::unbounded_channel();
        let mut call = Request::new(UnboundedReceiverStream::new(to_client));
        let metadata = call.metadata_mut();
        add_values(metadata, "include-patterns", &request.include);
        add_values(metadata, "exclude-patterns", &request.exclude);
        add_values(metadata, "followpaths", &request.follow);
        add_values(metadata, "dir-name", std::slice::from_ref(&request.name));
        let mut client = dirsync::file_sync_client::FileSyncClient::new(self.caller.clone())
            .max_decoding_message_size(LARGEST_MESSAGE);
        let action = || format!("receive the directory {:?} of the client", request.name);
        let incoming = self.alive(client.diff_copy(call)).await;
        let incoming = incoming.map_err(|status| self.failed(action(), &status))?.into_inner();

        let (packets, queue) = files::queue();
        let told = replies.clone();
        let disk = tokio::task::spawn_blocking(move || receive(sink, queue, &told));
        let network = self.alive(files::hand_on(incoming, packets)).await;
        let disk = disk.await.unwrap_or(Err(Error::Cancelled));
        if self.closed.is_cancelled() {
            return Err(Error::Cancelled);
        }
        match (disk, network) {
            (Err(Error::Cancelled), Err(status)) => Err(self.failed(action(), &status)),
            (Err(error), _) => {
                let packet = Packet {
                    r#type: crate::wire::PacketType::PacketErr as i32,
                    data: rorqual_core::full_message(&error).into_bytes(),
                    ..Packet::default()
                };
                replies.send(packet).ok();
                Err(error)
            }
            // The end of the stream is of no interest once everything has come.
            (Ok(()), _) => Ok(()),
        }
    }

    async fn secret(&self, id: &str) -> Result<Option<SecretValue>, Error> {
        if !self.offers("/moby.buildkit.secrets.v1.secrets/getsecret") {
            return Ok(None);
        }
        let mut client = secrets::secrets_client::SecretsClient::new(self.caller.clone());
        let request =
            secrets::GetSecretRequest { id: id.to_owned(), ..secrets::GetSecretRequest::default() };
        match self.alive(client.get_secret(request)).await {
            Ok(answer) => {
                let data = answer.into_inner().data;
                if data.len() > LARGEST_SECRET {
                    let message = format!("invalid secret size {}", data.len());
                    return Err(Error::Invalid { message, location: None });
                }
                Ok(Some(SecretValue(data)))
            }
            Err(status) if status.code() == Code::NotFound => Ok(None),
            Err(status) => Err(self.failed(format!("get the secret {id:?}"), &status)),
        }
    }

    async fn login(&self, host: &str) -> Result<Option<Login>, Error> {
        if !self.offers("/moby.filesync.v1.auth/credentials") {
            return Ok(None);
        }
        let mut client = filesync::auth_client::AuthClient::new(self.caller.clone());
        let request = filesync::CredentialsRequest { host: host.to_owned() };
        let answer = self.alive(client.credentials(request)).await;
        let answer = answer
            .map_err(|status| self.failed(format!("ask for the login of {host}"), &status))?;
        let answer = answer.into_inner();
        let is_none = answer.username.is_empty() && answer.secret.is_empty();
        Ok((!is_none).then_some(Login { username: answer.username, secret: answer.secret }))
    }

    async fn agent(&self, id: &str) -> Result<Option<Box<dyn AgentStream>>, Error> {
        if !self.offers("/moby.sshforward.v1.ssh/forwardagent") {
            return Ok(None);
        }
        let id = if id.is_empty() { "default" } else { id };
        let opened = self.alive(agent::open(self.caller.clone(), id)).await;
        opened.map_err(|status| self.failed(format!("reach the ssh agent {id:?}"), &status))
    }

    fn blobs(self: Arc<Self>, store: &str) -> Option<Box<dyn BlobSource>> {
        let store = super::ContentStore::open(self, &format!("oci:{store}")).ok()?;
        Some(Box::new(store))
    }

    async fn upload(&self, path: &str) -> Result<Upload, Error> {
        self.require("/moby.upload.v1.upload/pull", "uploads")?;
        let (sender, messages) = mpsc::channel(1);
        let mut call = Request::new(ReceiverStream::new(messages));
        call.metadata_mut().insert("urlpath", header(path));
        call.metadata_mut().insert("urlhost", MetadataValue::from_static("buildkit-session"));
        let mut client = upload::upload_client::UploadClient::new(self.caller.clone())
            .max_decoding_message_size(LARGEST_MESSAGE);
        let action = format!("receive the upload {path} of the client");
        let answer = self.alive(client.pull(call)).await;
        let stream = answer.map_err(|status| self.failed(action.clone(), &status))?.into_inner();
        let closed = self.closed.clone();
        // The call lasts as long as our end of it is open.
        let state = (stream, sender, closed, action);
        let pieces = futures_util::stream::try_unfold(state, async |mut state| {
            let message = tokio::select! {
                message = state.0.message() => message,
                () = state.2.cancelled() => return Err(Error::Cancelled),
            };
            let message = message.map_err(|status| Error::Other {
                action: state.3.clone(),
                kind: ErrorKind::Unavailable,
                source: status.message().to_owned().into(),
            })?;
            Ok(message.map(|message| (message.data, state)))
        });
        Ok(Box::pin(pieces))
    }

    async fn output(&self, id: &str) -> Result<Box<dyn OutputSink>, Error> {
        self.require("/moby.filesync.v1.filesend/diffcopy", "a receiver of outputs")?;
        Ok(output::open(self.caller.clone(), id, self.closed.clone()))
    }

    async fn send_tree(&self, id: &str, tree: Box<dyn Read + Send>) -> Result<(), Error> {
        self.require("/moby.filesync.v1.filesend/diffcopy", "a receiver of outputs")?;
        let directory = Arc::clone(&self.spool);
        let spooled = tokio::task::spawn_blocking(move || Spooled::new(tree, &directory)).await;
        let spooled = Arc::new(spooled.unwrap_or(Err(Error::Cancelled))?);
        let (outgoing, to_client) = files::queue();
        let mut call = Request::new(files::stream(to_client));
        call.metadata_mut().insert(output::HEADER_ID, header(id));
        let mut client = dirsync::file_send_client::FileSendClient::new(self.caller.clone())
            .max_decoding_message_size(LARGEST_MESSAGE);
        let action = || "send files to the client".to_owned();
        let (packets, incoming) = files::queue();
        // ORDER: the head of the answer may come with its first message only, and that after ours.
        let network = async {
            let answer = self.alive(client.diff_copy(call)).await?.into_inner();
            self.alive(files::hand_on(answer, packets)).await
        };
        let serve = files::serve_tree(spooled, incoming, outgoing);
        tokio::pin!(network, serve);
        tokio::select! {
            served = &mut serve => served?,
            ended = &mut network => {
                ended.map_err(|status| self.failed(action(), &status))?;
                // The client may have hung up with its last word still in the queue, which ends there.
                return serve.await;
            }
        }
        network.await.map_err(|status| self.failed(action(), &status))
    }
}

/// Feeds packets to the sink on a thread that may block.
fn receive(
    sink: Box<dyn TreeSink>,
    mut queue: mpsc::Receiver<Batch>,
    replies: &mpsc::UnboundedSender<Packet>,
) -> Result<(), Error> {
    let mut receiver = Receiver::new(sink);
    for packet in std::iter::from_fn(|| queue.blocking_recv()).flatten() {
        match receiver.take(packet)? {
            Received::Nothing => {}
            Received::Reply(reply) => {
                replies.send(reply).map_err(|_| Error::Cancelled)?;
            }
            Received::Finished => return Ok(()),
        }
    }
    Err(Error::Cancelled)
}

//! A directory of blobs that is lent to a build: an OCI layout, read and added to.

use std::fs::File;
use std::future::Future;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;

use http::{Request, Response};
use rorqual_core::Digest;
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::server::{Grpc, ServerStreamingService, StreamingService, UnaryService};
use tonic::{Status, Streaming};
use tonic_prost::ProstCodec;

use super::lend::Lent;
use crate::content::{
    Action, HEADER_STORE, INFO, Info, InfoRequest, InfoResponse, READ, ReadRequest, ReadResponse,
    WRITE, WriteRequest, WriteResponse,
};
use crate::transport::{self, LARGEST_MESSAGE};

/// LIMIT: pieces on their way, and bytes of one, below the 4 MiB that gRPC takes.
const QUEUE: usize = 4;
const PIECE: usize = 1 << 20;

type Answering<T> = Pin<Box<dyn Future<Output = Result<tonic::Response<T>, Status>> + Send>>;

/// Answers calls about blobs.
#[derive(Clone)]
struct Blobs(Arc<Lent>);

/// Answers one call of the content service.
pub(super) async fn call(lent: Arc<Lent>, request: Request<Body>) -> Response<Body> {
    let blobs = Blobs(lent);
    match request.uri().path() {
        INFO => Grpc::new(ProstCodec::default()).unary(blobs, request).await,
        READ => Grpc::new(ProstCodec::default()).server_streaming(blobs, request).await,
        WRITE => {
            Grpc::new(ProstCodec::default())
                .apply_max_message_size_config(Some(LARGEST_MESSAGE), None)
                .streaming(blobs, request)
                .await
        }
        path => transport::unimplemented(path),
    }
}

fn failed(error: &io::Error) -> Status {
    match error.kind() {
        io::ErrorKind::NotFound => Status::not_found("content not found"),
        _ => Status::unknown(error.to_string()),
    }
}

impl Blobs {
    /// Finds the directory that a call means.
    fn directory<T>(&self, request: &tonic::Request<T>) -> Result<PathBuf, Status> {
        let store = request.metadata().get(HEADER_STORE).and_then(|store| store.to_str().ok());
        let store = store.unwrap_or_default();
        let found = self.0.stores.get(store).cloned();
        found.ok_or_else(|| Status::not_found(format!("unknown store {store:?}")))
    }
}

/// Where a blob lies; a digest has nothing in it that could lead elsewhere.
fn place(directory: &Path, digest: &Digest) -> PathBuf {
    directory.join("blobs").join(digest.algorithm().name()).join(digest.hex())
}

fn digest(text: &str) -> Result<Digest, Status> {
    text.parse().map_err(|_| Status::invalid_argument(format!("{text:?} is no digest")))
}

impl UnaryService<InfoRequest> for Blobs {
    type Response = InfoResponse;
    type Future = Answering<InfoResponse>;

    fn call(&mut self, request: tonic::Request<InfoRequest>) -> Self::Future {
        let directory = self.directory(&request);
        Box::pin(async move {
            let text = request.into_inner().digest;
            let place = place(&directory?, &digest(&text)?);
            let found = tokio::fs::metadata(place).await.map_err(|error| failed(&error))?;
            let size = i64::try_from(found.len()).unwrap_or(i64::MAX);
            Ok(tonic::Response::new(InfoResponse { info: Some(Info { digest: text, size }) }))
        })
    }
}

impl ServerStreamingService<ReadRequest> for Blobs {
    type Response = ReadResponse;
    type ResponseStream = ReceiverStream<Result<ReadResponse, Status>>;
    type Future = Answering<Self::ResponseStream>;

    fn call(&mut self, request: tonic::Request<ReadRequest>) -> Self::Future {
        let directory = self.directory(&request);
        Box::pin(async move {
            let request = request.into_inner();
            let place = place(&directory?, &digest(&request.digest)?);
            let file = tokio::fs::File::open(place).await.map_err(|error| failed(&error))?;
            let mut file = file.into_std().await;
            let (sender, receiver) = mpsc::channel(QUEUE);
            tokio::task::spawn_blocking(move || read(&mut file, &request, &sender));
            Ok(tonic::Response::new(ReceiverStream::new(receiver)))
        })
    }
}

fn read(file: &mut File, request: &ReadRequest, to: &mpsc::Sender<Result<ReadResponse, Status>>) {
    use io::Seek as _;
    let mut offset = request.offset.max(0);
    let mut left = if request.size > 0 { request.size } else { i64::MAX };
    let mut next = || -> io::Result<Option<ReadResponse>> {
        file.seek(io::SeekFrom::Start(offset.cast_unsigned()))?;
        let mut data = Vec::with_capacity(PIECE);
        let most = left.min(PIECE as i64).cast_unsigned();
        let count = (&mut *file).take(most).read_to_end(&mut data)? as i64;
        let answer = ReadResponse { offset, data };
        offset += count;
        left -= count;
        Ok((count > 0).then_some(answer))
    };
    loop {
        let piece = match next() {
            Ok(Some(piece)) => Ok(piece),
            Ok(None) => return,
            Err(error) => Err(failed(&error)),
        };
        let is_over = piece.is_err();
        if to.blocking_send(piece).is_err() || is_over {
            return;
        }
    }
}

impl StreamingService<WriteRequest> for Blobs {
    type Response = WriteResponse;
    type ResponseStream = ReceiverStream<Result<WriteResponse, Status>>;
    type Future = Answering<Self::ResponseStream>;

    fn call(&mut self, request: tonic::Request<Streaming<WriteRequest>>) -> Self::Future {
        let directory = self.directory(&request);
        Box::pin(async move {
            let directory = directory?;
            let mut incoming = request.into_inner();
            let (sender, receiver) = mpsc::channel(QUEUE);
            tokio::spawn(async move {
                let mut part = None;
                loop {
                    let Ok(Some(message)) = incoming.message().await else { return };
                    let (directory, current) = (directory.clone(), part.take());
                    let taken = tokio::task::spawn_blocking(move || {
                        Part::take(current, &directory, message)
                    });
                    let answer = match taken.await {
                        Ok(Ok((rest, answer))) => {
                            part = rest;
                            Ok(answer)
                        }
                        Ok(Err(status)) => Err(status),
                        Err(_) => return,
                    };
                    let is_over = answer.is_err() || part.is_none();
                    if sender.send(answer).await.is_err() || is_over {
                        return;
                    }
                }
            });
            Ok(tonic::Response::new(ReceiverStream::new(receiver)))
        })
    }
}

/// A blob that is being written.
struct Part {
    file: tempfile::NamedTempFile,
    hash: Sha256,
    offset: i64,
}

impl Part {
    fn begin(directory: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(directory.join("ingest"))?;
        let file = tempfile::NamedTempFile::new_in(directory.join("ingest"))?;
        Ok(Self { file, hash: Sha256::new(), offset: 0 })
    }

    /// Takes a message; returns the blob unless it is done, and the answer.
    fn take(
        part: Option<Self>,
        directory: &Path,
        message: WriteRequest,
    ) -> Result<(Option<Self>, WriteResponse), Status> {
        let mut part = match part {
            Some(part) => part,
            None => Self::begin(directory).map_err(|error| failed(&error))?,
        };
        if !message.data.is_empty() {
            if message.offset != part.offset {
                return Err(Status::out_of_range("a piece of the blob is missing"));
            }
            part.file.write_all(&message.data).map_err(|error| failed(&error))?;
            part.hash.update(&message.data);
            part.offset += message.data.len() as i64;
        }
        let mut answer = WriteResponse {
            action: message.action,
            offset: part.offset,
            total: message.total,
            digest: String::new(),
        };
        if message.action != Action::Commit as i32 {
            return Ok((Some(part), answer));
        }
        let own = Digest::sha256(part.hash.finalize().into());
        let is_expected = message.expected.is_empty() || message.expected == own.to_string();
        if !is_expected || (message.total > 0 && message.total != part.offset) {
            return Err(Status::failed_precondition(format!(
                "unexpected digest {own}, expected {}",
                message.expected
            )));
        }
        let place = place(directory, &own);
        let keep = || -> io::Result<()> {
            if let Some(parent) = place.parent() {
                std::fs::create_dir_all(parent)?;
            }
            // A directory of blobs is for everybody who may read the directory.
            let mode = std::fs::Permissions::from_mode(0o644);
            part.file.as_file().set_permissions(mode)?;
            part.file.persist(&place).map(drop).map_err(|error| error.error)
        };
        keep().map_err(|error| failed(&error))?;
        // Nobody else may be writing: then it stays.
        std::fs::remove_dir(directory.join("ingest")).ok();
        answer.digest = own.to_string();
        Ok((None, answer))
    }
}

#[cfg(test)]
mod tests;

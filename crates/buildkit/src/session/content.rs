//! A store of blobs that a client lends: a directory with an OCI layout, for caches and for contexts.

use std::io::{self, Read};
use std::sync::Arc;

use async_trait::async_trait;
use http::uri::PathAndQuery;
use rorqual_build::{BlobSource, Error};
use rorqual_core::{Digest, ErrorKind};
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::client::Grpc;
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;

use super::RemoteSession;
use super::remote::header;
use crate::content::{
    Action, HEADER_STORE, INFO, InfoRequest, InfoResponse, READ, ReadRequest, ReadResponse, WRITE,
    WriteRequest, WriteResponse,
};
use crate::transport::{Caller, LARGEST_MESSAGE};

/// LIMIT: pieces on their way, and bytes of one.
const QUEUE: usize = 8;
const PIECE: usize = 1 << 20;

/// A store of blobs at the client.
#[derive(Clone)]
pub struct ContentStore {
    session: Arc<RemoteSession>,
    store: String,
}

impl ContentStore {
    /// Opens a store by the name under which the client lends it (`local:PATH`, `oci:NAME`).
    ///
    /// # Errors
    ///
    /// When the client lends none.
    pub fn open(session: Arc<RemoteSession>, store: &str) -> Result<Self, Error> {
        session.require("/containerd.services.content.v1.content/read", "directories of blobs")?;
        Ok(Self { session, store: store.to_owned() })
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.metadata_mut().insert(HEADER_STORE, header(&self.store));
        request
    }

    async fn client(&self) -> Result<Grpc<Caller>, Status> {
        let mut client =
            Grpc::new(self.session.caller()).max_decoding_message_size(LARGEST_MESSAGE);
        let ready = client.ready().await;
        ready.map_err(|error| Status::unavailable(error.to_string()))?;
        Ok(client)
    }

    fn failed(&self, action: &str, digest: &Digest, status: &Status) -> Error {
        self.session
            .failed(format!("{action} blob {digest} of the client's {}", self.store), status)
    }

    /// Tells how large a blob is; `None` when it is not there.
    ///
    /// # Errors
    ///
    /// When the client cannot say.
    pub async fn size(&self, digest: &Digest) -> Result<Option<u64>, Error> {
        let ask = async {
            let mut client = self.client().await?;
            let codec = ProstCodec::<InfoRequest, InfoResponse>::default();
            let request = self.request(InfoRequest { digest: digest.to_string() });
            client.unary(request, PathAndQuery::from_static(INFO), codec).await
        };
        match self.session.alive(ask).await {
            Ok(answer) => {
                let info = answer.into_inner().info.unwrap_or_default();
                Ok(u64::try_from(info.size).ok())
            }
            Err(status) if status.code() == Code::NotFound => Ok(None),
            Err(status) => Err(self.failed("look for", digest, &status)),
        }
    }

    /// Reads a small blob whole, verified; fails beyond `limit` bytes.
    ///
    /// # Errors
    ///
    /// When it is not there, or another.
    pub async fn read(&self, digest: &Digest, limit: u64) -> Result<Vec<u8>, Error> {
        let mut pieces = self.pieces(digest).await?;
        let mut bytes = Vec::new();
        while let Some(piece) = pieces.recv().await {
            let piece = piece.map_err(|status| self.failed("read", digest, &status))?;
            if (bytes.len() + piece.len()) as u64 > limit {
                let message = format!("blob {digest} has more than {limit} bytes");
                return Err(Error::Invalid { message, location: None });
            }
            bytes.extend_from_slice(&piece);
        }
        let own = Digest::sha256(Sha256::digest(&bytes).into());
        if own != *digest {
            let message = format!("blob {digest} of the client is {own} in truth");
            return Err(Error::Invalid { message, location: None });
        }
        Ok(bytes)
    }

    async fn pieces(
        &self,
        digest: &Digest,
    ) -> Result<mpsc::Receiver<Result<Vec<u8>, Status>>, Error> {
        let ask = async {
            let mut client = self.client().await?;
            let codec = ProstCodec::<ReadRequest, ReadResponse>::default();
            let message = ReadRequest { digest: digest.to_string(), offset: 0, size: 0 };
            let path = PathAndQuery::from_static(READ);
            client.server_streaming(self.request(message), path, codec).await
        };
        let answer = self.session.alive(ask).await;
        let answer = answer.map_err(|status| self.failed("read", digest, &status))?;
        let mut stream = answer.into_inner();
        let (sender, receiver) = mpsc::channel(QUEUE);
        let session = Arc::clone(&self.session);
        tokio::spawn(async move {
            loop {
                let piece = match session.alive(stream.message()).await {
                    Ok(Some(piece)) => Ok(piece.data),
                    Ok(None) => break,
                    Err(status) => Err(status),
                };
                let is_over = piece.is_err();
                if sender.send(piece).await.is_err() || is_over {
                    break;
                }
            }
        });
        Ok(receiver)
    }

    /// Opens a blob for reading on a blocking thread, of at most so many bytes; its digest is for the reader to verify.
    ///
    /// # Errors
    ///
    /// When it is not there.
    pub async fn reader(&self, digest: &Digest, size: u64) -> Result<Box<dyn Read + Send>, Error> {
        let pieces = self.pieces(digest).await?;
        Ok(Box::new(Pieces { queue: pieces, piece: Vec::new(), at: 0 }.take(size)))
    }

    /// Writes a blob that the store lacks.
    ///
    /// # Errors
    ///
    /// When it cannot be read or written.
    pub async fn write(
        &self,
        digest: &Digest,
        size: u64,
        mut from: Box<dyn Read + Send>,
    ) -> Result<(), Error> {
        if self.size(digest).await? == Some(size) {
            return Ok(());
        }
        let total = i64::try_from(size).unwrap_or(i64::MAX);
        let name = format!("rorqual-{}", crate::random_id());
        let message = WriteRequest {
            r#ref: name,
            total,
            expected: digest.to_string(),
            ..WriteRequest::default()
        };
        let (sender, messages) = mpsc::channel(QUEUE);
        let reading = tokio::task::spawn_blocking(move || -> io::Result<()> {
            let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
            let of = |action: Action, offset: i64, data: Vec<u8>| WriteRequest {
                action: action as i32,
                offset,
                data,
                ..message.clone()
            };
            sender.blocking_send(of(Action::Stat, 0, Vec::new())).map_err(gone)?;
            let mut offset = 0;
            loop {
                let mut piece = Vec::with_capacity(PIECE);
                let count = (&mut from).take(PIECE as u64).read_to_end(&mut piece)?;
                if count == 0 {
                    break;
                }
                sender.blocking_send(of(Action::Write, offset, piece)).map_err(gone)?;
                offset += count as i64;
            }
            sender.blocking_send(of(Action::Commit, offset, Vec::new())).map_err(gone)
        });
        let write = async {
            let mut client = self.client().await?;
            let codec = ProstCodec::<WriteRequest, WriteResponse>::default();
            let request = self.request(ReceiverStream::new(messages));
            let path = PathAndQuery::from_static(WRITE);
            let mut answers = client.streaming(request, path, codec).await?.into_inner();
            while let Some(answer) = answers.message().await? {
                if answer.action == Action::Commit as i32 {
                    return Ok(());
                }
            }
            Err(Status::data_loss("the client did not say that it has the blob"))
        };
        let written = self.session.alive(write).await;
        let read = reading.await.map_err(|_| Error::Cancelled)?;
        match written {
            Ok(()) => Ok(()),
            // Somebody else has written the same meanwhile.
            Err(status) if status.code() == Code::AlreadyExists => Ok(()),
            Err(status) => match read {
                Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Error::Other {
                    action: format!("read blob {digest}"),
                    kind: ErrorKind::Internal,
                    source: error.into(),
                }),
                _ => Err(self.failed("write", digest, &status)),
            },
        }
    }
}

#[async_trait]
impl BlobSource for ContentStore {
    async fn read(&self, digest: &Digest, limit: u64) -> Result<Vec<u8>, Error> {
        Self::read(self, digest, limit).await
    }

    async fn open(&self, digest: &Digest, size: u64) -> Result<Box<dyn Read + Send>, Error> {
        self.reader(digest, size).await
    }
}

/// Pieces as a stream of bytes.
struct Pieces {
    queue: mpsc::Receiver<Result<Vec<u8>, Status>>,
    piece: Vec<u8>,
    at: usize,
}

impl Read for Pieces {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.at == self.piece.len() {
            match self.queue.blocking_recv() {
                Some(Ok(piece)) => (self.piece, self.at) = (piece, 0),
                Some(Err(status)) => return Err(io::Error::other(status.message().to_owned())),
                None => return Ok(0),
            }
        }
        let count = into.len().min(self.piece.len() - self.at);
        into[..count].copy_from_slice(&self.piece[self.at..self.at + count]);
        self.at += count;
        Ok(count)
    }
}

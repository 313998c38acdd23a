//! Storage in an object store: S3 and what speaks its protocol, Google's and Azure's, by the crate `object_store`.
//!
//! An upload is one object per request that added to it, named by where it begins. Committing copies it inside the store
//! when it came in one piece whose digest was computed on the way, and otherwise streams the pieces through this process,
//! so any process can finish what another began.

use std::collections::HashMap;
use std::ops::Range;
use std::path::Path as FilePath;
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    ObjectStore, ObjectStoreExt, PutMode, PutPayload, UpdateVersion, WriteMultipart,
};
use rorqual_core::{Algorithm, BoxError, Digest};

use super::{
    Content, Durability, Entry, Hasher, Meta, Object, Pieces, Storage, Swapped, too_large,
};
use crate::error::{Code, Error, Result};
use crate::name::key::UPLOADS;

/// The storage below one prefix of a bucket.
pub(crate) struct Cloud {
    store: Arc<dyn ObjectStore>,
    prefix: Path,
}

// LIMIT: bytes of a part of a multipart upload, and parts on their way at a time; together they bound an upload's memory,
// and 10,000 parts its size to 80 GB.
const PART: usize = 8 << 20;
const PARTS_AT_ONCE: usize = 2;
// LIMIT: S3 copies no larger objects in one call.
const COPY: u64 = 5 << 30;
// LIMIT: blobs up to this size are read at once.
const SMALL: u64 = 64 << 10;

fn failed(action: &str, key: &str) -> impl FnOnce(object_store::Error) -> Error {
    let action = format!("{action} {key} in the object store");
    move |source| Error::Storage { action, source: source.into() }
}

fn found<T>(result: Result<T, object_store::Error>) -> Result<Option<T>, object_store::Error> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(object_store::Error::NotFound { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

impl Cloud {
    /// Opens the bucket of a URL (`s3://`, `gs://`, `az://`, `memory://`); credentials and endpoints come from the
    /// environment, under the names that the providers' own tools use.
    pub(crate) fn open(location: &str) -> Result<Self> {
        let config =
            |error: String| Error::Config(format!("cannot use the storage {location:?}: {error}"));
        let url = reqwest::Url::parse(location).map_err(|error| config(error.to_string()))?;
        // Settings such as AWS_ENDPOINT_URL; what is no setting of the store's is left alone.
        let options: HashMap<String, String> = std::env::vars()
            .map(|(name, value)| (name.to_ascii_lowercase(), value))
            .filter(|(name, _)| {
                ["aws_", "azure_", "google_"].iter().any(|prefix| name.starts_with(prefix))
            })
            .collect();
        let (store, prefix) = object_store::parse_url_opts(&url, options)
            .map_err(|error| config(error.to_string()))?;
        Ok(Self { store: Arc::from(store), prefix })
    }

    #[cfg(test)]
    pub(crate) fn over(store: Arc<dyn ObjectStore>) -> Self {
        Self { store, prefix: Path::default() }
    }

    fn path(&self, key: &str) -> Path {
        key.split('/').fold(self.prefix.clone(), Path::join)
    }

    /// Streams pieces into an object, which becomes visible if `accept` likes its digest.
    #[expect(clippy::too_many_arguments, reason = "where from, where to, and what must hold")]
    async fn stream(
        &self,
        key: &str,
        mut pieces: Pieces,
        limit: u64,
        on_break: OnBreak,
        accept: impl FnOnce(&Sum) -> Result<()> + Send,
        algorithm: Algorithm,
    ) -> Result<(Sum, Option<Error>)> {
        let mut writer: Option<WriteMultipart> = None;
        // What comes first is held back: most objects fit into one request.
        let mut held: Vec<u8> = Vec::new();
        let (mut size, mut hasher) = (0, Hasher::new(algorithm));
        let mut broken: Option<Error> = None;
        while let Some(piece) = pieces.next().await {
            let piece = match piece {
                Ok(piece) if size + piece.len() as u64 <= limit => piece,
                Ok(_) => {
                    broken = Some(too_large(limit));
                    break;
                }
                Err(error) => {
                    broken = Some(Error::Body(error));
                    break;
                }
            };
            size += piece.len() as u64;
            hasher.update(&piece);
            if writer.is_none() && held.len() + piece.len() <= PART {
                held.extend_from_slice(&piece);
                continue;
            }
            if let Err(error) = self.add(key, &mut writer, &mut held, piece).await {
                abort(writer).await;
                return Err(error);
            }
        }
        let sum = Sum { size, digest: hasher.finish()? };
        let verdict = match broken.take_if(|_| on_break == OnBreak::Discard) {
            Some(error) => Err(error),
            None => accept(&sum),
        };
        if let Err(error) = verdict {
            abort(writer).await;
            return Err(error);
        }
        match writer {
            Some(writer) => writer.finish().await.map(drop).map_err(failed("write", key))?,
            None => self.put(key, held.into(), Durability::Durable).await?,
        }
        Ok((sum, broken))
    }

    /// Adds a piece to an upload of several parts, which begins with what was held back.
    async fn add(
        &self,
        key: &str,
        writer: &mut Option<WriteMultipart>,
        held: &mut Vec<u8>,
        piece: Bytes,
    ) -> Result<()> {
        let open = match writer {
            Some(open) => open,
            None => {
                let multipart = self.store.put_multipart(&self.path(key)).await;
                let multipart = multipart.map_err(failed("write", key))?;
                let open = writer.insert(WriteMultipart::new_with_chunk_size(multipart, PART));
                open.put(std::mem::take(held).into());
                open
            }
        };
        open.wait_for_capacity(PARTS_AT_ONCE).await.map_err(failed("write", key))?;
        open.put(piece);
        Ok(())
    }

    /// Lists the pieces of an upload: where each begins, how long it is.
    async fn parts(&self, upload: &str) -> Result<Vec<Part>> {
        let folder = format!("{UPLOADS}/{upload}");
        let mut parts = Vec::new();
        let mut end = 0;
        for entry in super::list_all(self, &folder).await? {
            let at = entry.name.strip_prefix("part-").and_then(|at| at.parse::<u64>().ok());
            let Some(offset) = at else { continue };
            // What does not join on was overtaken by another request.
            if offset == end {
                end += entry.meta.size;
                parts.push(Part { key: format!("{folder}/{}", entry.name), size: entry.meta.size });
            }
        }
        Ok(parts)
    }

    async fn sum(&self, upload: &str) -> Result<Option<Sum>> {
        let object = self.get(&format!("{UPLOADS}/{upload}/sum")).await?;
        Ok(object.and_then(|object| serde_json::from_slice(&object.bytes).ok()))
    }
}

async fn abort(writer: Option<WriteMultipart>) {
    if let Some(writer) = writer {
        // What stays behind is the bucket's to expire.
        writer.abort().await.ok();
    }
}

/// What to do with the bytes of a body that broke off.
#[derive(Clone, Copy, PartialEq, Eq)]
enum OnBreak {
    Keep,
    Discard,
}

/// Size and digest of what one request brought.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
struct Sum {
    size: u64,
    digest: Digest,
}

struct Part {
    key: String,
    size: u64,
}

#[async_trait]
impl Storage for Cloud {
    async fn get(&self, key: &str) -> Result<Option<Object>> {
        let got = found(self.store.get(&self.path(key)).await).map_err(failed("read", key))?;
        let Some(got) = got else { return Ok(None) };
        let modified = SystemTime::from(got.meta.last_modified);
        let bytes = got.bytes().await.map_err(failed("read", key))?;
        Ok(Some(Object { bytes, modified }))
    }

    async fn head(&self, key: &str) -> Result<Option<Meta>> {
        let meta = found(self.store.head(&self.path(key)).await).map_err(failed("look at", key))?;
        Ok(meta.map(|meta| Meta { size: meta.size, modified: meta.last_modified.into() }))
    }

    async fn put(&self, key: &str, bytes: Bytes, _: Durability) -> Result<()> {
        let put = self.store.put(&self.path(key), PutPayload::from_bytes(bytes)).await;
        put.map(drop).map_err(failed("write", key))
    }

    async fn swap(&self, key: &str, expected: Option<&[u8]>, bytes: Bytes) -> Result<Swapped> {
        use object_store::Error as E;
        let path = self.path(key);
        let mode = match expected {
            None => PutMode::Create,
            Some(expected) => {
                let got = found(self.store.get(&path).await).map_err(failed("read", key))?;
                let Some(got) = got else { return Ok(Swapped::Differs) };
                let (e_tag, version) = (got.meta.e_tag.clone(), got.meta.version.clone());
                if got.bytes().await.map_err(failed("read", key))? != expected {
                    return Ok(Swapped::Differs);
                }
                PutMode::Update(UpdateVersion { e_tag, version })
            }
        };
        match self.store.put_opts(&path, PutPayload::from_bytes(bytes), mode.into()).await {
            Ok(_) => Ok(Swapped::Done),
            Err(E::AlreadyExists { .. } | E::Precondition { .. } | E::NotFound { .. }) => {
                Ok(Swapped::Differs)
            }
            Err(E::NotImplemented { .. } | E::NotSupported { .. }) => Ok(Swapped::Unsupported),
            Err(error) => Err(failed("write", key)(error)),
        }
    }

    async fn delete(&self, key: &str) -> Result<()> {
        found(self.store.delete(&self.path(key)).await).map(drop).map_err(failed("remove", key))
    }

    async fn list(&self, folder: &str, after: Option<&str>, limit: usize) -> Result<Vec<Entry>> {
        let path = self.path(folder);
        let offset = after.map(|after| path.clone().join(after));
        let mut entries = match offset {
            Some(offset) => self.store.list_with_offset(Some(&path), &offset),
            None => self.store.list(Some(&path)),
        };
        let mut listed = Vec::new();
        while let Some(meta) = entries.try_next().await.map_err(failed("list", folder))? {
            let Some(mut rest) = meta.location.prefix_match(&path) else { continue };
            let (Some(name), None) = (rest.next(), rest.next()) else { continue };
            let name = name.as_ref().to_owned();
            let meta = Meta { size: meta.size, modified: meta.last_modified.into() };
            listed.push(Entry { name, meta });
        }
        // The store of the tests knows no order.
        listed.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        listed.truncate(limit);
        Ok(listed)
    }

    async fn folders(&self, folder: &str) -> Result<Vec<String>> {
        let listed = self.store.list_with_delimiter(Some(&self.path(folder))).await;
        let prefixes = listed.map_err(failed("list", folder))?.common_prefixes;
        let mut names: Vec<String> =
            prefixes.iter().filter_map(|path| path.filename().map(str::to_owned)).collect();
        names.sort_unstable();
        Ok(names)
    }

    async fn open(&self, key: &str, range: Range<u64>) -> Result<Content> {
        let path = self.path(key);
        if range.is_empty() {
            return Ok(Content::Bytes(Bytes::new()));
        }
        if range.end - range.start <= SMALL {
            let bytes = self.store.get_range(&path, range).await;
            return bytes.map(Content::Bytes).map_err(failed("read", key));
        }
        let options = object_store::GetOptions { range: Some(range.into()), ..Default::default() };
        let got = self.store.get_opts(&path, options).await.map_err(failed("read", key))?;
        Ok(Content::Pieces(got.into_stream().map_err(BoxError::from).boxed()))
    }

    async fn append(&self, upload: &str, offset: u64, pieces: Pieces, limit: u64) -> Result<u64> {
        let stands = self.length(upload).await?;
        if stands != offset {
            let text = format!("the upload stands at {stands}, not at {offset}");
            return Err(Error::refused(Code::BlobUploadRange, text));
        }
        let mut pieces = pieces.peekable();
        if std::pin::Pin::new(&mut pieces).peek().await.is_none() {
            return Ok(offset);
        }
        let key = format!("{UPLOADS}/{upload}/part-{offset:020}");
        let room = limit.saturating_sub(offset);
        let streamed =
            self.stream(&key, pieces.boxed(), room, OnBreak::Keep, |_| Ok(()), Algorithm::Sha256);
        let (sum, broken) = streamed.await?;
        let end = offset + sum.size;
        if offset == 0 {
            let text = serde_json::to_vec(&sum).unwrap_or_default();
            let key = format!("{UPLOADS}/{upload}/sum");
            self.put(&key, text.into(), Durability::Volatile).await?;
        }
        broken.map_or(Ok(end), Err)
    }

    async fn length(&self, upload: &str) -> Result<u64> {
        Ok(self.parts(upload).await?.iter().map(|part| part.size).sum())
    }

    async fn commit(&self, upload: &str, digest: &Digest, key: &str) -> Result<u64> {
        let parts = self.parts(upload).await?;
        let sum = self.sum(upload).await?;
        let wrong =
            |found: &Digest| Error::WrongDigest { expected: digest.clone(), found: found.clone() };
        let committed = match (&*parts, sum) {
            ([part], Some(sum))
                if sum.size == part.size
                    && sum.digest.algorithm() == digest.algorithm()
                    && sum.size < COPY =>
            {
                if sum.digest == *digest {
                    let (from, to) = (self.path(&part.key), self.path(key));
                    let copied = self.store.copy(&from, &to).await;
                    copied.map(|()| sum.size).map_err(failed("write", key))
                } else {
                    Err(wrong(&sum.digest))
                }
            }
            _ => {
                let accept = |sum: &Sum| {
                    if sum.digest == *digest { Ok(()) } else { Err(wrong(&sum.digest)) }
                };
                let joined = self.joined(parts);
                let algorithm = digest.algorithm();
                let streamed =
                    self.stream(key, joined, u64::MAX, OnBreak::Discard, accept, algorithm).await;
                streamed.map(|(sum, _)| sum.size)
            }
        };
        if matches!(committed, Ok(_) | Err(Error::WrongDigest { .. })) {
            self.discard(upload).await?;
        }
        committed
    }

    async fn discard(&self, upload: &str) -> Result<()> {
        let folder = format!("{UPLOADS}/{upload}");
        for entry in super::list_all(self, &folder).await? {
            self.delete(&format!("{folder}/{}", entry.name)).await?;
        }
        Ok(())
    }

    async fn adopt(&self, file: &FilePath, key: &str) -> Result<()> {
        let failed = |error: std::io::Error| Error::io(format!("read {}", file.display()), error);
        let opened = tokio::fs::File::open(file).await.map_err(failed)?;
        let pieces = tokio_util::io::ReaderStream::with_capacity(opened, 256 << 10)
            .map_err(BoxError::from)
            .boxed();
        let algorithm = Algorithm::Sha256;
        self.stream(key, pieces, u64::MAX, OnBreak::Discard, |_| Ok(()), algorithm).await?;
        Ok(())
    }
}

impl Cloud {
    /// The bytes of all parts, one after the other.
    fn joined(&self, parts: Vec<Part>) -> Pieces {
        let (store, prefix) = (Arc::clone(&self.store), self.prefix.clone());
        futures_util::stream::iter(parts)
            .then(move |part| {
                let cloud = Self { store: Arc::clone(&store), prefix: prefix.clone() };
                async move {
                    match cloud.open(&part.key, 0..part.size).await {
                        Ok(Content::Pieces(pieces)) => pieces,
                        Ok(Content::Bytes(bytes)) => one(Ok(bytes)),
                        Ok(Content::File(..)) => one(Err("not a file".into())),
                        Err(error) => one(Err(error.into())),
                    }
                }
            })
            .flatten()
            .boxed()
    }
}

fn one(piece: Result<Bytes, BoxError>) -> Pieces {
    futures_util::stream::iter([piece]).boxed()
}

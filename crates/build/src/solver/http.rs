//! Files from addresses: fetched once, checked, and made a layer of one file. A server that tags its content is asked whether
//! it changed; a file with a checksum that is known already is not asked for at all.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use futures_util::StreamExt as _;
use rorqual_core::{Algorithm, Digest, ErrorKind};
use rorqual_snapshot::{CopyEdit, Edit, FileTree, Owner, Selection};
use rorqual_transfer::{RemoteAnswer, RemoteError, RemoteFile};
use sha2::{Digest as _, Sha256};
use tokio::io::AsyncWriteExt;

use super::State;
use super::cache::{CacheKind, Entry, now};
use super::files::{Scratch, failed};
use super::flight::Audience;
use super::key::Keyed;
use super::walk::Walk;
use crate::Error;
use crate::contract::{Upload, new_snapshot_id};
use crate::error::other;
use crate::graph::HttpSource;

/// LIMIT: bytes of one file; what is larger is no source of a build.
const LARGEST: u64 = 64 << 30;
/// How many bytes come between two pieces of news.
const NEWS: u64 = 1 << 20;

/// A directory of ours for what comes from outside; it goes when this does.
pub(crate) struct Arrival(PathBuf);

impl Arrival {
    pub(crate) fn new(walk: &Walk) -> Result<Self, Error> {
        let home = walk.inner.parts.directory.join("arrivals");
        let path = home.join(new_snapshot_id()?.to_string());
        std::os::unix::fs::DirBuilderExt::mode(&mut std::fs::DirBuilder::new(), 0o700)
            .create(&path)
            .map_err(other(format!("make {}", path.display())))?;
        Ok(Self(path))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Arrival {
    fn drop(&mut self) {
        let path = self.0.clone();
        let remove = move || {
            if let Err(error) = std::fs::remove_dir_all(&path) {
                tracing::warn!(%error, path = %path.display(), "cannot remove a download");
            }
        };
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(remove)),
            Err(_) => remove(),
        }
    }
}

/// COMPAT: how clients name what they upload.
const UPLOADS: &str = "http://buildkit-session/";

/// A file on its way.
enum Incoming {
    Remote(RemoteFile),
    Upload(Upload),
}

impl Incoming {
    fn length(&self) -> u64 {
        match self {
            Self::Remote(file) => file.length.unwrap_or_default(),
            Self::Upload(_) => 0,
        }
    }

    fn modified(&self) -> SystemTime {
        match self {
            Self::Remote(file) => file.modified.unwrap_or(SystemTime::UNIX_EPOCH),
            Self::Upload(_) => SystemTime::UNIX_EPOCH,
        }
    }

    fn etag(&self) -> String {
        match self {
            Self::Remote(file) => file.etag.clone().unwrap_or_default(),
            Self::Upload(_) => String::new(),
        }
    }

    async fn piece(&mut self, url: &str) -> Result<Option<bytes::Bytes>, Error> {
        match self {
            Self::Remote(file) => file.piece().await.map_err(|error| Error::Other {
                action: format!("fetch {url}"),
                kind: ErrorKind::Unavailable,
                source: error.into(),
            }),
            Self::Upload(upload) => {
                upload.next().await.transpose().map(|piece| piece.map(Into::into))
            }
        }
    }
}

/// Brings a file; tells whether it was here.
pub(crate) async fn bring(
    walk: &Walk,
    http: &HttpSource,
    audience: &Audience,
) -> Result<(State, bool), Error> {
    if let Some(digest) = http.checksum.as_ref().filter(|it| it.algorithm() != Algorithm::Sha256) {
        return Err(Error::Unsupported(format!(
            "{}: the checksum {digest} is not of sha256, and others are not computed here",
            http.url
        )));
    }
    let address = Keyed::new("http").with(format!("{http:?}").as_bytes()).digest();
    let cache = &walk.inner.parts.cache;
    let known = walk.known(address.hex()).await?;
    let upload = http.url.strip_prefix(UPLOADS);
    // What a client uploads it sends once, under an address of its own.
    if let Some(state) = known.as_ref().filter(|_| http.checksum.is_some() || upload.is_some()) {
        return Ok((state.clone(), true));
    }
    let tag = cache.get(address.hex()).map(|entry| entry.tag).filter(|tag| !tag.is_empty());
    let tag = tag.filter(|_| known.is_some());
    let mut file = match upload {
        Some(path) => {
            let session = walk.job.session.clone();
            let session = session.ok_or_else(|| Error::NotFound {
                message: format!("{}: no client uploads it", http.url),
                location: None,
            })?;
            Incoming::Upload(session.upload(&format!("/{path}")).await?)
        }
        None => {
            let answer = walk.inner.parts.transfer.fetch_file(&http.url, tag.as_deref()).await;
            match (answer.map_err(|error| unreachable(&http.url, error))?, known) {
                (RemoteAnswer::Same, Some(state)) => return Ok((state, true)),
                (RemoteAnswer::Same, None) => {
                    let message =
                        format!("{}: the server says that nothing changed, unasked", http.url);
                    return Err(Error::Invalid { message, location: None });
                }
                (RemoteAnswer::File(file), _) => Incoming::Remote(file),
            }
        }
    };
    let arrival = Arrival::new(walk)?;
    let name = file_name(http);
    let digest = download(&mut file, http, &arrival.path().join(&name), audience).await?;
    if let Some(wanted) = http.checksum.as_ref().filter(|wanted| **wanted != digest) {
        // COMPAT: BuildKit's text.
        let message = format!("digest mismatch {digest}: {wanted}");
        return Err(Error::Invalid { message, location: None });
    }
    let modified = file.modified();
    let seconds = modified.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |age| age.as_secs());
    let content = Keyed::new("http-content")
        .with(digest.hex().as_bytes())
        .with(name.as_bytes())
        .with(format!("{:?} {:?} {seconds}", http.mode, http.owner).as_bytes())
        .digest();
    let (state, cached) = match walk.known(content.hex()).await? {
        Some(state) => (state, true),
        None => (layer(walk, http, (&arrival, &name), seconds).await?, false),
    };
    for (key, tag) in [(&content, None), (&address, Some(file.etag()))] {
        walk.note(key.hex(), CacheKind::SourceHttp, &http.url, (&state, tag)).await?;
    }
    Ok((state, cached))
}

fn unreachable(url: &str, error: RemoteError) -> Error {
    match error {
        // COMPAT: BuildKit's text.
        RemoteError::Refused(status) => Error::NotFound {
            message: format!("invalid response status {}", status.as_u16()),
            location: None,
        },
        RemoteError::Address(_) => Error::Invalid { message: error.to_string(), location: None },
        RemoteError::Unreachable(_) => Error::Other {
            action: format!("fetch {url}"),
            kind: ErrorKind::Unavailable,
            source: error.into(),
        },
    }
}

/// The name that the file gets: one name, of no directory.
fn file_name(http: &HttpSource) -> String {
    let path = http.url.split(['?', '#']).next().unwrap_or_default();
    let path = path.splitn(4, '/').nth(3).unwrap_or_default();
    let name = http.filename.as_deref().unwrap_or(path);
    match name.rsplit('/').next().unwrap_or_default() {
        // COMPAT: BuildKit's name.
        "" | "." | ".." => "download".to_owned(),
        // LIMIT: what file systems take.
        name => name.chars().take(60).collect(),
    }
}

/// Writes the file and takes its digest. Dropping the future ends the transfer.
async fn download(
    file: &mut Incoming,
    http: &HttpSource,
    path: &Path,
    audience: &Audience,
) -> Result<Digest, Error> {
    let too_large = || Error::Invalid {
        message: format!("{}: larger than the {LARGEST} bytes that a build takes", http.url),
        location: None,
    };
    let total = file.length();
    if total > LARGEST {
        return Err(too_large());
    }
    let writing = || other(format!("write {}", path.display()));
    let mut to = tokio::fs::File::create_new(path).await.map_err(writing())?;
    let (mut digest, mut done, mut told) = (Sha256::new(), 0, 0);
    while let Some(piece) = file.piece(&http.url).await? {
        done += piece.len() as u64;
        if done > LARGEST {
            return Err(too_large());
        }
        digest.update(&piece);
        to.write_all(&piece).await.map_err(writing())?;
        if done - told >= NEWS {
            told = done;
            audience.status(&http.url, done, total, false);
        }
    }
    to.flush().await.map_err(writing())?;
    audience.status(&http.url, done, total.max(done), true);
    let modified = file.modified();
    let to = to.into_std().await;
    // COMPAT: a file without a time is of the epoch, so that the same bytes make the same layer.
    to.set_modified(whole_seconds(modified)).map_err(writing())?;
    Ok(Digest::sha256(digest.finalize().into()))
}

fn whole_seconds(time: SystemTime) -> SystemTime {
    let age = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    SystemTime::UNIX_EPOCH + Duration::from_secs(age.as_secs())
}

/// Makes a layer of the file alone.
async fn layer(
    walk: &Walk,
    http: &HttpSource,
    (arrival, name): (&Arrival, &str),
    created: u64,
) -> Result<State, Error> {
    let (user, group) = http.owner.unwrap_or_default();
    let copy = CopyEdit {
        from: FileTree::Directory(arrival.path().to_owned()),
        selection: everything(format!("/{name}")),
        target: format!("/{name}"),
        owner: Owner::Ids(user, group),
        mode: Some(format!("{:o}", http.mode.unwrap_or(0o600) & 0o7777)),
        contents_only: false,
        unpack: false,
        make_parents: false,
        replace: false,
        created: i64::try_from(created).ok(),
    };
    commit(walk, copy).await
}

/// Picks all of a path.
pub(crate) fn everything(source: String) -> Selection {
    Selection {
        source,
        wildcard: false,
        allow_empty: false,
        follow: false,
        parents: false,
        filter: None,
        owners: false,
    }
}

/// Makes a layer of one copy.
pub(crate) async fn commit(walk: &Walk, copy: CopyEdit) -> Result<State, Error> {
    let scratch = Scratch::new(walk, &[]).await?;
    let edits = vec![Edit::Copy(Box::new(copy))];
    let edited = walk.inner.parts.workbench.edit(&scratch.id, edits).await;
    edited.map_err(|error| failed("take in what was fetched", error))?;
    scratch.commit(walk, &[]).await
}

impl Walk {
    /// Finds a source that was brought before.
    pub(crate) async fn known(&self, key: &str) -> Result<Option<State>, Error> {
        let parts = &self.inner.parts;
        let found = parts.cache.find(key, parts).await?;
        let state = |(layers, held)| State::layers_held(layers, held);
        Ok(found.and_then(|outputs| outputs.into_iter().next()).map(state))
    }

    /// Remembers a source: by its content, or by where it was found, with the tag of its server.
    pub(crate) async fn note(
        &self,
        key: &str,
        kind: CacheKind,
        description: &str,
        (state, tag): (&State, Option<String>),
    ) -> Result<(), Error> {
        let parts = &self.inner.parts;
        let mut size = 0;
        // What is known by two keys is there once.
        if tag.is_none()
            && let Some(layer) = state.layers().last()
        {
            let known = parts.snapshots.find_layer(layer).await;
            size = known.map_err(other("measure a layer"))?.map_or(0, |info| info.size);
        }
        let before = parts.cache.get(key);
        parts
            .cache
            .put(Entry {
                key: key.to_owned(),
                kind,
                description: description.to_owned(),
                outputs: vec![state.layers().to_vec()],
                directory: String::new(),
                tag: tag.unwrap_or_default(),
                size,
                created: before.as_ref().map_or_else(now, |entry| entry.created),
                used: now(),
                uses: before.map_or(1, |entry| entry.uses + 1),
            })
            .await
    }
}

#[cfg(test)]
mod tests;

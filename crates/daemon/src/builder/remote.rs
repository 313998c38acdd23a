//! Contexts of classic builds: an archive of the client, or what lies at an address: an archive, a Dockerfile alone, a git
//! repository.

use std::collections::BTreeSet;
use std::io::{Cursor, Read};
use std::sync::Arc;

use rorqual_build::dockerfile::{ContextKind, MAX_SOURCE, context_kind};
use rorqual_build::solver::Job;
use rorqual_build::{Error, Graph, Input, Op, Progress, ProgressSink, Vertex};
use rorqual_core::{ErrorKind, Platform};
use rorqual_store::blocking;
use rorqual_transfer::{RemoteAnswer, RemoteError, Transfer};
use tokio_util::sync::CancellationToken;

use super::Builder;
use super::context::Unpacked;

/// What tells an archive from a text.
const HEAD: usize = 512;
/// The file that a lone Dockerfile becomes.
const LONE: &str = "Dockerfile";

/// Where a context comes from.
pub(crate) enum Origin {
    /// With the request.
    Archive(Box<dyn Read + Send>),
    /// From an address.
    Remote(String),
}

/// Nobody hears of what happens before the build begins.
struct Unheard;

impl ProgressSink for Unheard {
    fn tell(&self, _: Progress) {}
}

/// Brings a context; returns the name of the Dockerfile where that was all that came.
pub(super) async fn bring(
    builder: &Builder,
    id: &str,
    origin: Origin,
    token: &CancellationToken,
) -> Result<(Unpacked, Option<String>), Error> {
    let archive = match origin {
        Origin::Archive(archive) => archive,
        Origin::Remote(address) => match context_kind(&address)? {
            ContextKind::Git(reference) => git(builder, id, reference.source(None), token).await?,
            ContextKind::Url(url) => match fetch(&*builder.images.transfer, &url).await? {
                Fetched::Archive(archive) => archive,
                Fetched::Dockerfile(text) => {
                    let (home, id) = (builder.contexts.clone(), id.to_owned());
                    let made = blocking(move || Unpacked::lone(&home, &id, LONE, &text)).await;
                    return Ok((made?, Some(LONE.to_owned())));
                }
            },
            ContextKind::Local(_) => {
                return Err(Error::Invalid {
                    message: format!(
                        "remote={address}: need the address of an archive, a Dockerfile (http, https) or a git repository"
                    ),
                    location: None,
                });
            }
        },
    };
    let context = Unpacked::new(&builder.contexts, id, archive, &builder.workbench).await?;
    Ok((context, None))
}

enum Fetched {
    Archive(Box<dyn Read + Send>),
    Dockerfile(Vec<u8>),
}

async fn fetch(transfer: &dyn Transfer, url: &str) -> Result<Fetched, Error> {
    let broken = |kind, source| Error::Other { action: format!("download {url}"), kind, source };
    let answer = transfer.fetch_file(url, None).await.map_err(|error| {
        let kind = match error {
            RemoteError::Address(_) => ErrorKind::InvalidArgument,
            RemoteError::Refused(_) => ErrorKind::NotFound,
            RemoteError::Unreachable(_) => ErrorKind::Unavailable,
        };
        broken(kind, error.into())
    })?;
    let RemoteAnswer::File(file) = answer else {
        return Err(broken(ErrorKind::Unavailable, "nothing has come".into()));
    };
    let mut reader = file.into_reader();
    let read = blocking(move || -> std::io::Result<Fetched> {
        let mut head = Vec::new();
        reader.by_ref().take(HEAD as u64).read_to_end(&mut head)?;
        if !is_text(&head) {
            return Ok(Fetched::Archive(Box::new(Cursor::new(head).chain(reader))));
        }
        // One more than allowed, so that what is too long is seen to be.
        reader.take(MAX_SOURCE as u64 + 1).read_to_end(&mut head)?;
        Ok(Fetched::Dockerfile(head))
    });
    read.await.map_err(|error| broken(ErrorKind::Unavailable, error.into()))
}

/// Archives have bytes that no text has, plain ones as compressed ones.
fn is_text(head: &[u8]) -> bool {
    let is_odd = |byte: &u8| *byte < 0x20 && !b"\t\n\r\x0c\x1b".contains(byte);
    !head.is_empty() && !head.iter().any(is_odd)
}

/// Fetches a repository, and reads it as an archive.
async fn git(
    builder: &Builder,
    id: &str,
    source: rorqual_build::GitSource,
    token: &CancellationToken,
) -> Result<Box<dyn Read + Send>, Error> {
    let mut graph = Graph::default();
    let vertex = graph.add(Vertex {
        name: format!("load git source {}", source.remote),
        op: Op::Git(source),
        platform: Platform::host(),
        ignore_cache: false,
        location: None,
    })?;
    let job = Job {
        id: id.to_owned(),
        session: None,
        progress: Arc::new(Unheard),
        cancel: token.clone(),
        entitlements: BTreeSet::new(),
        explain: false,
        imports: Vec::new(),
        recorder: None,
        failed: None,
    };
    let building = builder.solver.begin(Arc::new(graph), &job);
    let state = building.state(Input::of(vertex)).await?;
    builder.solver.tar(&state, None).await
}

#[cfg(test)]
mod tests {
    use super::is_text;

    #[test]
    fn a_dockerfile_is_text_and_an_archive_is_not() {
        assert!(is_text("# caf\u{e9}\nFROM busybox\r\n\tRUN x\n".as_bytes()));
        let mut header = [0; 512];
        header[..4].copy_from_slice(b"name");
        let archives: [&[u8]; 4] = [&header, b"\x1f\x8b\x08rest", b"\x28\xb5\x2f\xfd\x00", b""];
        for archive in archives {
            assert!(!is_text(archive), "{archive:?}");
        }
    }
}

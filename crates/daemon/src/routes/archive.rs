//! Files into and out of containers.

use std::io::Read;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::StatusCode;
use http::header::HeaderValue;
use rorqual_api::container::PathStat;
use rorqual_http::{Answer, RequestBody, body};
use rorqual_snapshot::{ArchiveStat, Extract};

use crate::context::{ArchiveSlot, Context};
use crate::error::invalid;
use crate::request::{ApiRequest, Result, empty, refuse, typed};

const STAT_HEADER: &str = "x-docker-container-path-stat";

fn path(request: &ApiRequest) -> Result<String> {
    match request.query.text("path") {
        // COMPAT: dockerd's text.
        "" => refuse(invalid("bad parameter: 'path' cannot be empty")),
        path if path.contains('\0') => {
            refuse(invalid("bad parameter: 'path' contains a null byte"))
        }
        path => Ok(path.to_owned()),
    }
}

/// Writes mode bits as Go's `os.FileMode` has them.
fn go_mode(mode: u32) -> u32 {
    let kind = match mode & 0o170_000 {
        0o040_000 => 1 << 31,
        0o120_000 => 1 << 27,
        0o060_000 => 1 << 26,
        0o020_000 => 1 << 26 | 1 << 21,
        0o010_000 => 1 << 25,
        0o140_000 => 1 << 24,
        _ => 0,
    };
    let special = [(0o4000, 1 << 23), (0o2000, 1 << 22), (0o1000, 1 << 20)];
    let special = special.iter().filter(|(bit, _)| mode & bit != 0);
    special.fold(kind | mode & 0o777, |all, (_, go)| all | go)
}

fn with_stat(answer: Answer, stat: &ArchiveStat) -> Answer {
    let ArchiveStat { name, size, mode, mtime, link_target } = stat;
    let document = PathStat {
        name: name.clone(),
        size: *size as i64,
        mode: go_mode(*mode),
        mtime: mtime.to_string(),
        link_target: link_target.clone(),
    };
    let Answer::Response(mut response) = answer else { return answer };
    let text = serde_json::to_vec(&document).unwrap_or_default();
    if let Ok(value) = HeaderValue::try_from(STANDARD.encode(text)) {
        response.headers_mut().insert(STAT_HEADER, value);
    }
    Answer::Response(response)
}

/// An archive that is read by a client, with its slot.
pub(super) struct Held<R> {
    archive: R,
    _slot: ArchiveSlot,
}

impl<R> Held<R> {
    pub(super) const fn new(archive: R, slot: ArchiveSlot) -> Self {
        Self { archive, _slot: slot }
    }
}

impl<R: Read> Read for Held<R> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        self.archive.read(buf)
    }
}

/// `HEAD /containers/{id}/archive`
pub(super) async fn stat(context: Arc<Context>, request: ApiRequest) -> Result {
    let path = path(&request)?;
    let stat = context.engine.containers.stat_path(request.param("id"), &path).await?;
    Ok(with_stat(empty(StatusCode::OK)?, &stat))
}

/// `GET /containers/{id}/archive`
pub(super) async fn get(context: Arc<Context>, request: ApiRequest) -> Result {
    let path = path(&request)?;
    let slot = context.archive_slot().await?;
    let (stat, archive) = context.engine.containers.archive(request.param("id"), &path).await?;
    let archive = body::reader(Held { archive, _slot: slot });
    Ok(with_stat(typed(StatusCode::OK, "application/x-tar", archive)?, &stat))
}

/// `PUT /containers/{id}/archive`
pub(super) async fn put(context: Arc<Context>, mut request: ApiRequest) -> Result {
    let path = path(&request)?;
    let how = Extract {
        no_overwrite_dir_non_dir: request.query.flag("noOverwriteDirNonDir"),
        copy_uid_gid: request.query.flag("copyUIDGID"),
        read_only: false,
    };
    let _slot = context.archive_slot().await?;
    let archive = std::mem::replace(&mut request.body, RequestBody::from_bytes("")).into_reader();
    context.engine.containers.extract(request.param("id"), &path, archive, how).await?;
    empty(StatusCode::OK)
}

/// `GET /containers/{id}/export`
pub(super) async fn export(context: Arc<Context>, request: ApiRequest) -> Result {
    let slot = context.archive_slot().await?;
    let archive = context.engine.containers.export(request.param("id")).await?;
    let archive = body::reader(Held { archive, _slot: slot });
    typed(StatusCode::OK, "application/octet-stream", archive)
}

#[cfg(test)]
mod tests;

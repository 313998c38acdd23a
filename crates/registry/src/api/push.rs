//! Pushing: uploads of blobs, manifests, and deletion.

use std::sync::Arc;

use futures_util::StreamExt;
use http::header::{self, HeaderName};
use http::{Response, StatusCode};
use rorqual_core::{Algorithm, Digest};
use rorqual_http::{Body, RequestBody, TooLarge};

use super::{DIGEST, SUBJECT, TAG, Target, UPLOAD_ID, tell};
use crate::app::{App, Exchange, answer as respond};
use crate::error::{Code, Error, Result};
use crate::name::{Name, Reference, Tag, digest};

// LIMIT: tags of one push; the specification asks for ten at least.
const TAGS: usize = 100;

/// `POST /v2/<name>/blobs/uploads/`: mounts, takes a whole blob, or begins an upload
pub(super) async fn begin(
    app: &Arc<App>,
    exchange: &Exchange,
    name: &Name,
    body: RequestBody,
) -> Result<Response<Body>> {
    let query = exchange.query();
    if let Some(mount) = query.find("mount") {
        let wanted = digest(mount)?;
        let from = query.find("from").and_then(|from| from.parse::<Name>().ok());
        if let Some(from) = from
            && app.repositories.mount(&from, name, &wanted).await?
        {
            let (action, size) = ("mount", 0);
            let media_type = "application/octet-stream";
            let (tag, from) = (None, Some(from.to_string()));
            let target = Target { action, name, digest: &wanted, media_type, size, tag, from };
            tell(app, exchange, target);
            return Ok(created_blob(name, &wanted));
        }
        // It cannot be mounted: an ordinary upload begins.
    }
    let algorithm = match query.find("digest-algorithm") {
        None => None,
        Some("sha256") => Some(Algorithm::Sha256),
        Some("sha512") => Some(Algorithm::Sha512),
        Some(other) => {
            let text = format!("the digest algorithm {other:?} is not supported");
            return Err(Error::refused(Code::DigestInvalid, text));
        }
    };
    let whole = query.find("digest").map(digest).transpose()?;
    let upload = app.repositories.begin_upload(name, algorithm).await?;
    let Some(wanted) = whole else {
        return Ok(accepted(name, &upload, 0));
    };
    let taken = take(app, exchange, name, &upload, body, &wanted).await;
    if taken.is_err() {
        // Nobody knows its address, so nobody can go on with it.
        app.repositories.cancel(name, &upload).await.ok();
    }
    taken
}

#[expect(clippy::too_many_arguments, reason = "what the request names, and its body")]
async fn take(
    app: &Arc<App>,
    exchange: &Exchange,
    name: &Name,
    upload: &str,
    body: RequestBody,
    wanted: &Digest,
) -> Result<Response<Body>> {
    if !body.is_end() {
        app.repositories.append(name, upload, None, body.into_stream().boxed()).await?;
    }
    let size = app.repositories.commit(name, upload, wanted).await?;
    let (action, media_type) = ("push", "application/octet-stream");
    let (tag, from) = (None, None);
    tell(app, exchange, Target { action, name, digest: wanted, media_type, size, tag, from });
    Ok(created_blob(name, wanted))
}

fn created_blob(name: &Name, digest: &Digest) -> Response<Body> {
    let headers =
        [(header::LOCATION, format!("/v2/{name}/blobs/{digest}")), (DIGEST, digest.to_string())];
    respond(StatusCode::CREATED, headers, "")
}

fn upload_headers(name: &Name, upload: &str, stands: u64) -> [(HeaderName, String); 3] {
    // COMPAT: the range of nothing is written like that of one byte.
    let end = stands.saturating_sub(1);
    [
        (header::LOCATION, format!("/v2/{name}/blobs/uploads/{upload}")),
        (header::RANGE, format!("0-{end}")),
        (UPLOAD_ID, upload.to_owned()),
    ]
}

fn accepted(name: &Name, upload: &str, stands: u64) -> Response<Body> {
    respond(StatusCode::ACCEPTED, upload_headers(name, upload, stands), "")
}

/// `GET` of an upload: where it stands
pub(super) async fn status(app: &App, name: &Name, upload: &str) -> Result<Response<Body>> {
    let stands = app.repositories.upload_length(name, upload).await?;
    Ok(respond(StatusCode::NO_CONTENT, upload_headers(name, upload, stands), ""))
}

/// `DELETE` of an upload
pub(super) async fn cancel(app: &App, name: &Name, upload: &str) -> Result<Response<Body>> {
    app.repositories.cancel(name, upload).await?;
    Ok(respond(StatusCode::NO_CONTENT, [], ""))
}

/// Reads `Content-Range: 0-99` and checks it against the length of the body.
fn chunk_start(exchange: &Exchange) -> Result<Option<u64>> {
    let Some(text) = exchange.header(&header::CONTENT_RANGE) else { return Ok(None) };
    let invalid =
        |code, text: &str| Error::refused(code, format!("invalid Content-Range {text:?}"));
    // Some clients write it as RFC 9110 has it.
    let bare = text.trim().trim_start_matches("bytes").trim();
    let bare = bare.split('/').next().unwrap_or_default();
    let ends = bare
        .split_once('-')
        .and_then(|(first, last)| Some((first.parse::<u64>().ok()?, last.parse::<u64>().ok()?)));
    let Some((first, last)) = ends.filter(|(first, last)| first <= last) else {
        return Err(invalid(Code::BlobUploadRange, text));
    };
    let length = exchange.header(&header::CONTENT_LENGTH).and_then(|text| text.parse::<u64>().ok());
    if length.is_some_and(|length| length != last - first + 1) {
        return Err(invalid(Code::SizeInvalid, text));
    }
    Ok(Some(first))
}

/// `PATCH` of an upload: a chunk, or all as a stream
pub(super) async fn chunk(
    app: &Arc<App>,
    exchange: &Exchange,
    name: &Name,
    upload: &str,
    body: RequestBody,
) -> Result<Response<Body>> {
    let start = chunk_start(exchange)?;
    let pieces = body.into_stream().boxed();
    let stands = app.repositories.append(name, upload, start, pieces).await?;
    Ok(accepted(name, upload, stands))
}

/// `PUT` of an upload: the last chunk, if any, and the digest
pub(super) async fn finish(
    app: &Arc<App>,
    exchange: &Exchange,
    name: &Name,
    upload: &str,
    body: RequestBody,
) -> Result<Response<Body>> {
    let query = exchange.query();
    let wanted = query.find("digest").ok_or_else(|| {
        Error::refused(Code::DigestInvalid, "the upload's digest is missing: ?digest=…")
    })?;
    let wanted = digest(wanted)?;
    let start = chunk_start(exchange)?;
    if !body.is_end() {
        app.repositories.append(name, upload, start, body.into_stream().boxed()).await?;
    }
    take(app, exchange, name, upload, RequestBody::from_bytes(""), &wanted).await
}

/// `PUT` of a manifest
pub(super) async fn manifest(
    app: &Arc<App>,
    exchange: &Exchange,
    name: &Name,
    reference: &Reference,
    body: RequestBody,
) -> Result<Response<Body>> {
    let query = exchange.query();
    let more = query.all("tag").map(str::parse).collect::<Result<Vec<Tag>>>()?;
    if more.len() > TAGS {
        let text = format!("more than {TAGS} tags at once");
        return Err(Error::refused(Code::TooManyTags, text));
    }
    let most = app.config.limits.manifest.0;
    let bytes = body.bytes(most as usize).await.map_err(|error| {
        if error.is::<TooLarge>() {
            let text = format!("the manifest is larger than {most} bytes");
            return Error::refused(Code::ManifestTooLarge, text);
        }
        Error::Body(error)
    })?;
    let kind = exchange.header(&header::CONTENT_TYPE);
    let stored = app.repositories.put_manifest(name, reference, &more, kind, bytes).await?;
    let mut headers = vec![
        (header::LOCATION, format!("/v2/{name}/manifests/{}", stored.digest)),
        (DIGEST, stored.digest.to_string()),
    ];
    headers.extend(stored.subject.as_ref().map(|subject| (SUBJECT, subject.to_string())));
    headers.extend(more.iter().map(|tag| (TAG, tag.to_string())));
    let tag = match reference {
        Reference::Tag(tag) => Some(tag.to_string()),
        Reference::Digest(_) => more.first().map(ToString::to_string),
    };
    let target = Target {
        action: "push",
        name,
        digest: &stored.digest,
        media_type: &stored.media_type,
        size: stored.size,
        tag,
        from: None,
    };
    tell(app, exchange, target);
    Ok(respond(StatusCode::CREATED, headers, ""))
}

/// `DELETE` of a manifest or tag
pub(super) async fn delete_manifest(
    app: &App,
    exchange: &Exchange,
    name: &Name,
    reference: &Reference,
) -> Result<Response<Body>> {
    let digest = app.repositories.delete_manifest(name, reference).await?;
    let tag = match reference {
        Reference::Tag(tag) => Some(tag.to_string()),
        Reference::Digest(_) => None,
    };
    let (action, media_type, size, from) = ("delete", "", 0, None);
    tell(app, exchange, Target { action, name, digest: &digest, media_type, size, tag, from });
    Ok(respond(StatusCode::ACCEPTED, [], ""))
}

/// `DELETE` of a blob
pub(super) async fn delete_blob(
    app: &App,
    exchange: &Exchange,
    name: &Name,
    digest: &Digest,
) -> Result<Response<Body>> {
    app.repositories.delete_blob(name, digest).await?;
    let (action, media_type, size, tag, from) = ("delete", "", 0, None, None);
    tell(app, exchange, Target { action, name, digest, media_type, size, tag, from });
    Ok(respond(StatusCode::ACCEPTED, [], ""))
}

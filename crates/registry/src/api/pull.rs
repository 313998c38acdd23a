//! Pulling manifests and blobs, whole or in part.

use std::ops::Range;
use std::sync::Arc;

use http::header::{self, HeaderName};
use http::{Response, StatusCode};
use rorqual_core::Digest;
use rorqual_http::{Answer, FileAnswer, body};

use super::{DIGEST, Target, tell};
use crate::app::{App, Exchange, answer as respond};
use crate::error::{Code, Error, Result};
use crate::name::{Name, Reference};
use crate::repository::{Manifest, blob_unknown};
use crate::storage::Content;

const OCTETS: &str = "application/octet-stream";
// A digest never means other bytes.
const FOR_EVER: &str = "max-age=31536000, immutable";

/// `GET` or `HEAD` of a manifest
pub(super) async fn manifest(
    app: &Arc<App>,
    exchange: &Exchange,
    name: &Name,
    reference: &Reference,
    is_head: bool,
) -> Result<Answer> {
    let (manifest, warning) = match &app.proxy {
        Some(proxy) => proxy.manifest(name, reference).await?,
        None => (find(app, name, reference).await?, None),
    };
    if is_head && app.proxy.is_none() && !app.config.read_only {
        // Somebody may be about to push an index that lists it.
        app.repositories.touch_manifest(name, &manifest.digest).await?;
    }
    let digest = manifest.digest.to_string();
    let etag = format!("\"{digest}\"");
    let mut headers = vec![
        (header::CONTENT_TYPE, manifest.head.media_type.clone()),
        (DIGEST, digest),
        (header::ETAG, etag.clone()),
    ];
    headers.extend(warning.map(|warning| (header::WARNING, warning)));
    if is_same(exchange, &etag) {
        return Ok(Answer::Response(respond(StatusCode::NOT_MODIFIED, headers, "")));
    }
    headers.push((header::CONTENT_LENGTH, manifest.bytes.len().to_string()));
    let size = manifest.bytes.len() as u64;
    if is_head {
        return Ok(Answer::Response(respond(StatusCode::OK, headers, "")));
    }
    let tag = match reference {
        Reference::Tag(tag) => Some(tag.to_string()),
        Reference::Digest(_) => None,
    };
    let media_type = &manifest.head.media_type;
    let (action, from) = ("pull", None);
    let digest = &manifest.digest;
    tell(app, exchange, Target { action, name, digest, media_type, size, tag, from });
    Ok(Answer::Response(respond(StatusCode::OK, headers, manifest.bytes)))
}

async fn find(app: &App, name: &Name, reference: &Reference) -> Result<Manifest> {
    if let Some(manifest) = app.repositories.resolve(name, reference).await? {
        return Ok(manifest);
    }
    let text = format!("the repository {name} has no manifest {reference}");
    Err(Error::refused(Code::ManifestUnknown, text))
}

fn is_same(exchange: &Exchange, etag: &str) -> bool {
    exchange.header(&header::IF_NONE_MATCH).is_some_and(|known| known.contains(etag))
}

/// `GET` or `HEAD` of a blob
pub(super) async fn blob(
    app: &Arc<App>,
    exchange: &Exchange,
    name: &Name,
    digest: &Digest,
    is_head: bool,
) -> Result<Answer> {
    let size = match (is_head, &app.proxy) {
        // Somebody may be about to push a manifest that needs it.
        (true, None) => app.repositories.touch_blob(name, digest).await?,
        _ => app.repositories.find_blob(name, digest).await?,
    };
    let etag = format!("\"{digest}\"");
    let mut headers = vec![
        (header::CONTENT_TYPE, OCTETS.to_owned()),
        (DIGEST, digest.to_string()),
        (header::ETAG, etag.clone()),
        (header::ACCEPT_RANGES, "bytes".to_owned()),
        (header::CACHE_CONTROL, FOR_EVER.to_owned()),
    ];
    let (size, upstream) = match (size, &app.proxy) {
        (Some(size), _) => {
            if app.proxy.is_some() {
                app.metrics.cache("hit");
            }
            (size, None)
        }
        (None, None) => return Err(blob_unknown(digest)),
        (None, Some(proxy)) if is_head => (proxy.blob_size(name, digest).await?, None),
        (None, Some(proxy)) => {
            let fetch = proxy.blob(name, digest).await?;
            (fetch.size(), Some(fetch))
        }
    };
    if is_same(exchange, &etag) {
        return Ok(Answer::Response(respond(StatusCode::NOT_MODIFIED, headers, "")));
    }
    let wanted = exchange.header(&header::RANGE).map(|text| range(text, size));
    let (status, part) = match wanted {
        None | Some(Wanted::All) => (StatusCode::OK, 0..size),
        Some(Wanted::Part(part)) => {
            let text = format!("bytes {}-{}/{size}", part.start, part.end - 1);
            headers.push((header::CONTENT_RANGE, text));
            (StatusCode::PARTIAL_CONTENT, part)
        }
        Some(Wanted::Nothing) => {
            let headers = [(header::CONTENT_RANGE, format!("bytes */{size}"))];
            return Ok(Answer::Response(respond(StatusCode::RANGE_NOT_SATISFIABLE, headers, "")));
        }
    };
    if is_head {
        headers.push((header::CONTENT_LENGTH, (part.end - part.start).to_string()));
        return Ok(Answer::Response(respond(status, headers, "")));
    }
    let media_type = OCTETS;
    let (action, tag, from) = ("pull", None, None);
    tell(app, exchange, Target { action, name, digest, media_type, size, tag, from });
    let content = match upstream {
        Some(fetch) => Content::Pieces(fetch.pieces(part.clone())),
        None => app.repositories.open_blob(digest, part.clone()).await?,
    };
    Ok(serve(status, headers, content, part.end - part.start))
}

fn serve(
    status: StatusCode,
    headers: Vec<(HeaderName, String)>,
    content: Content,
    length: u64,
) -> Answer {
    let mut response = respond(status, headers, "");
    match content {
        Content::File(file, range) => {
            let (head, _) = response.into_parts();
            Answer::File(FileAnswer { head, file, range })
        }
        Content::Bytes(bytes) => {
            response.headers_mut().insert(header::CONTENT_LENGTH, bytes.len().into());
            Answer::Response(response.map(|_| body::full(bytes)))
        }
        Content::Pieces(pieces) => {
            response.headers_mut().insert(header::CONTENT_LENGTH, length.into());
            let (parts, _) = response.into_parts();
            Answer::Response(Response::from_parts(parts, body::stream(pieces)))
        }
    }
}

/// What a `Range` header asks for.
#[derive(Debug, PartialEq, Eq)]
enum Wanted {
    /// Nothing that we understand, so everything (RFC 9110, 14.2).
    All,
    Part(Range<u64>),
    /// Beyond the end.
    Nothing,
}

/// Reads `bytes=a-b`, `bytes=a-`, `bytes=-n`; several ranges at once are answered with everything.
fn range(text: &str, size: u64) -> Wanted {
    let Some((first, last)) = text.trim().strip_prefix("bytes=").and_then(|r| r.split_once('-'))
    else {
        return Wanted::All;
    };
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| text.parse::<u64>().unwrap_or(u64::MAX))
    };
    let part = match (number(first), number(last)) {
        (Some(first), Some(last)) if last >= first => first..last.saturating_add(1).min(size),
        (Some(first), None) if last.is_empty() => first..size,
        (None, Some(count)) if first.is_empty() => size.saturating_sub(count)..size,
        _ => return Wanted::All,
    };
    if part.start >= part.end { Wanted::Nothing } else { Wanted::Part(part) }
}

#[cfg(test)]
mod tests;

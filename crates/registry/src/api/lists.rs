//! Lists: tags, repositories, referrers, page by page.

use std::fmt::Write as _;

use http::header::{self, HeaderName};
use http::{Response, StatusCode};
use rorqual_content::media_type;
use rorqual_core::Digest;
use rorqual_http::{Body, Query};

use super::FILTERS;
use crate::app::{App, Exchange, answer as respond};
use crate::error::{Code, Error, Result};
use crate::name::Name;

// LIMIT: entries of a page, also when the client asks for more.
const PAGE: usize = 1000;
// LIMIT: a page of referrers is one index, which may have 4 MiB.
const INDEX: usize = 4 << 20;

/// Reads `n`.
fn page_size(query: &Query) -> Result<usize> {
    match query.find("n") {
        None => Ok(PAGE),
        Some(text) => text.parse::<u32>().map(|n| (n as usize).min(PAGE)).map_err(|_| {
            Error::refused(Code::PaginationNumberInvalid, format!("invalid page size {text:?}"))
        }),
    }
}

fn json() -> Vec<(HeaderName, String)> {
    vec![(header::CONTENT_TYPE, "application/json".to_owned())]
}

/// Writes what does not need encoding in a query as it is, the rest encoded.
fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            out.push(byte.into());
        } else {
            // Writing to a text cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

fn next(path: &str, query: &[(&str, &str)]) -> (HeaderName, String) {
    let pairs: Vec<_> =
        query.iter().map(|(name, value)| format!("{name}={}", encoded(value))).collect();
    (header::LINK, format!("<{path}?{}>; rel=\"next\"", pairs.join("&")))
}

/// `GET /v2/<name>/tags/list`
pub(super) async fn tags(app: &App, exchange: &Exchange, name: &Name) -> Result<Response<Body>> {
    let query = exchange.query();
    let size = page_size(&query)?;
    if let Some(proxy) = &app.proxy {
        return proxy.tags(name, exchange.parts.uri.query()).await;
    }
    if !app.repositories.exists(name).await? {
        let text = format!("there is no repository {name}");
        return Err(Error::refused(Code::NameUnknown, text));
    }
    let last = query.find("last").filter(|last| !last.is_empty());
    let found = match size {
        0 => Vec::new(),
        // One more tells whether there is another page.
        _ => app.repositories.tags(name, last, size + 1).await?,
    };
    let more = found.len() > size;
    let tags: Vec<&str> = found.iter().take(size).map(crate::name::Tag::as_str).collect();
    let mut headers = json();
    if let (true, Some(last)) = (more, tags.last()) {
        let path = format!("/v2/{name}/tags/list");
        headers.push(next(&path, &[("n", &size.to_string()), ("last", last)]));
    }
    let document = serde_json::json!({"name": name.as_str(), "tags": tags});
    Ok(respond(StatusCode::OK, headers, document.to_string()))
}

/// `GET /v2/_catalog`
pub(super) async fn catalog(app: &App, exchange: &Exchange) -> Result<Response<Body>> {
    let query = exchange.query();
    let size = page_size(&query)?;
    let last = query.text("last");
    let names = app.repositories.catalog().await?;
    let behind = names.iter().map(Name::as_str).filter(|name| *name > last);
    let page: Vec<&str> = behind.take(size + 1).collect();
    let shown = &page[..page.len().min(size)];
    let mut headers = json();
    if let (true, Some(last)) = (page.len() > size, shown.last()) {
        headers.push(next("/v2/_catalog", &[("n", &size.to_string()), ("last", last)]));
    }
    let document = serde_json::json!({"repositories": shown});
    Ok(respond(StatusCode::OK, headers, document.to_string()))
}

/// `GET /v2/<name>/referrers/<digest>`
pub(super) async fn referrers(
    app: &App,
    exchange: &Exchange,
    name: &Name,
    subject: &Digest,
) -> Result<Response<Body>> {
    let query = exchange.query();
    let size = page_size(&query)?.max(1);
    let last = query.find("last");
    let (found, mut behind) = app.repositories.referrers(name, subject, last, size).await?;
    let kind = query.find("artifactType").filter(|kind| !kind.is_empty());
    let mut shown = Vec::new();
    let mut length = 0;
    for descriptor in found {
        if kind.is_some() && descriptor.artifact_type.as_deref() != kind {
            continue;
        }
        length += crate::repository::encode(&descriptor).len();
        if length > INDEX {
            behind = shown
                .last()
                .map(|last: &crate::document::Descriptor| crate::name::key::flat(&last.digest));
            break;
        }
        shown.push(descriptor);
    }
    let mut headers = vec![(header::CONTENT_TYPE, media_type::OCI_INDEX.to_owned())];
    if let Some(behind) = behind {
        let path = format!("/v2/{name}/referrers/{subject}");
        let size = size.to_string();
        let mut pairs = vec![("n", size.as_str()), ("last", behind.as_str())];
        pairs.extend(kind.map(|kind| ("artifactType", kind)));
        headers.push(next(&path, &pairs));
    }
    headers.extend(kind.map(|_| (FILTERS, "artifactType".to_owned())));
    Ok(respond(StatusCode::OK, headers, crate::repository::referrers_index(&shown)))
}

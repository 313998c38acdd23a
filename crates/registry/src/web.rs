//! Web pages: what is in the registry, for people. Rendered here, usable without scripts; the one script copies commands.

use std::sync::Arc;

use http::header::{self, HeaderName};
use http::{Method, StatusCode};
use rorqual_http::Answer;

use crate::app::{App, Exchange, answer as respond};
use crate::auth::Access;
use crate::error::{Code, Error, Result};
use crate::name::{Name, Reference};

mod html;
mod image;
mod lists;

const STYLE: &str = include_str!("web/style.css");
const SCRIPT: &str = include_str!("web/copy.js");
/// Nothing from elsewhere, nothing inline.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; \
    form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

fn page(status: StatusCode, kind: &str, text: impl Into<bytes::Bytes>) -> Answer {
    let headers = [
        (header::CONTENT_TYPE, kind.to_owned()),
        (header::CONTENT_SECURITY_POLICY, POLICY.to_owned()),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
        (header::REFERRER_POLICY, "no-referrer".to_owned()),
        (header::CACHE_CONTROL, "no-cache".to_owned()),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin".to_owned()),
    ];
    Answer::Response(respond(status, headers, text))
}

const HTML: &str = "text/html; charset=utf-8";

/// Answers a request for a page.
pub(crate) async fn answer(app: &Arc<App>, exchange: &mut Exchange) -> Result<Answer> {
    if !matches!(exchange.parts.method, Method::GET | Method::HEAD) {
        return Err(Error::refused(Code::Unsupported, "pages can only be read"));
    }
    let path = exchange.parts.uri.path().to_owned();
    match &*path {
        "/style.css" => return Ok(page(StatusCode::OK, "text/css; charset=utf-8", STYLE)),
        "/copy.js" => return Ok(page(StatusCode::OK, "text/javascript; charset=utf-8", SCRIPT)),
        _ => {}
    }
    let target = target(&path);
    let wanted: Vec<_> = target.iter().filter_map(Target::access).collect();
    exchange.actor = app.auth.check_web(&exchange.parts.headers, &wanted).await?;
    let made = match target {
        Some(Target::Repositories) => lists::repositories(app, exchange).await,
        Some(Target::Repository(name)) => lists::repository(app, exchange, &name).await,
        Some(Target::Image(name, reference)) => {
            image::image(app, exchange, &name, &reference).await
        }
        None => Err(Error::refused(Code::NotFound, "There is no such page.")),
    };
    match made {
        Ok(html) => Ok(page(StatusCode::OK, HTML, html)),
        Err(error @ Error::Refused { .. }) => {
            let status = error.wire().1;
            Ok(page(status, HTML, lists::complaint(&error.to_string())))
        }
        Err(error) => Err(error),
    }
}

/// Which page a path is.
#[derive(Debug, PartialEq, Eq)]
enum Target {
    Repositories,
    Repository(Name),
    Image(Name, Reference),
}

impl Target {
    fn access(&self) -> Option<Access> {
        match self {
            Self::Repositories => None,
            Self::Repository(name) | Self::Image(name, _) => {
                Some(Access::repository(name.as_str(), &["pull"]))
            }
        }
    }
}

fn target(path: &str) -> Option<Target> {
    if path == "/" {
        return Some(Target::Repositories);
    }
    let path = path.replace("%3A", ":");
    let rest = path.strip_prefix("/r/")?;
    // No component of a name is a dash.
    match rest.split_once("/-/") {
        Some((name, reference)) => Some(Target::Image(name.parse().ok()?, reference.parse().ok()?)),
        None => rest.parse().ok().map(Target::Repository),
    }
}

#[cfg(test)]
mod tests;

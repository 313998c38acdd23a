//! The endpoints of the distribution specification: path and method to handler, after the check of rights.

use std::sync::Arc;

use http::header::{self, HeaderName};
use http::{Method, StatusCode};
use rorqual_core::Digest;
use rorqual_http::{Answer, RequestBody};

use crate::app::{App, Exchange, answer as respond};
use crate::auth::Access;
use crate::error::{Code, Error, Result};
use crate::name::Name;
use crate::notify::Event;
use crate::route::Route;

mod lists;
mod pull;
mod push;
pub(crate) mod token;

pub(crate) const DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
pub(crate) const UPLOAD_ID: HeaderName = HeaderName::from_static("docker-upload-uuid");
pub(crate) const SUBJECT: HeaderName = HeaderName::from_static("oci-subject");
pub(crate) const TAG: HeaderName = HeaderName::from_static("oci-tag");
pub(crate) const FILTERS: HeaderName = HeaderName::from_static("oci-filters-applied");

/// Answers a request below `/v2/`.
pub(crate) async fn answer(
    app: &Arc<App>,
    exchange: &mut Exchange,
    body: RequestBody,
) -> Result<Answer> {
    let route = match Route::parse(exchange.parts.uri.path()) {
        Ok(route) => route,
        Err(error) => {
            // Strangers do not learn from errors which names would do.
            app.auth.check(&exchange.parts.headers, &[], app.is_tls()).await?;
            return Err(error);
        }
    };
    exchange.route = route.label();
    let method = exchange.parts.method.clone();
    let wanted = wanted(&route, &method, exchange);
    exchange.actor = app.auth.check(&exchange.parts.headers, &wanted, app.is_tls()).await?;
    check_switches(app, &route, &method)?;
    dispatch(app, exchange, route, &method, body).await
}

/// What somebody must be allowed for a request.
fn wanted(route: &Route, method: &Method, exchange: &Exchange) -> Vec<Access> {
    let Some(name) = route.name() else {
        return if *route == Route::Catalog { vec![Access::catalog()] } else { Vec::new() };
    };
    let actions: &[&str] = match route.action(method) {
        // Clients ask for both when they push, and a push looks at what is there.
        "push" => &["pull", "push"],
        "delete" => &["delete"],
        _ => &["pull"],
    };
    let mut wanted = vec![Access::repository(name.as_str(), actions)];
    if matches!(route, Route::Uploads(_))
        && let Some(from) = exchange.query().find("from")
        && from.parse::<Name>().is_ok_and(|from| from != *name)
    {
        wanted.push(Access::repository(from, &["pull"]));
    }
    wanted
}

/// Refuses what is switched off.
fn check_switches(app: &App, route: &Route, method: &Method) -> Result<()> {
    let off = |text: &str| Err(Error::refused(Code::Unsupported, text));
    let changes = !matches!(*method, Method::GET | Method::HEAD);
    if changes && app.config.read_only {
        return off("the registry is read-only");
    }
    let is_content = matches!(route, Route::Manifest(..) | Route::Blob(..));
    if *method == Method::DELETE && is_content && !app.config.delete {
        return off("deletion is switched off in this registry");
    }
    let is_push = changes && *method != Method::DELETE;
    if is_push && app.proxy.is_some() {
        return off("the registry is a pull-through cache: push to its upstream");
    }
    Ok(())
}

async fn dispatch(
    app: &Arc<App>,
    exchange: &Exchange,
    route: Route,
    method: &Method,
    body: RequestBody,
) -> Result<Answer> {
    let is_head = *method == Method::HEAD;
    let response = match (route, method.as_str()) {
        (Route::Base, "GET" | "HEAD") => {
            respond(StatusCode::OK, [(header::CONTENT_TYPE, "application/json".into())], "{}")
        }
        (Route::Manifest(name, reference), "GET" | "HEAD") => {
            return pull::manifest(app, exchange, &name, &reference, is_head).await;
        }
        (Route::Blob(name, digest), "GET" | "HEAD") => {
            return pull::blob(app, exchange, &name, &digest, is_head).await;
        }
        (Route::Manifest(name, reference), "PUT") => {
            push::manifest(app, exchange, &name, &reference, body).await?
        }
        (Route::Manifest(name, reference), "DELETE") => {
            push::delete_manifest(app, exchange, &name, &reference).await?
        }
        (Route::Blob(name, digest), "DELETE") => {
            push::delete_blob(app, exchange, &name, &digest).await?
        }
        (Route::Uploads(name), "POST") => push::begin(app, exchange, &name, body).await?,
        (Route::Upload(name, id), "GET" | "HEAD") => push::status(app, &name, &id).await?,
        (Route::Upload(name, id), "PATCH") => push::chunk(app, exchange, &name, &id, body).await?,
        (Route::Upload(name, id), "PUT") => push::finish(app, exchange, &name, &id, body).await?,
        (Route::Upload(name, id), "DELETE") => push::cancel(app, &name, &id).await?,
        (Route::Tags(name), "GET" | "HEAD") => lists::tags(app, exchange, &name).await?,
        (Route::Catalog, "GET" | "HEAD") => lists::catalog(app, exchange).await?,
        (Route::Referrers(name, digest), "GET" | "HEAD") => {
            lists::referrers(app, exchange, &name, &digest).await?
        }
        (Route::Extensions(_), "GET" | "HEAD") => {
            let kind = [(header::CONTENT_TYPE, "application/json".into())];
            respond(StatusCode::OK, kind, r#"{"extensions":[]}"#)
        }
        _ => return Err(Error::refused(Code::Unsupported, "no such method here")),
    };
    Ok(Answer::Response(response))
}

/// What an event is about, beside who did it.
pub(crate) struct Target<'a> {
    pub(crate) action: &'static str,
    pub(crate) name: &'a Name,
    pub(crate) digest: &'a Digest,
    pub(crate) media_type: &'a str,
    pub(crate) size: u64,
    pub(crate) tag: Option<String>,
    pub(crate) from: Option<String>,
}

/// Tells those who want to know.
pub(crate) fn tell(app: &App, exchange: &Exchange, target: Target<'_>) {
    if app.notifier.is_idle() {
        return;
    }
    let Target { action, name, digest, media_type, size, tag, from } = target;
    app.notifier.send(Event {
        action,
        repository: name.to_string(),
        digest: Some(digest.clone()),
        media_type: media_type.to_owned(),
        size,
        tag,
        from,
        request: exchange.source(app.is_tls()),
    });
}

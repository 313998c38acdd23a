//! Connections that speak BuildKit's protocol: calls of clients, and sessions on which the daemon calls.

use std::sync::Arc;

use http::header::{CONNECTION, HeaderMap, HeaderValue, UPGRADE};
use rorqual_buildkit::Greeting;
use rorqual_core::full_message;
use rorqual_http::{Answer, BoxFuture, Hijack, Protocol, RawStream};

use crate::context::Context;
use crate::error::invalid;
use crate::request::{ApiRequest, Result, refuse};

/// `POST /grpc`
pub(super) async fn grpc(context: Arc<Context>, request: ApiRequest) -> Result {
    hijack(&request, move |connection| {
        Box::pin(async move { context.builds.serve(connection).await })
    })
}

/// `POST /session`
pub(super) async fn session(context: Arc<Context>, request: ApiRequest) -> Result {
    let greeting = match Greeting::from_headers(&request.parts.headers) {
        Ok(greeting) => greeting,
        Err(error) => return refuse(invalid(full_message(&error))),
    };
    hijack(&request, move |connection| {
        Box::pin(async move {
            if let Err(error) = context.builds.sessions().run(connection, greeting).await {
                tracing::debug!(error = full_message(&error), "cannot serve a session");
            }
        })
    })
}

/// Takes the connection over, as HTTP/2 without TLS of its own.
fn hijack(
    request: &ApiRequest,
    take: impl FnOnce(RawStream) -> BoxFuture<()> + Send + 'static,
) -> Result {
    let asked = request.parts.headers.get(UPGRADE).and_then(|asked| asked.to_str().ok());
    // COMPAT: BuildKit's texts.
    match asked {
        Some("h2c") => {}
        None | Some("") => return refuse(invalid("no upgrade proto in request")),
        Some(other) => return refuse(invalid(format!("protocol {other} not supported"))),
    }
    let mut headers = HeaderMap::new();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("h2c"));
    Ok(Answer::Hijack(Hijack { protocol: Protocol::Upgraded, headers, take: Box::new(take) }))
}

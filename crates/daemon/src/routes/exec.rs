//! Execs.

use std::sync::Arc;

use http::StatusCode;
use rorqual_api::compat::Document;
use rorqual_api::exec as wire;
use rorqual_http::Answer;

use crate::context::Context;
use crate::convert;
use crate::request::{ApiRequest, Result, empty, json};
use crate::routes::{attach, containers};

/// `POST /containers/{id}/exec`
pub(super) async fn create(context: Arc<Context>, mut request: ApiRequest) -> Result {
    let document = request.optional_json(Some(Document::Exec)).await?;
    let spec = convert::exec::exec_spec(document)?;
    let id = context.engine.execs.create(request.param("id"), spec).await?;
    json(StatusCode::CREATED, &wire::CreateResponse { id: id.to_string() })
}

/// `POST /exec/{id}/start`
pub(super) async fn start(context: Arc<Context>, mut request: ApiRequest) -> Result {
    let document = request.optional_json(Some(Document::Exec)).await?;
    let how = convert::exec::exec_start(document)?;
    let id = request.param("id").to_owned();
    let view = context.engine.execs.inspect(&id).await?;
    let keys = crate::detach::keys(&view.spec.detach_keys)?;
    if how.detach || view.running || view.exit_code.is_some() {
        context.engine.execs.start(&id, how).await?;
        return empty(StatusCode::OK);
    }
    Ok(Answer::Hijack(attach::hijack_exec(&request, context, view, how, keys)))
}

/// `POST /exec/{id}/resize`
pub(super) async fn resize(context: Arc<Context>, request: ApiRequest) -> Result {
    let window = containers::window(&request)?;
    context.engine.execs.resize(request.param("id"), window).await?;
    empty(StatusCode::OK)
}

/// `GET /exec/{id}/json`
pub(super) async fn inspect(context: Arc<Context>, request: ApiRequest) -> Result {
    let view = context.engine.execs.inspect(request.param("id")).await?;
    json(StatusCode::OK, &convert::exec::exec_document(&view))
}

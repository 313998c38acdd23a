//! Networks: showing them. Changing them is not built yet.

use std::sync::Arc;

use http::StatusCode;
use rorqual_api::compat::Document;
use rorqual_api::network as wire;

use crate::context::Context;
use crate::convert::network::network_document;
use crate::error::{BadRequest, unsupported};
use crate::request::{ApiRequest, Result, json, refuse};

/// `GET /networks`
pub(super) async fn list(context: Arc<Context>, request: ApiRequest) -> Result {
    let views = context.engine.networks.list(request.filters()?).await?;
    let documents: Vec<_> = views.iter().map(|view| network_document(view, false)).collect();
    request.answer(Document::Network, &documents)
}

/// `GET /networks/{id}`
pub(super) async fn inspect(context: Arc<Context>, request: ApiRequest) -> Result {
    let view = context.engine.networks.inspect(request.param("id")).await?;
    request.answer(Document::Network, &network_document(&view, true))
}

/// `DELETE /networks/{id}`
pub(super) async fn remove(context: Arc<Context>, request: ApiRequest) -> Result {
    let view = context.engine.networks.inspect(request.param("id")).await?;
    let name = view.record.name;
    refuse(match name.as_str() {
        // COMPAT: dockerd's text.
        "bridge" | "host" | "none" => {
            BadRequest::Forbidden(format!("{name} is a pre-defined network and cannot be removed"))
        }
        _ => unsupported("removing networks is not supported yet"),
    })
}

/// `POST /networks/prune`: only predefined networks exist, and those stay.
pub(super) async fn prune(_: Arc<Context>, request: ApiRequest) -> Result {
    let filters = request.filters()?;
    let known = filters.check_keys(&["until", "label", "label!"]);
    known.map_err(|error| crate::error::invalid(error.to_string()))?;
    json(StatusCode::OK, &wire::PruneReport::default())
}

//! Networks.

use std::sync::Arc;

use http::StatusCode;
use rorqual_api::compat::Document;
use rorqual_api::network as wire;

use crate::context::Context;
use crate::convert::network::{endpoint, network_document, network_request};
use crate::request::{ApiRequest, Result, empty, json};

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

/// `POST /networks/create`
pub(super) async fn create(context: Arc<Context>, mut request: ApiRequest) -> Result {
    let wanted = network_request(request.json(None).await?)?;
    let record = context.engine.networks.create(wanted).await?;
    let answer = wire::CreateResponse { id: record.id.to_string(), warning: String::new() };
    json(StatusCode::CREATED, &answer)
}

/// `DELETE /networks/{id}`
pub(super) async fn remove(context: Arc<Context>, request: ApiRequest) -> Result {
    context.engine.networks.remove(request.param("id")).await?;
    empty(StatusCode::NO_CONTENT)
}

/// `POST /networks/{id}/connect`
pub(super) async fn connect(context: Arc<Context>, mut request: ApiRequest) -> Result {
    let wire::ConnectRequest { container, endpoint_config } = request.json(None).await?;
    let network = request.param("id").to_owned();
    let endpoint = endpoint(network.clone(), endpoint_config.unwrap_or_default())?;
    context.engine.networks.connect(&network, &container, endpoint).await?;
    empty(StatusCode::OK)
}

/// `POST /networks/{id}/disconnect`
pub(super) async fn disconnect(context: Arc<Context>, mut request: ApiRequest) -> Result {
    let wire::DisconnectRequest { container, force } = request.json(None).await?;
    let (networks, network) = (&context.engine.networks, request.param("id"));
    match force {
        true => networks.force_disconnect(network, &container).await?,
        false => networks.disconnect(network, &container).await?,
    }
    empty(StatusCode::OK)
}

/// `POST /networks/prune`
pub(super) async fn prune(context: Arc<Context>, request: ApiRequest) -> Result {
    let gone = context.engine.networks.prune(request.filters()?).await?;
    let networks_deleted = (!gone.is_empty()).then_some(gone);
    json(StatusCode::OK, &wire::PruneReport { networks_deleted })
}

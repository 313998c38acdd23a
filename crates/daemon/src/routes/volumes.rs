//! Volumes.

use std::sync::Arc;

use http::StatusCode;
use rorqual_api::volume as wire;

use crate::context::Context;
use crate::convert::volume::{volume_document, volume_spec};
use crate::request::{ApiRequest, Result, empty, json};

/// `GET /volumes`
pub(super) async fn list(context: Arc<Context>, request: ApiRequest) -> Result {
    let (views, warnings) = context.engine.volumes.list(request.filters()?).await?;
    let volumes = views.iter().map(volume_document).collect();
    let warnings = (!warnings.is_empty()).then_some(warnings);
    json(StatusCode::OK, &wire::ListResponse { volumes: Some(volumes), warnings })
}

/// `POST /volumes/create`
pub(super) async fn create(context: Arc<Context>, mut request: ApiRequest) -> Result {
    let spec = volume_spec(request.optional_json(None).await?)?;
    let view = context.engine.volumes.create(spec).await?;
    json(StatusCode::CREATED, &volume_document(&view))
}

/// `GET /volumes/{name}`
pub(super) async fn inspect(context: Arc<Context>, request: ApiRequest) -> Result {
    let view = context.engine.volumes.inspect(request.param("name")).await?;
    json(StatusCode::OK, &volume_document(&view))
}

/// `PUT /volumes/{name}`: for cluster volumes, of which there are none without a swarm.
pub(super) async fn update(context: Arc<Context>, request: ApiRequest) -> Result {
    // COMPAT: dockerd looks for the volume only in the cluster.
    let _ = context;
    super::refused::swarm_of(request.param("name"))
}

/// `DELETE /volumes/{name}`
pub(super) async fn remove(context: Arc<Context>, request: ApiRequest) -> Result {
    let force = request.query.flag("force");
    context.engine.volumes.remove(request.param("name"), force).await?;
    empty(StatusCode::NO_CONTENT)
}

/// `POST /volumes/prune`
pub(super) async fn prune(context: Arc<Context>, request: ApiRequest) -> Result {
    let mut filters = request.filters()?;
    // COMPAT: before 1.42 named volumes were pruned too.
    if request.version < rorqual_api::ApiVersion::v1(42) && !filters.has("all") {
        filters.add("all", "true");
    }
    let pruned = context.engine.volumes.prune(filters).await?;
    let answer = wire::PruneReport {
        // COMPAT: none is an empty list here, not null as elsewhere.
        volumes_deleted: Some(pruned.deleted),
        space_reclaimed: pruned.reclaimed,
    };
    json(StatusCode::OK, &answer)
}

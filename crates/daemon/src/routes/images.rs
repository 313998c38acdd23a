//! Images: what answers at once.

use std::sync::Arc;

use http::StatusCode;
use rorqual_api::compat::Document;
use rorqual_api::image::PruneReport;
use rorqual_engine::{ImageListRequest, ImageRemoveRequest};

use crate::context::Context;
use crate::convert::image::{
    history_document, inspect_document, removal_document, summary_document,
};
use crate::convert::platform;
use crate::error::invalid;
use crate::request::{ApiRequest, Result, empty, json, refuse};
use crate::routes::containers::image_name;

/// `GET /images/json`
pub(super) async fn list(context: Arc<Context>, request: ApiRequest) -> Result {
    let shared_size = request.query.flag("shared-size");
    let wanted = ImageListRequest {
        shared_size,
        manifests: request.query.flag("manifests"),
        filters: request.filters()?,
    };
    let images = context.engine.images.list(wanted).await?;
    let documents: Vec<_> = images.iter().map(summary_document).collect();
    request.answer(Document::ImageList, &documents)
}

/// `GET /images/{name}/json`
pub(super) async fn inspect(context: Arc<Context>, request: ApiRequest) -> Result {
    let platform = platform::document(request.query.text("platform"))?;
    if request.query.flag("manifests") && platform.is_some() {
        return refuse(invalid(
            "conflicting options: manifests and platform options cannot both be set",
        ));
    }
    let images = &context.engine.images;
    let record = match &platform {
        Some(platform) => images.variant(request.param("name"), platform).await?,
        None => images.inspect(request.param("name")).await?,
    };
    let manifests = match request.query.flag("manifests") {
        true => Some(images.manifests(&record).await?),
        false => None,
    };
    request.answer(Document::ImageInspect, &inspect_document(&record, manifests.as_deref()))
}

/// `GET /images/{name}/history`
pub(super) async fn history(context: Arc<Context>, request: ApiRequest) -> Result {
    let platform = platform::document(request.query.text("platform"))?;
    let lines = context.engine.images.history(request.param("name"), platform.as_ref()).await?;
    let documents: Vec<_> = lines.iter().map(history_document).collect();
    json(StatusCode::OK, &documents)
}

/// `POST /images/{name}/tag`
pub(super) async fn tag(context: Arc<Context>, request: ApiRequest) -> Result {
    let Some(name) = image_name(&request)? else {
        return refuse(invalid("invalid reference format"));
    };
    context.engine.images.tag(request.param("name"), name).await?;
    empty(StatusCode::CREATED)
}

/// `DELETE /images/{name}`
pub(super) async fn remove(context: Arc<Context>, request: ApiRequest) -> Result {
    let platforms = request.query.all("platforms").map(platform::document);
    let platforms: Vec<_> = platforms.collect::<std::result::Result<Vec<_>, _>>()?;
    let platforms: Vec<_> = platforms.into_iter().flatten().collect();
    let how = ImageRemoveRequest {
        force: request.query.flag("force"),
        no_prune: request.query.flag("noprune"),
    };
    let (images, name) = (&context.engine.images, request.param("name"));
    let removed = match platforms.is_empty() {
        true => images.remove(name, how).await?,
        false => images.remove_platforms(name, platforms, how).await?,
    };
    let documents: Vec<_> = removed.iter().map(removal_document).collect();
    json(StatusCode::OK, &documents)
}

/// `POST /images/prune`
pub(super) async fn prune(context: Arc<Context>, request: ApiRequest) -> Result {
    let pruned = context.engine.images.prune(request.filters()?).await?;
    let removed: Vec<_> = pruned.removed.iter().map(removal_document).collect();
    let answer = PruneReport {
        images_deleted: (!removed.is_empty()).then_some(removed),
        space_reclaimed: pruned.reclaimed,
    };
    json(StatusCode::OK, &answer)
}

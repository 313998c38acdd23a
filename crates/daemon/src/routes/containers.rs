//! Containers: what answers at once.

use std::sync::Arc;

use http::StatusCode;
use rorqual_api::compat::Document;
use rorqual_api::container as wire;
use rorqual_api::container::{Config, CreateRequest};
use rorqual_api::image::IdResponse;
use rorqual_core::{ContainerName, Reference, Repository, Signal, Timestamp};
use rorqual_engine::{Changed, CommitRequest, ListRequest, RemoveRequest, StopRequest};
use rorqual_http::Peer;
use rorqual_shim::WindowSize;

use crate::context::Context;
use crate::convert;
use crate::error::{ApiError, BadRequest, invalid};
use crate::request::{ApiRequest, Result, empty, json, refuse};

/// `GET /containers/json`
pub(super) async fn list(context: Arc<Context>, request: ApiRequest) -> Result {
    let limit = request.number("limit")?;
    let views = context
        .engine
        .containers
        .list(ListRequest {
            all: request.query.flag("all"),
            limit: limit.and_then(|limit| usize::try_from(limit).ok()).filter(|limit| *limit > 0),
            size: request.query.flag("size"),
            filters: request.filters()?,
        })
        .await?;
    let now = now();
    let documents: Vec<_> =
        views.iter().map(|view| convert::view::summary_document(view, now)).collect();
    request.answer(Document::ContainerList, &documents)
}

pub(super) fn now() -> Timestamp {
    std::time::SystemTime::now().into()
}

/// `POST /containers/create`
pub(super) async fn create(context: Arc<Context>, mut request: ApiRequest) -> Result {
    let document: CreateRequest = request.json(Some(Document::ContainerCreate)).await?;
    let mut spec = convert::create::container_spec(
        document,
        request.query.text("name"),
        request.query.text("platform"),
    )?;
    let peer = request.parts.extensions.get::<Peer>().map(|peer| (peer.user, peer.group));
    let default = context.settings().idmap_binds;
    convert::mounts::settle_idmaps(&mut spec.storage.mounts, peer, default)?;
    let created = context.engine.containers.create(spec).await?;
    let answer = wire::CreateResponse { id: created.id.to_string(), warnings: created.warnings };
    json(StatusCode::CREATED, &answer)
}

/// `GET /containers/{id}/json`
pub(super) async fn inspect(context: Arc<Context>, request: ApiRequest) -> Result {
    let size = request.query.flag("size");
    let view = context.engine.containers.inspect(request.param("id"), size).await?;
    let document = convert::view::inspect_document(&view, &context.settings().shown);
    request.answer(Document::ContainerInspect, &document)
}

/// `GET /containers/{id}/top`
pub(super) async fn top(context: Arc<Context>, request: ApiRequest) -> Result {
    let arguments = match request.query.text("ps_args") {
        "" => "-ef",
        arguments => arguments,
    };
    let table = context.engine.containers.top(request.param("id"), arguments).await?;
    let answer = wire::TopResponse { titles: table.titles, processes: table.rows };
    json(StatusCode::OK, &answer)
}

/// `GET /containers/{id}/changes`
pub(super) async fn changes(context: Arc<Context>, request: ApiRequest) -> Result {
    let changes = context.engine.containers.changes(request.param("id")).await?;
    let documents: Vec<_> = changes
        .into_iter()
        .map(|change| wire::Change { path: change.path, kind: change.kind as u8 })
        .collect();
    // COMPAT: no change at all is null.
    json(StatusCode::OK, &(!documents.is_empty()).then_some(documents))
}

/// Reads `h` and `w`, both mandatory.
pub(super) fn window(request: &ApiRequest) -> Result<WindowSize> {
    let side = |name: &str, what: &str| {
        let text = request.query.text(name);
        let number = text.parse::<u32>().map_err(|error| {
            // COMPAT: dockerd's text.
            let reason = match error.kind() {
                std::num::IntErrorKind::PosOverflow => "value out of range",
                _ => "invalid syntax",
            };
            ApiError::from(invalid(format!("invalid resize {what} {text:?}: {reason}")))
        })?;
        Ok::<_, ApiError>(u16::try_from(number).unwrap_or(u16::MAX))
    };
    let height = side("h", "height")?;
    let width = side("w", "width")?;
    Ok(WindowSize { width, height })
}

/// `POST /containers/{id}/resize`
pub(super) async fn resize(context: Arc<Context>, request: ApiRequest) -> Result {
    let window = window(&request)?;
    context.engine.containers.resize(request.param("id"), window).await?;
    empty(StatusCode::OK)
}

fn changed(changed: Changed) -> Result {
    empty(match changed {
        Changed::Yes => StatusCode::NO_CONTENT,
        Changed::Already => StatusCode::NOT_MODIFIED,
    })
}

/// `POST /containers/{id}/start`
pub(super) async fn start(context: Arc<Context>, mut request: ApiRequest) -> Result {
    let body = std::mem::replace(&mut request.body, rorqual_http::RequestBody::from_bytes(""));
    // COMPAT: clients before 1.24 sent a HostConfig here; `{}` and the like are accepted.
    if body.bytes(7).await.is_err() {
        return refuse(invalid(
            "starting container with non-empty request body was deprecated since API v1.22 and removed in v1.24",
        ));
    }
    changed(context.engine.containers.start(request.param("id")).await?)
}

fn parse_signal(text: &str) -> std::result::Result<Option<Signal>, BadRequest> {
    match text {
        "" => Ok(None),
        text => text
            .parse()
            .map(Some)
            .map_err(|error: rorqual_core::InvalidSignal| invalid(error.to_string())),
    }
}

fn stop_request(request: &ApiRequest) -> Result<StopRequest> {
    let timeout = request.number("t")?.map(convert::create::timeout);
    // COMPAT: clients before 1.42 could not choose the signal.
    let is_ignored = request.version < rorqual_api::ApiVersion::v1(42);
    let signal = if is_ignored { None } else { parse_signal(request.query.text("signal"))? };
    Ok(StopRequest { signal, timeout })
}

/// `POST /containers/{id}/stop`
pub(super) async fn stop(context: Arc<Context>, request: ApiRequest) -> Result {
    let how = stop_request(&request)?;
    changed(context.engine.containers.stop(request.param("id"), how).await?)
}

/// `POST /containers/{id}/restart`
pub(super) async fn restart(context: Arc<Context>, request: ApiRequest) -> Result {
    let how = stop_request(&request)?;
    context.engine.containers.restart(request.param("id"), how).await?;
    empty(StatusCode::NO_CONTENT)
}

/// `POST /containers/{id}/kill`
pub(super) async fn kill(context: Arc<Context>, request: ApiRequest) -> Result {
    let id = request.param("id");
    // COMPAT: dockerd says of every failure what it is that failed.
    let prefixed = |mut error: ApiError| {
        let prefix = "cannot kill container: ";
        if !error.message.starts_with(prefix) {
            error.message = format!("{prefix}{id}: {}", error.message);
        }
        error
    };
    let text = request.query.text("signal");
    let signal = parse_signal(text).map_err(|error| match text.parse::<i64>() {
        // COMPAT: dockerd's text.
        Ok(number) if number != 0 => {
            invalid(format!("the linux daemon does not support signal {number}"))
        }
        _ => error,
    });
    let signal = signal.map_err(ApiError::from).map_err(prefixed)?;
    let killed = context.engine.containers.kill(id, signal).await;
    killed.map_err(ApiError::from).map_err(prefixed)?;
    empty(StatusCode::NO_CONTENT)
}

/// `POST /containers/{id}/update`
pub(super) async fn update(context: Arc<Context>, mut request: ApiRequest) -> Result {
    let document = request.optional_json(Some(Document::ContainerUpdate)).await?;
    let change = convert::resources::update(document)?;
    let warnings = context.engine.containers.update(request.param("id"), change).await?;
    let warnings = (!warnings.is_empty()).then_some(warnings);
    json(StatusCode::OK, &wire::UpdateResponse { warnings })
}

/// `POST /containers/{id}/rename`
pub(super) async fn rename(context: Arc<Context>, request: ApiRequest) -> Result {
    let text = request.query.text("name");
    if text.is_empty() {
        // COMPAT: dockerd's text.
        return refuse(invalid("Neither old nor new names may be empty"));
    }
    let id = request.param("id");
    // COMPAT: a missing container is told before a bad name.
    context.engine.containers.inspect(id, false).await?;
    let name: ContainerName = text.parse().map_err(|error: rorqual_core::InvalidName| {
        let rorqual_core::InvalidName { what, name } = error;
        let error =
            rorqual_core::InvalidName { what, name: format!("/{}", name.trim_start_matches('/')) };
        invalid(format!("Error when allocating new name: {error}"))
    })?;
    context.engine.containers.rename(id, name).await?;
    empty(StatusCode::NO_CONTENT)
}

/// `POST /containers/{id}/pause`
pub(super) async fn pause(context: Arc<Context>, request: ApiRequest) -> Result {
    context.engine.containers.pause(request.param("id")).await?;
    empty(StatusCode::NO_CONTENT)
}

/// `POST /containers/{id}/unpause`
pub(super) async fn unpause(context: Arc<Context>, request: ApiRequest) -> Result {
    context.engine.containers.unpause(request.param("id")).await?;
    empty(StatusCode::NO_CONTENT)
}

/// `DELETE /containers/{id}`
pub(super) async fn remove(context: Arc<Context>, request: ApiRequest) -> Result {
    if request.query.flag("link") {
        return refuse(crate::error::unsupported("removing legacy links is not supported"));
    }
    let how =
        RemoveRequest { force: request.query.flag("force"), volumes: request.query.flag("v") };
    context.engine.containers.remove(request.param("id"), how).await?;
    empty(StatusCode::NO_CONTENT)
}

/// `POST /containers/prune`
pub(super) async fn prune(context: Arc<Context>, request: ApiRequest) -> Result {
    let pruned = context.engine.containers.prune(request.filters()?).await?;
    let answer = wire::PruneReport {
        containers_deleted: (!pruned.deleted.is_empty()).then_some(pruned.deleted),
        space_reclaimed: pruned.reclaimed,
    };
    json(StatusCode::OK, &answer)
}

/// Reads the name of an image out of `repo` and `tag`.
pub(super) fn image_name(request: &ApiRequest) -> Result<Option<Reference>> {
    let (repository, tag) = (request.query.text("repo"), request.query.text("tag"));
    if repository.is_empty() {
        return Ok(None);
    }
    let bad = |error: rorqual_core::InvalidReference| ApiError::from(invalid(error.to_string()));
    if tag.is_empty() {
        return Ok(Some(repository.parse::<Reference>().map_err(bad)?.or_latest()));
    }
    let repository: Repository = repository.parse().map_err(bad)?;
    Ok(Some(Reference::tagged(repository, tag).map_err(bad)?))
}

/// `POST /commit`
pub(super) async fn commit(context: Arc<Context>, mut request: ApiRequest) -> Result {
    let config: Config = request.optional_json(None).await?;
    let bad = |error: serde_json::Error| invalid(format!("invalid JSON: {error}"));
    let commit = CommitRequest {
        name: image_name(&request)?,
        comment: request.query.text("comment").to_owned(),
        author: request.query.text("author").to_owned(),
        pause: request.query.switch("pause", true),
        changes: changes_of(&request),
        config: convert::image::commit_config(config).map_err(bad)?,
    };
    let id = context.engine.containers.commit(request.query.text("container"), commit).await?;
    json(StatusCode::CREATED, &IdResponse { id: id.to_string() })
}

/// Reads `changes`, each possibly of several lines.
pub(super) fn changes_of(request: &ApiRequest) -> Vec<String> {
    let lines = request.query.all("changes").flat_map(str::lines);
    lines.filter(|line| !line.trim().is_empty()).map(str::to_owned).collect()
}

//! Parts of the Engine API that this build does not have. Each says so, in dockerd's own words where it has some.

use std::sync::Arc;

use http::StatusCode;
use serde_json::json;

use crate::context::Context;
use crate::error::{BadRequest, unsupported};
use crate::request::{ApiRequest, Result, json, refuse};

/// What needs a registry.
pub(super) async fn registry(_: Arc<Context>, _: ApiRequest) -> Result {
    refuse(unsupported("registries are not supported yet: move images with save, load and import"))
}

/// BuildKit's protocol.
pub(super) async fn build(_: Arc<Context>, _: ApiRequest) -> Result {
    refuse(unsupported("BuildKit's protocol is not supported yet: build with DOCKER_BUILDKIT=0"))
}

/// `GET /plugins`: there are none.
pub(super) async fn no_plugins(_: Arc<Context>, _: ApiRequest) -> Result {
    json(StatusCode::OK, &json!([]))
}

/// Managed plugins, which come as images out of registries.
pub(super) async fn plugin(_: Arc<Context>, request: ApiRequest) -> Result {
    let name = request.param("name");
    if request.parts.method == http::Method::GET && name.ends_with("/json") {
        let name = name.trim_end_matches("/json");
        // COMPAT: dockerd's text.
        return refuse(BadRequest::NotFound(format!("plugin \"{name}\" not found")));
    }
    refuse(unsupported(
        "managed plugins are not supported; plugins that run on the host work: they are found by their socket or file in \
         /run/docker/plugins, /etc/docker/plugins and /usr/lib/docker/plugins",
    ))
}

/// Checkpoints.
pub(super) async fn checkpoint(_: Arc<Context>, _: ApiRequest) -> Result {
    refuse(unsupported("checkpoints are not supported"))
}

/// What needs a cluster.
pub(super) async fn swarm(_: Arc<Context>, _: ApiRequest) -> Result {
    // COMPAT: clients look for this text.
    refuse(BadRequest::Unavailable(
        "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this node to \
         swarm and try again."
            .to_owned(),
    ))
}

/// A cluster volume that is to be changed.
pub(super) fn swarm_of(volume: &str) -> Result {
    // COMPAT: dockerd's text.
    refuse(BadRequest::Unavailable(format!(
        "volume {volume} not found: this node is not part of a swarm"
    )))
}

/// `POST /swarm/init` and `/swarm/join`
pub(super) async fn swarm_membership(_: Arc<Context>, _: ApiRequest) -> Result {
    refuse(unsupported("swarm mode is not supported"))
}

/// `POST /swarm/leave`
pub(super) async fn swarm_leave(_: Arc<Context>, _: ApiRequest) -> Result {
    // COMPAT: clients look for this text.
    refuse(BadRequest::Unavailable("This node is not part of a swarm".to_owned()))
}

//! Parts of the Engine API that this build does not have. Each says so, in dockerd's own words where it has some.

use std::sync::Arc;

use http::StatusCode;
use serde_json::json;

use crate::context::Context;
use crate::error::{BadRequest, unsupported};
use crate::request::{ApiRequest, Result, json, refuse};

/// Building images.
pub(super) async fn build(_: Arc<Context>, _: ApiRequest) -> Result {
    refuse(unsupported("building images is not supported yet"))
}

/// `POST /build/prune`: there is no build cache, so nothing is removed.
pub(super) async fn build_prune(_: Arc<Context>, _: ApiRequest) -> Result {
    json(StatusCode::OK, &json!({"CachesDeleted": null, "SpaceReclaimed": 0}))
}

/// `GET /plugins`: there are none.
pub(super) async fn no_plugins(_: Arc<Context>, _: ApiRequest) -> Result {
    json(StatusCode::OK, &json!([]))
}

/// Plugins.
pub(super) async fn plugin(_: Arc<Context>, _: ApiRequest) -> Result {
    refuse(unsupported("plugins are not supported"))
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

/// `POST /swarm/init` and `/swarm/join`
pub(super) async fn swarm_membership(_: Arc<Context>, _: ApiRequest) -> Result {
    refuse(unsupported("swarm mode is not supported"))
}

/// `POST /swarm/leave`
pub(super) async fn swarm_leave(_: Arc<Context>, _: ApiRequest) -> Result {
    // COMPAT: clients look for this text.
    refuse(BadRequest::Unavailable("This node is not part of a swarm".to_owned()))
}

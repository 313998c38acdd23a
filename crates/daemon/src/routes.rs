//! The routes of the Engine API. Handlers convert, call the engine once, convert back.

mod archive;
mod attach;
mod build;
mod containers;
mod exec;
mod images;
mod networks;
mod refused;
mod streams;
mod system;
mod transfers;
mod volume_data;
mod volumes;

use std::sync::Arc;

use http::Method;
use rorqual_http::{BoxFuture, Router};

use crate::context::Context;
use crate::request::{ApiRequest, Result};

/// Handles a request.
pub(crate) type Handler = fn(Arc<Context>, ApiRequest) -> BoxFuture<Result>;

macro_rules! routes {
    ($router:ident; $($method:ident $pattern:literal => $handler:path;)*) => {
        $($router.add(Method::$method, $pattern, |context, request| Box::pin($handler(context, request)));)*
    };
}

/// Makes the table of routes.
pub(crate) fn router() -> Router<Handler> {
    let mut router: Router<Handler> = Router::default();
    container_routes(&mut router);
    image_routes(&mut router);
    other_routes(&mut router);
    refused_routes(&mut router);
    router
}

fn container_routes(router: &mut Router<Handler>) {
    routes! { router;
        GET "/containers/json" => containers::list;
        POST "/containers/create" => containers::create;
        POST "/containers/prune" => containers::prune;
        GET "/containers/{id}/json" => containers::inspect;
        GET "/containers/{id}/top" => containers::top;
        GET "/containers/{id}/logs" => streams::logs;
        GET "/containers/{id}/changes" => containers::changes;
        GET "/containers/{id}/export" => archive::export;
        GET "/containers/{id}/stats" => streams::stats;
        POST "/containers/{id}/resize" => containers::resize;
        POST "/containers/{id}/start" => containers::start;
        POST "/containers/{id}/stop" => containers::stop;
        POST "/containers/{id}/restart" => containers::restart;
        POST "/containers/{id}/kill" => containers::kill;
        POST "/containers/{id}/update" => containers::update;
        POST "/containers/{id}/rename" => containers::rename;
        POST "/containers/{id}/pause" => containers::pause;
        POST "/containers/{id}/unpause" => containers::unpause;
        POST "/containers/{id}/attach" => attach::attach;
        GET "/containers/{id}/attach/ws" => attach::attach_websocket;
        POST "/containers/{id}/wait" => streams::wait;
        DELETE "/containers/{id}" => containers::remove;
        HEAD "/containers/{id}/archive" => archive::stat;
        GET "/containers/{id}/archive" => archive::get;
        PUT "/containers/{id}/archive" => archive::put;
        POST "/containers/{id}/exec" => exec::create;
        POST "/exec/{id}/start" => exec::start;
        POST "/exec/{id}/resize" => exec::resize;
        GET "/exec/{id}/json" => exec::inspect;
        POST "/commit" => containers::commit;
    }
}

fn image_routes(router: &mut Router<Handler>) {
    routes! { router;
        GET "/images/json" => images::list;
        GET "/images/get" => transfers::save_many;
        GET "/images/search" => refused::registry;
        POST "/images/create" => transfers::create;
        POST "/images/load" => transfers::load;
        POST "/images/prune" => images::prune;
        GET "/images/{name:.*}/json" => images::inspect;
        GET "/images/{name:.*}/history" => images::history;
        GET "/images/{name:.*}/get" => transfers::save_one;
        POST "/images/{name:.*}/push" => refused::registry;
        POST "/images/{name:.*}/tag" => images::tag;
        DELETE "/images/{name:.*}" => images::remove;
        GET "/distribution/{name:.*}/json" => refused::registry;
        POST "/auth" => refused::registry;
    }
}

fn other_routes(router: &mut Router<Handler>) {
    routes! { router;
        GET "/_ping" => system::ping;
        HEAD "/_ping" => system::ping;
        GET "/version" => system::version;
        GET "/info" => system::info;
        GET "/events" => streams::events;
        GET "/system/df" => system::disk_usage;
        GET "/volumes" => volumes::list;
        POST "/volumes/create" => volumes::create;
        POST "/volumes/prune" => volumes::prune;
        GET "/volumes/{name:.*}" => volumes::inspect;
        PUT "/volumes/{name:.*}" => volumes::update;
        DELETE "/volumes/{name:.*}" => volumes::remove;
        POST "/rorqual/volumes/import" => volume_data::import;
        POST "/rorqual/volumes/{name}/snapshot" => volume_data::snapshot;
        POST "/rorqual/volumes/{name}/clone" => volume_data::clone;
        POST "/rorqual/volumes/{name}/export" => volume_data::export;
        GET "/rorqual/volumes/{name}/chunks" => volume_data::chunks;
        GET "/networks" => networks::list;
        GET "/networks/" => networks::list;
        POST "/build" => build::build;
        POST "/build/prune" => build::prune;
        POST "/build/cancel" => build::cancel;
        POST "/networks/create" => networks::create;
        POST "/networks/prune" => networks::prune;
        POST "/networks/{id}/connect" => networks::connect;
        POST "/networks/{id}/disconnect" => networks::disconnect;
        GET "/networks/{id}" => networks::inspect;
        DELETE "/networks/{id}" => networks::remove;
    }
}

fn refused_routes(router: &mut Router<Handler>) {
    routes! { router;
        POST "/session" => refused::build;
        POST "/grpc" => refused::build;
        GET "/plugins" => refused::no_plugins;
        GET "/plugins/{name:.*}" => refused::plugin;
        POST "/plugins/{name:.*}" => refused::plugin;
        DELETE "/plugins/{name:.*}" => refused::plugin;
        GET "/containers/{id}/checkpoints" => refused::checkpoint;
        POST "/containers/{id}/checkpoints" => refused::checkpoint;
        DELETE "/containers/{id}/checkpoints/{checkpoint}" => refused::checkpoint;
        GET "/swarm" => refused::swarm;
        GET "/swarm/unlockkey" => refused::swarm;
        POST "/swarm/init" => refused::swarm_membership;
        POST "/swarm/join" => refused::swarm_membership;
        POST "/swarm/leave" => refused::swarm_leave;
        POST "/swarm/{any}" => refused::swarm;
        GET "/nodes" => refused::swarm;
        GET "/nodes/{any:.*}" => refused::swarm;
        POST "/nodes/{any:.*}" => refused::swarm;
        DELETE "/nodes/{any:.*}" => refused::swarm;
        GET "/services" => refused::swarm;
        GET "/services/{any:.*}" => refused::swarm;
        POST "/services/{any:.*}" => refused::swarm;
        DELETE "/services/{any:.*}" => refused::swarm;
        GET "/tasks" => refused::swarm;
        GET "/tasks/{any:.*}" => refused::swarm;
        GET "/secrets" => refused::swarm;
        GET "/secrets/{any:.*}" => refused::swarm;
        POST "/secrets/{any:.*}" => refused::swarm;
        DELETE "/secrets/{any:.*}" => refused::swarm;
        GET "/configs" => refused::swarm;
        GET "/configs/{any:.*}" => refused::swarm;
        POST "/configs/{any:.*}" => refused::swarm;
        DELETE "/configs/{any:.*}" => refused::swarm;
    }
}

#[cfg(test)]
mod tests;

//! The daemon's end: all services behind `POST /grpc`, and the sessions behind `POST /session`.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use http::{Request, Response};
use prost::Message as _;
use tokio_stream::{Stream, StreamExt as _};
use tonic::Status;
use tonic::body::Body;
use tower_service::Service as _;

use crate::backend::{Backend, CacheRecord, Export, PruneRequest};
use crate::history::History;
use crate::jobs::Jobs;
use crate::session::Sessions;
use crate::status::Failure;
use crate::transport::{self, Duplex, LARGEST_MESSAGE, Services};
use crate::wire::control::{self, control_server::ControlServer};
use crate::wire::gateway::llb_bridge_server::LlbBridgeServer;
use crate::wire::health;

struct Parts {
    backend: Arc<dyn Backend>,
    sessions: Sessions,
    jobs: Arc<Jobs>,
    history: History,
}

/// The builder as clients see it.
#[derive(Clone)]
pub struct Server {
    parts: Arc<Parts>,
}

/// A build that is asked for without gRPC.
#[derive(Clone, Debug, Default)]
pub struct PlainBuild {
    /// Name of the build.
    pub id: String,
    /// Session of its client, may be empty.
    pub session: String,
    /// Options of the Dockerfile front end.
    pub options: BTreeMap<String, String>,
    /// Outputs.
    pub exports: Vec<Export>,
    /// Keep the cache's facts in the image.
    pub inline_cache: bool,
    /// What it may ask for beyond the usual.
    pub entitlements: Vec<String>,
}

impl Server {
    /// Makes a server. Trees for clients wait in `spool`, in files without names, until they are sent.
    pub fn new(backend: Arc<dyn Backend>, spool: PathBuf) -> Self {
        let (jobs, history) = (Arc::new(Jobs::default()), History::new());
        let parts = Parts { backend, sessions: Sessions::new(spool), jobs, history };
        Self { parts: Arc::new(parts) }
    }

    /// Serves the calls of one connection until it ends.
    pub async fn serve(&self, io: impl Duplex) {
        let services = Grpc {
            control: ControlServer::new(self.clone())
                .max_decoding_message_size(LARGEST_MESSAGE)
                .max_encoding_message_size(LARGEST_MESSAGE),
            gateway: LlbBridgeServer::new(self.clone())
                .max_decoding_message_size(LARGEST_MESSAGE)
                .max_encoding_message_size(LARGEST_MESSAGE),
        };
        if let Err(error) = transport::serve(io, services).await {
            tracing::debug!(%error, "a connection to the builder ended");
        }
    }

    /// The sessions that clients have opened.
    pub fn sessions(&self) -> &Sessions {
        &self.parts.sessions
    }

    /// Runs a build; dropping the future stops it.
    ///
    /// # Errors
    ///
    /// Why it failed.
    pub async fn plain_build(
        &self,
        build: PlainBuild,
    ) -> Result<BTreeMap<String, String>, Failure> {
        let inline =
            control::CacheOptionsEntry { r#type: "inline".to_owned(), ..Default::default() };
        let request = control::SolveRequest {
            r#ref: build.id,
            session: build.session,
            frontend: "dockerfile.v0".to_owned(),
            frontend_attrs: build.options.into_iter().collect(),
            entitlements: build.entitlements,
            cache: Some(control::CacheOptions {
                exports: build.inline_cache.then_some(inline).into_iter().collect(),
                ..Default::default()
            }),
            exporters: build
                .exports
                .into_iter()
                .map(|export| control::Exporter {
                    r#type: export.kind,
                    attrs: export.attrs.into_iter().collect(),
                })
                .collect(),
            ..Default::default()
        };
        self.build(request).await.map_err(|status| Failure::new(&status))
    }

    /// The news of a build, as encoded `StatusResponse` messages.
    ///
    /// # Errors
    ///
    /// When there is no such build.
    pub async fn plain_status(
        &self,
        id: &str,
    ) -> Result<impl Stream<Item = Vec<u8>> + Send + use<>, Failure> {
        let news = self.watch(id).await.map_err(|status| Failure::new(&status))?;
        Ok(news.filter_map(|batch| batch.ok().map(|batch| batch.encode_to_vec())))
    }

    /// Lists what is kept for later builds.
    ///
    /// # Errors
    ///
    /// When the cache cannot be read.
    pub async fn usage(&self) -> Result<Vec<CacheRecord>, rorqual_build::Error> {
        self.parts.backend.usage().await
    }

    /// Removes from what is kept for later builds.
    ///
    /// # Errors
    ///
    /// When a filter is wrong or something cannot be removed.
    pub async fn prune(
        &self,
        request: PruneRequest,
    ) -> Result<Vec<CacheRecord>, rorqual_build::Error> {
        self.parts.backend.prune(request).await
    }

    pub(crate) fn backend(&self) -> &Arc<dyn Backend> {
        &self.parts.backend
    }

    pub(crate) fn jobs(&self) -> &Arc<Jobs> {
        &self.parts.jobs
    }

    pub(crate) fn history(&self) -> &History {
        &self.parts.history
    }
}

#[derive(Clone)]
struct Grpc {
    control: ControlServer<Server>,
    gateway: LlbBridgeServer<Server>,
}

impl Services for Grpc {
    fn call(&self, request: Request<Body>) -> Pin<Box<dyn Future<Output = Response<Body>> + Send>> {
        let path = request.uri().path();
        let mut this = self.clone();
        if path.starts_with("/moby.buildkit.v1.Control/") {
            return answered(this.control.call(request));
        }
        if path.starts_with("/moby.buildkit.v1.frontend.LLBBridge/") {
            return answered(this.gateway.call(request));
        }
        if path.starts_with("/grpc.health.v1.Health/") {
            return answered(health::health_server::HealthServer::new(Healthy).call(request));
        }
        let answer = transport::unimplemented(path);
        Box::pin(async move { answer })
    }
}

type Answering =
    Pin<Box<dyn Future<Output = Result<Response<Body>, std::convert::Infallible>> + Send>>;

fn answered(answer: Answering) -> Pin<Box<dyn Future<Output = Response<Body>> + Send>> {
    Box::pin(async move {
        match answer.await {
            Ok(answer) => answer,
            Err(never) => match never {},
        }
    })
}

/// Answers that all is well: who can ask is served.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Healthy;

fn serving() -> health::HealthCheckResponse {
    health::HealthCheckResponse {
        status: health::health_check_response::ServingStatus::Serving as i32,
    }
}

#[async_trait]
impl health::health_server::Health for Healthy {
    type WatchStream =
        Pin<Box<dyn Stream<Item = Result<health::HealthCheckResponse, Status>> + Send>>;

    async fn check(
        &self,
        _: tonic::Request<health::HealthCheckRequest>,
    ) -> Result<tonic::Response<health::HealthCheckResponse>, Status> {
        Ok(tonic::Response::new(serving()))
    }

    async fn list(
        &self,
        _: tonic::Request<health::HealthListRequest>,
    ) -> Result<tonic::Response<health::HealthListResponse>, Status> {
        let statuses = [(String::new(), serving())].into_iter().collect();
        Ok(tonic::Response::new(health::HealthListResponse { statuses }))
    }

    async fn watch(
        &self,
        _: tonic::Request<health::HealthCheckRequest>,
    ) -> Result<tonic::Response<Self::WatchStream>, Status> {
        let first = tokio_stream::once(Ok(serving()));
        Ok(tonic::Response::new(Box::pin(first.chain(tokio_stream::pending()))))
    }
}

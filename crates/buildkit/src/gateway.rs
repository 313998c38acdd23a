//! The interface for front ends that run at the client: buildx drives every build through it.

use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use rorqual_build::{Error, Location, Progress, ResolveMode};
use tokio_stream::Stream;
use tonic::{Request, Response, Status, Streaming};

use crate::backend::{CacheEntry, Outcome, Refs, State};
use crate::caps;
use crate::control::sorted;
use crate::frontend::{Question, answer};
use crate::jobs::Job;
use crate::llb;
use crate::server::Server;
use crate::status::status;
use crate::wire::gateway::exec_message::Input;
use crate::wire::gateway::{self, llb_bridge_server::LlbBridge, result::Result as WireRefs};
use crate::wire::types;

const BUILD_ID: &str = "buildkit-controlapi-buildid";
/// LIMIT: what fits into one message beside its frame.
const LARGEST_FILE: u64 = 15 << 20;

impl Server {
    async fn job_of<T>(&self, request: &Request<T>) -> Result<Arc<Job>, Status> {
        let id = request.metadata().get(BUILD_ID).and_then(|id| id.to_str().ok());
        let id = id.ok_or_else(|| Status::invalid_argument("no buildid found in context"))?;
        self.jobs().wait(id).await
    }
}

fn told(job: &Job) -> impl Fn(Error) -> Status + '_ {
    |error| status(&error, &job.scope.sources())
}

/// A state that has to be there.
fn existing(job: &Job, id: &str) -> Result<State, Status> {
    job.state(id)?.ok_or_else(|| Status::invalid_argument(format!("empty ref: {id}")))
}

/// Gives the states of an outcome names, and clients their definitions where there is a form for them.
fn wire_result(
    job: &Job,
    outcome: Outcome,
    request: &gateway::SolveRequest,
) -> Result<gateway::Result, Status> {
    let named = |state: Option<State>| -> Result<gateway::Ref, Status> {
        let Some(state) = state else { return Ok(gateway::Ref::default()) };
        let def = llb::encode(&state.graph, state.output).ok();
        Ok(gateway::Ref { id: job.keep(Some(state)).map_err(told(job))?, def })
    };
    let result = match outcome.refs {
        Refs::One(state) => {
            let named = named(state)?;
            match request.allow_result_array_ref {
                true => WireRefs::Ref(named),
                false => WireRefs::RefDeprecated(named.id),
            }
        }
        Refs::Many(states) => {
            let named = states.into_iter().map(|(name, state)| Ok((name, named(state)?)));
            let refs = named.collect::<Result<std::collections::HashMap<_, _>, Status>>()?;
            match request.allow_result_array_ref {
                true => WireRefs::Refs(gateway::RefMap { refs }),
                false => {
                    let refs = refs.into_iter().map(|(name, named)| (name, named.id)).collect();
                    WireRefs::RefsDeprecated(gateway::RefMapDeprecated { refs })
                }
            }
        }
    };
    Ok(gateway::Result {
        metadata: outcome.metadata.into_iter().collect(),
        result: Some(result),
        ..gateway::Result::default()
    })
}

fn outcome(job: &Job, result: gateway::Result) -> Result<Outcome, Status> {
    if result.attestations.values().any(|list| !list.attestation.is_empty()) {
        return Err(Status::unimplemented(
            "attestations that a front end makes are not supported by this builder",
        ));
    }
    let refs = match result.result {
        None => Refs::One(None),
        Some(WireRefs::RefDeprecated(id)) => Refs::One(job.state(&id)?),
        Some(WireRefs::Ref(named)) => Refs::One(job.state(&named.id)?),
        Some(WireRefs::RefsDeprecated(map)) => {
            let named = map.refs.into_iter().map(|(name, id)| Ok((name, job.state(&id)?)));
            Refs::Many(named.collect::<Result<_, Status>>()?)
        }
        Some(WireRefs::Refs(map)) => {
            let named = map.refs.into_iter().map(|(name, named)| Ok((name, job.state(&named.id)?)));
            Refs::Many(named.collect::<Result<_, Status>>()?)
        }
    };
    Ok(Outcome { refs, metadata: sorted(result.metadata) })
}

fn mode(text: &str) -> ResolveMode {
    match text {
        "pull" => ResolveMode::Pull,
        "local" => ResolveMode::Local,
        _ => ResolveMode::Default,
    }
}

fn no_containers() -> Status {
    Status::unimplemented(
        "containers of front ends are not supported by this builder: it does not announce gateway.exec",
    )
}

#[async_trait]
impl LlbBridge for Server {
    type ExecProcessStream =
        Pin<Box<dyn Stream<Item = Result<gateway::ExecMessage, Status>> + Send>>;

    async fn resolve_image_config(
        &self,
        request: Request<gateway::ResolveImageConfigRequest>,
    ) -> Result<Response<gateway::ResolveImageConfigResponse>, Status> {
        let job = self.job_of(&request).await?;
        let request = request.into_inner();
        let platform = llb::platform(request.platform.as_ref());
        let mode = mode(&request.resolve_mode);
        let found = self.backend().resolve_image(&request.r#ref, &platform, mode, &job.scope).await;
        let found = found.map_err(told(&job))?;
        Ok(Response::new(gateway::ResolveImageConfigResponse {
            digest: found.digest.map(|digest| digest.to_string()).unwrap_or_default(),
            config: found.config,
            r#ref: found.reference,
        }))
    }

    async fn resolve_source_meta(
        &self,
        request: Request<gateway::ResolveSourceMetaRequest>,
    ) -> Result<Response<gateway::ResolveSourceMetaResponse>, Status> {
        let job = self.job_of(&request).await?;
        let request = request.into_inner();
        let source = request.source.ok_or_else(|| Status::invalid_argument("no source"))?;
        let Some(reference) = source.identifier.strip_prefix("docker-image://") else {
            return Err(Status::unimplemented(format!(
                "facts about the source {:?} cannot be resolved ahead: use it as it is",
                source.identifier
            )));
        };
        let platform = llb::platform(request.platform.as_ref());
        let mode = mode(&request.resolve_mode);
        let found = self.backend().resolve_image(reference, &platform, mode, &job.scope).await;
        let found = found.map_err(told(&job))?;
        let image = gateway::ResolveSourceImageResponse {
            digest: found.digest.map(|digest| digest.to_string()).unwrap_or_default(),
            config: found.config,
            attestation_chain: None,
        };
        Ok(Response::new(gateway::ResolveSourceMetaResponse {
            source: Some(crate::wire::pb::SourceOp {
                identifier: format!("docker-image://{}", found.reference),
                attrs: source.attrs,
            }),
            image: Some(image),
            git: None,
            http: None,
        }))
    }

    async fn solve(
        &self,
        request: Request<gateway::SolveRequest>,
    ) -> Result<Response<gateway::SolveResponse>, Status> {
        let job = self.job_of(&request).await?;
        let mut request = request.into_inner();
        let cache_imports = std::mem::take(&mut request.cache_imports).into_iter();
        let question = Question {
            frontend: request.frontend.clone(),
            definition: request.definition.take(),
            options: sorted(std::mem::take(&mut request.frontend_opt)),
            inputs: sorted(std::mem::take(&mut request.frontend_inputs)),
            cache_imports: cache_imports
                .map(|entry| CacheEntry { kind: entry.r#type, attrs: sorted(entry.attrs) })
                .collect(),
        };
        let outcome = answer(&**self.backend(), question, &job.scope).await?;
        if request.evaluate {
            for state in states(&outcome.refs) {
                self.backend().evaluate(state, &job.scope).await.map_err(told(&job))?;
            }
        }
        let result = wire_result(&job, outcome, &request)?;
        let default = match &result.result {
            Some(WireRefs::RefDeprecated(id)) => id.clone(),
            Some(WireRefs::Ref(named)) => named.id.clone(),
            _ => String::new(),
        };
        if request.r#final {
            // Old clients end their front end with the last definition.
            let metadata = serde_json::from_slice(&request.exporter_attr).unwrap_or_default();
            let refs = Refs::One(job.state(&default)?);
            job.finish(Ok(Outcome { refs, metadata }));
        }
        let r#ref = if request.allow_result_return { String::new() } else { default };
        Ok(Response::new(gateway::SolveResponse { r#ref, result: Some(result) }))
    }

    async fn read_file(
        &self,
        request: Request<gateway::ReadFileRequest>,
    ) -> Result<Response<gateway::ReadFileResponse>, Status> {
        let job = self.job_of(&request).await?;
        let request = request.into_inner();
        let state = existing(&job, &request.r#ref)?;
        let positive = |number: i64| u64::try_from(number).unwrap_or_default();
        let range = request.range.map(|range| (positive(range.offset), positive(range.length)));
        let range = range.map(|(offset, length)| (offset, length.min(LARGEST_FILE)));
        let data = self.backend().read_file(&state, &request.file_path, range, &job.scope).await;
        let data = data.map_err(told(&job))?;
        if data.len() as u64 > LARGEST_FILE {
            return Err(Status::out_of_range(format!(
                "{:?} is larger than {LARGEST_FILE} bytes: read it in pieces",
                request.file_path
            )));
        }
        Ok(Response::new(gateway::ReadFileResponse { data }))
    }

    async fn read_dir(
        &self,
        request: Request<gateway::ReadDirRequest>,
    ) -> Result<Response<gateway::ReadDirResponse>, Status> {
        let job = self.job_of(&request).await?;
        let request = request.into_inner();
        let state = existing(&job, &request.r#ref)?;
        let (path, pattern) = (&request.dir_path, &request.include_pattern);
        let entries = self.backend().read_dir(&state, path, pattern, &job.scope).await;
        let entries = entries.map_err(told(&job))?;
        let entries = entries.into_iter().map(crate::files::stat_of).collect();
        Ok(Response::new(gateway::ReadDirResponse { entries }))
    }

    async fn stat_file(
        &self,
        request: Request<gateway::StatFileRequest>,
    ) -> Result<Response<gateway::StatFileResponse>, Status> {
        let job = self.job_of(&request).await?;
        let request = request.into_inner();
        let state = existing(&job, &request.r#ref)?;
        let entry = self.backend().stat(&state, &request.path, &job.scope).await;
        let stat = Some(crate::files::stat_of(entry.map_err(told(&job))?));
        Ok(Response::new(gateway::StatFileResponse { stat }))
    }

    async fn evaluate(
        &self,
        request: Request<gateway::EvaluateRequest>,
    ) -> Result<Response<gateway::EvaluateResponse>, Status> {
        let job = self.job_of(&request).await?;
        let state = job.state(&request.into_inner().r#ref)?;
        if let Some(state) = state {
            self.backend().evaluate(&state, &job.scope).await.map_err(told(&job))?;
        }
        Ok(Response::new(gateway::EvaluateResponse {}))
    }

    async fn ping(
        &self,
        request: Request<gateway::PingRequest>,
    ) -> Result<Response<gateway::PongResponse>, Status> {
        self.job_of(&request).await?;
        let worker = self.backend().worker();
        let workers = vec![types::WorkerRecord {
            id: worker.id,
            labels: worker.labels.into_iter().collect(),
            platforms: worker.platforms.iter().map(llb::wire_platform).collect(),
            ..types::WorkerRecord::default()
        }];
        Ok(Response::new(gateway::PongResponse {
            frontend_api_caps: caps::frontend(),
            llb_caps: caps::definition(&worker.caps),
            workers,
        }))
    }

    async fn r#return(
        &self,
        request: Request<gateway::ReturnRequest>,
    ) -> Result<Response<gateway::ReturnResponse>, Status> {
        let job = self.job_of(&request).await?;
        let request = request.into_inner();
        let returned = match request.error {
            Some(error) => {
                let code = tonic::Code::from_i32(error.code);
                let message = error.message.clone();
                let details = prost::Message::encode_to_vec(&error).into();
                Err(Status::with_details(code, message, details))
            }
            None => outcome(&job, request.result.unwrap_or_default()),
        };
        job.finish(returned);
        Ok(Response::new(gateway::ReturnResponse {}))
    }

    async fn inputs(
        &self,
        request: Request<gateway::InputsRequest>,
    ) -> Result<Response<gateway::InputsResponse>, Status> {
        self.job_of(&request).await?;
        Ok(Response::new(gateway::InputsResponse::default()))
    }

    async fn new_container(
        &self,
        _: Request<gateway::NewContainerRequest>,
    ) -> Result<Response<gateway::NewContainerResponse>, Status> {
        Err(no_containers())
    }

    async fn release_container(
        &self,
        _: Request<gateway::ReleaseContainerRequest>,
    ) -> Result<Response<gateway::ReleaseContainerResponse>, Status> {
        Err(no_containers())
    }

    async fn exec_process(
        &self,
        request: Request<Streaming<gateway::ExecMessage>>,
    ) -> Result<Response<Self::ExecProcessStream>, Status> {
        let mut incoming = request.into_inner();
        let first = incoming.message().await?;
        let Some(Input::Init(init)) = first.and_then(|message| message.input) else {
            return Err(Status::invalid_argument("the first message starts no process"));
        };
        // The one container there is: the step that failed of a session's build.
        let session = self.sessions().find(&init.container_id).ok_or_else(no_containers)?;
        Ok(Response::new(Box::pin(crate::shell::open(session, incoming)?)))
    }

    async fn read_file_container(
        &self,
        _: Request<gateway::ReadFileRequest>,
    ) -> Result<Response<gateway::ReadFileResponse>, Status> {
        Err(no_containers())
    }

    async fn read_dir_container(
        &self,
        _: Request<gateway::ReadDirRequest>,
    ) -> Result<Response<gateway::ReadDirResponse>, Status> {
        Err(no_containers())
    }

    async fn stat_file_container(
        &self,
        _: Request<gateway::StatFileRequest>,
    ) -> Result<Response<gateway::StatFileResponse>, Status> {
        Err(no_containers())
    }

    async fn warn(
        &self,
        request: Request<gateway::WarnRequest>,
    ) -> Result<Response<gateway::WarnResponse>, Status> {
        let job = self.job_of(&request).await?;
        let request = request.into_inner();
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        let location = request.info.as_ref().and_then(|info| {
            let line =
                |position: Option<crate::wire::pb::Position>| u32::try_from(position?.line).ok();
            let range = request.ranges.first()?;
            let first_line = line(range.start)?;
            Some(Location {
                file: info.filename.clone(),
                first_line,
                first_column: 0,
                last_line: line(range.end).unwrap_or(first_line),
            })
        });
        if let Some(info) = request.info {
            job.scope.add_source(info.filename, info.data);
        }
        job.scope.progress.tell(Progress::Warning {
            vertex: request.digest.parse().ok(),
            short: text(request.short),
            detail: request.detail.into_iter().map(text).collect(),
            url: request.url,
            location,
        });
        Ok(Response::new(gateway::WarnResponse {}))
    }
}

fn states(refs: &Refs) -> Vec<&State> {
    match refs {
        Refs::One(state) => state.iter().collect(),
        Refs::Many(states) => states.values().flatten().collect(),
    }
}

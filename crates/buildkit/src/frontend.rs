//! Questions that a front end answers, or that are definitions already; asked by control clients and by client-side
//! front ends alike.

use std::collections::BTreeMap;
use std::sync::Arc;

use rorqual_build::Error;
use tonic::Status;

use crate::backend::{Backend, CacheEntry, FrontendRequest, Outcome, Refs, Scope, State};
use crate::llb;
use crate::status::status;
use crate::wire::pb;

/// What is asked.
#[derive(Default)]
pub(crate) struct Question {
    pub(crate) frontend: String,
    pub(crate) definition: Option<pb::Definition>,
    pub(crate) options: BTreeMap<String, String>,
    pub(crate) inputs: BTreeMap<String, pb::Definition>,
    pub(crate) cache_imports: Vec<CacheEntry>,
}

/// Repositories of the front end that is built in.
const OWN: [&str; 2] = ["docker/dockerfile", "docker/dockerfile-upstream"];

/// Tells whether an image is a Dockerfile front end, for which ours stands in.
fn is_own(image: &str) -> bool {
    let name = image.split_once('@').map_or(image, |(name, _)| name);
    let name = name.strip_prefix("docker.io/").unwrap_or(name);
    let name = name.strip_prefix("index.docker.io/").unwrap_or(name);
    let repository = name.split_once(':').map_or(name, |(repository, _)| repository);
    OWN.contains(&repository)
}

/// Answers a question.
pub(crate) async fn answer(
    backend: &dyn Backend,
    question: Question,
    scope: &Scope,
) -> Result<Outcome, Status> {
    let told = |error: Error| status(&error, &scope.sources());
    match question.frontend.as_str() {
        "" => {
            let state = decode(question.definition.as_ref(), scope).map_err(told)?;
            Ok(Outcome { refs: Refs::One(state), metadata: BTreeMap::new() })
        }
        "dockerfile.v0" => dockerfile(backend, question, scope).await,
        "gateway.v0" => {
            let image = question.options.get("source").cloned().unwrap_or_default();
            if is_own(&image) {
                return dockerfile(backend, question, scope).await;
            }
            Err(told(Error::Unsupported(format!(
                "cannot run the front end {image:?}: this builder has the Dockerfile front end built in (it answers for \
                 docker/dockerfile) and runs no others: remove the syntax line or BUILDKIT_SYNTAX"
            ))))
        }
        other => Err(Status::invalid_argument(format!("frontend {other} not found"))),
    }
}

async fn dockerfile(
    backend: &dyn Backend,
    question: Question,
    scope: &Scope,
) -> Result<Outcome, Status> {
    let told = |error: Error| match (&error, question.options.get("requestid")) {
        // The way in which clients recognise a front end that does not know their question.
        (Error::Unsupported(_), Some(id)) if !is_known_request(id) => {
            crate::status::unknown_subrequest(id)
        }
        _ => status(&error, &scope.sources()),
    };
    let mut inputs = BTreeMap::new();
    for (name, definition) in &question.inputs {
        if let Some(state) = decode(Some(definition), scope).map_err(told)? {
            inputs.insert(name.clone(), state);
        }
    }
    let request = FrontendRequest {
        options: question.options.clone(),
        inputs,
        cache_imports: question.cache_imports,
    };
    backend.dockerfile(request, scope).await.map_err(told)
}

fn is_known_request(id: &str) -> bool {
    matches!(
        id,
        "frontend.lint" | "frontend.outline" | "frontend.targets" | "frontend.subrequests.describe"
    )
}

fn decode(definition: Option<&pb::Definition>, scope: &Scope) -> Result<Option<State>, Error> {
    let Some(definition) = definition else { return Ok(None) };
    let decoded = llb::decode(definition)?;
    for (file, text) in decoded.sources {
        scope.add_source(file, text);
    }
    if decoded.result == rorqual_build::Input::Scratch {
        return Ok(None);
    }
    Ok(Some(State { graph: Arc::new(decoded.graph), output: decoded.result }))
}

#[cfg(test)]
mod tests;

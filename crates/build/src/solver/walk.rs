//! One solve: a future per vertex that is needed, each waiting for its inputs and then for its turn.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared, try_join_all};
use rorqual_core::Digest;

use super::cache::{CacheKind, Entry, Reasons, now};
use super::explain::BASE;
use super::flight::{Audience, Listener, Outcome};
use super::foreign::Walked;
use super::key::{Keyed, describe, vertex_digests};
use super::{Inner, Job, State, exec, explain, files, source};
use crate::Error;
use crate::contract::{LogStream, Progress, VertexUpdate};
use crate::error::other;
use crate::graph::{Graph, Input, MountKind, Op, OutputRef, Vertex, VertexId};

type Made = Shared<BoxFuture<'static, Outcome<Arc<Vec<State>>>>>;

/// A solve under way.
#[derive(Clone)]
pub(crate) struct Walk {
    pub(crate) inner: Arc<Inner>,
    graph: Arc<Graph>,
    pub(crate) job: Job,
    digests: Arc<Vec<Digest>>,
    made: Arc<Mutex<HashMap<VertexId, Made>>>,
}

/// What a vertex's key is made of.
pub(crate) struct Keys {
    /// The key by identity of the inputs, where they have one; tried first.
    pub(crate) quick: Option<String>,
    /// The key by content.
    pub(crate) key: String,
    pub(crate) reasons: Reasons,
    /// Under which id else they are found.
    pub(crate) other: Option<String>,
}

impl Walk {
    pub(crate) fn new(inner: Arc<Inner>, graph: Arc<Graph>, job: Job) -> Self {
        let digests = Arc::new(vertex_digests(&graph));
        Self { inner, graph, job, digests, made: Arc::default() }
    }

    /// Makes the wanted states; what was made for an earlier wish is not made again.
    pub(crate) async fn run(&self, wanted: &[OutputRef]) -> Result<Vec<State>, Error> {
        let needed = self.needed(wanted)?;
        let all = {
            let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
            for id in needed {
                self.begin(id, &mut made);
            }
            let all = wanted.iter().map(|output| (made.get(&output.vertex).cloned(), output.index));
            all.collect::<Vec<_>>()
        };
        let all = all.into_iter().map(|(work, index)| async move {
            let index = index as usize;
            let Some(work) = work else { return Err(Arc::new(no_such(index))) };
            let states = work.await?;
            states.get(index).cloned().ok_or_else(|| Arc::new(no_such(index)))
        });
        try_join_all(all).await.map_err(|error| Error::again(&error))
    }

    /// Prepares the work of a vertex, once; its inputs have theirs already.
    fn begin(&self, id: VertexId, made: &mut HashMap<VertexId, Made>) {
        let Some(vertex) = self.graph.vertex(id).filter(|_| !made.contains_key(&id)) else {
            return;
        };
        let inputs = vertex.op.inputs().into_iter().map(|input| match input {
            Input::Scratch => (None, 0),
            Input::Output(output) => (made.get(&output.vertex).cloned(), output.index),
        });
        let (walk, inputs) = (self.without_memory(), inputs.collect::<Vec<_>>());
        let work = async move { walk.vertex(id, inputs).await.map_err(Arc::new) };
        made.insert(id, work.boxed().shared());
    }

    /// What is remembered must not hold what remembers it.
    fn without_memory(&self) -> Self {
        Self { made: Arc::default(), ..self.clone() }
    }

    /// Lists the vertices that are needed, inputs first.
    fn needed(&self, wanted: &[OutputRef]) -> Result<BTreeSet<VertexId>, Error> {
        let mut needed = BTreeSet::new();
        let mut todo = wanted.iter().map(|output| output.vertex).collect::<Vec<_>>();
        while let Some(id) = todo.pop() {
            let vertex = self.graph.vertex(id).ok_or_else(|| no_such(0))?;
            if needed.insert(id) {
                todo.extend(vertex.op.inputs().into_iter().filter_map(|input| match input {
                    Input::Scratch => None,
                    Input::Output(output) => Some(output.vertex),
                }));
            }
        }
        Ok(needed)
    }

    async fn vertex(
        self,
        id: VertexId,
        inputs: Vec<(Option<Made>, u32)>,
    ) -> Result<Arc<Vec<State>>, Error> {
        let inputs = inputs.into_iter().map(|(work, index)| {
            let empty = self.scratch();
            async move {
                let Some(work) = work else { return Ok(empty) };
                let states = work.await?;
                states.get(index as usize).cloned().ok_or_else(|| Arc::new(no_such(index as usize)))
            }
        });
        // An input that failed has told so itself.
        let inputs = try_join_all(inputs).await.map_err(|error| Error::again(&error))?;
        let Some(vertex) = self.graph.vertex(id).cloned() else { return Err(no_such(0)) };
        let started = SystemTime::now();
        self.tell(id, &vertex, (Some(started), None), (false, ""));
        let result = self
            .make(id, &vertex, inputs)
            .await
            .map_err(|error| error.at(vertex.location.as_ref()));
        let ended = Some(SystemTime::now());
        match result {
            Ok((states, cached)) => {
                self.tell(id, &vertex, (Some(started), ended), (cached, ""));
                Ok(states)
            }
            Err(error) => {
                let text = rorqual_core::full_message(&error);
                self.tell(id, &vertex, (Some(started), ended), (false, &text));
                Err(error)
            }
        }
    }

    fn tell(
        &self,
        id: VertexId,
        vertex: &Vertex,
        (started, completed): (Option<SystemTime>, Option<SystemTime>),
        (cached, error): (bool, &str),
    ) {
        let digest = |id: VertexId| self.digests.get(id.0 as usize).cloned();
        let inputs = vertex.op.inputs().into_iter().filter_map(|input| match input {
            Input::Scratch => None,
            Input::Output(output) => digest(output.vertex),
        });
        let mut inputs = inputs.collect::<Vec<_>>();
        inputs.dedup();
        let Some(digest) = digest(id) else { return };
        self.job.progress.tell(Progress::Vertex(VertexUpdate {
            digest,
            inputs,
            name: vertex.name.clone(),
            started,
            completed,
            cached,
            error: error.to_owned(),
        }));
    }

    /// The empty file system.
    pub(crate) fn scratch(&self) -> State {
        self.state(Vec::new())
    }

    /// Makes a state of layers that are held while it lives.
    pub(crate) fn state(&self, layers: Vec<rorqual_core::DiffId>) -> State {
        let held = self.inner.parts.cache.hold(&layers);
        State::layers_held(layers, held)
    }

    async fn make(
        &self,
        id: VertexId,
        vertex: &Vertex,
        inputs: Vec<State>,
    ) -> Result<(Arc<Vec<State>>, bool), Error> {
        match &vertex.op {
            // Sources know best themselves whether there is something new.
            Op::Image(_) | Op::Local(_) | Op::Http(_) | Op::Git(_) => self.source(id, vertex).await,
            Op::Merge(_) => {
                let layers = inputs.iter().flat_map(State::layers).cloned().collect();
                Ok((Arc::new(vec![self.layered(inputs.iter(), layers)?]), true))
            }
            Op::Diff { .. } => self.diff(&inputs),
            Op::Exec(_) | Op::File(_) => self.step(id, vertex, inputs).await,
        }
    }

    fn layered<'s>(
        &self,
        mut states: impl Iterator<Item = &'s State>,
        layers: Vec<rorqual_core::DiffId>,
    ) -> Result<State, Error> {
        if states.all(State::is_layered) {
            return Ok(self.state(layers));
        }
        let text = "directories of the client cannot be merged; copy them into a state first";
        Err(Error::Unsupported(text.to_owned()))
    }

    /// What was put on top of the lower state is what the upper one has more.
    fn diff(&self, inputs: &[State]) -> Result<(Arc<Vec<State>>, bool), Error> {
        let [lower, upper] = inputs else { return Err(no_such(0)) };
        match upper.layers().strip_prefix(lower.layers()) {
            Some(more) => Ok((Arc::new(vec![self.layered(inputs.iter(), more.to_vec())?]), true)),
            None => Err(Error::Unsupported(
                "the difference of two states of which neither was made from the other".to_owned(),
            )),
        }
    }

    async fn source(
        &self,
        id: VertexId,
        vertex: &Vertex,
    ) -> Result<(Arc<Vec<State>>, bool), Error> {
        let digest = self.digest(id)?;
        let audience = Audience::of(Listener::new(&self.job, digest));
        let (state, cached) = source::bring(self, vertex, &audience).await?;
        Ok((Arc::new(vec![state]), cached))
    }

    fn digest(&self, id: VertexId) -> Result<Digest, Error> {
        self.digests.get(id.0 as usize).cloned().ok_or_else(|| no_such(0))
    }

    async fn step(
        &self,
        id: VertexId,
        vertex: &Vertex,
        inputs: Vec<State>,
    ) -> Result<(Arc<Vec<State>>, bool), Error> {
        exec::allowed(self, vertex)?;
        let keys = self.keys(id, vertex, &inputs).await?;
        let keys = Arc::new(keys);
        let (states, cached) = self.find_or_perform(id, vertex, (inputs, &keys)).await?;
        if let Some(recorder) = &self.job.recorder {
            recorder.note(Walked {
                keys: keys.all().into_iter().cloned().collect(),
                outputs: states.iter().map(|state| state.layers().to_vec()).collect(),
            });
            for id in mounts(vertex) {
                recorder.note_mount(id);
            }
        }
        Ok((states, cached))
    }

    async fn find_or_perform(
        &self,
        id: VertexId,
        vertex: &Vertex,
        (inputs, keys): (Vec<State>, &Arc<Keys>),
    ) -> Result<(Arc<Vec<State>>, bool), Error> {
        let digest = self.digest(id)?;
        if !vertex.ignore_cache {
            for key in keys.all() {
                if let Some(states) = self.cached(key).await? {
                    self.remember(keys, vertex, &states).await?;
                    return Ok((states, true));
                }
            }
            if let Some(states) = self.imported(vertex, keys, &digest).await? {
                self.remember(keys, vertex, &states).await?;
                return Ok((states, true));
            }
        }
        if self.job.explain {
            let audience = Audience::of(Listener::new(&self.job, digest.clone()));
            explain::tell(self, vertex, keys, &audience).await?;
        }
        // A step that must run is nobody else's.
        let alone =
            if vertex.ignore_cache { format!("{}/{id:?}", self.job.id) } else { String::new() };
        let (walk, vertex, keys) = (self.clone(), vertex.clone(), Arc::clone(keys));
        let flight = format!("{}{alone}", keys.key);
        let who = Listener::new(&self.job, digest);
        let work = self.inner.flights.join(&flight, who, |audience| {
            async move { walk.perform(&vertex, &inputs, &keys, audience).await.map_err(Arc::new) }
                .boxed()
        });
        let states = work.await.map_err(|error| Error::again(&error))?;
        Ok((states, false))
    }

    /// Does the work of a step and remembers it.
    async fn perform(
        &self,
        vertex: &Vertex,
        inputs: &[State],
        keys: &Keys,
        audience: Audience,
    ) -> Result<Arc<Vec<State>>, Error> {
        let _slot = self.inner.slots.acquire().await.map_err(other("wait for a turn"))?;
        let states = match &vertex.op {
            Op::Exec(exec) => exec::run(self, vertex, exec, inputs, &audience).await?,
            Op::File(file) => vec![files::run(self, file, inputs).await?],
            _ => return Err(no_such(0)),
        };
        let states = Arc::new(states);
        self.remember(keys, vertex, &states).await?;
        Ok(states)
    }

    async fn remember(
        &self,
        keys: &Keys,
        vertex: &Vertex,
        states: &Arc<Vec<State>>,
    ) -> Result<(), Error> {
        let cache = &self.inner.parts.cache;
        let mut size = 0;
        for layer in states.iter().filter_map(|state| state.layers().last()) {
            let known = self.inner.parts.snapshots.find_layer(layer).await;
            size += known.map_err(other("measure a layer"))?.map_or(0, |info| info.size);
        }
        for key in keys.quick.iter().chain([&keys.key]) {
            if cache.get(key).is_some() && !vertex.ignore_cache {
                continue;
            }
            let outputs = states.iter().map(|state| state.layers().to_vec()).collect();
            // What is known by two keys is there once.
            let size = if *key == keys.key { size } else { 0 };
            cache
                .put(Entry {
                    key: key.clone(),
                    kind: CacheKind::Regular,
                    description: vertex.name.clone(),
                    outputs,
                    directory: String::new(),
                    tag: String::new(),
                    size,
                    created: now(),
                    used: now(),
                    uses: 1,
                })
                .await?;
        }
        if let Some(id) = &keys.other {
            cache.put_reasons(id, &keys.reasons).await?;
        }
        cache.put_reasons(&keys.reasons.id, &keys.reasons).await
    }

    /// Takes a step from a cache that came from elsewhere. One that cannot deliver is as good as none.
    async fn imported(
        &self,
        vertex: &Vertex,
        keys: &Keys,
        digest: &Digest,
    ) -> Result<Option<Arc<Vec<State>>>, Error> {
        for cache in &self.job.imports {
            match cache.find(&self.inner, &keys.all(), output_count(vertex)).await {
                Ok(Some(states)) => return Ok(Some(Arc::new(states))),
                Ok(None) => {}
                Err(Error::Cancelled) => return Err(Error::Cancelled),
                Err(error) => {
                    let audience = Audience::of(Listener::new(&self.job, digest.clone()));
                    let why = rorqual_core::full_message(&error);
                    let text = format!("an imported cache was not of use: {why}\n");
                    audience.log(LogStream::Stderr, text.as_bytes());
                }
            }
        }
        Ok(None)
    }

    /// Finds what a cache mount held elsewhere.
    pub(crate) async fn imported_mount(&self, id: &str) -> Option<State> {
        for cache in &self.job.imports {
            match cache.mount(&self.inner, id).await {
                Ok(Some(state)) => return Some(state),
                Ok(None) => {}
                Err(error) => {
                    let error = rorqual_core::full_message(&error);
                    tracing::warn!(error, "cannot take the content of a cache mount");
                }
            }
        }
        None
    }

    async fn cached(&self, key: &str) -> Result<Option<Arc<Vec<State>>>, Error> {
        let found = self.inner.parts.cache.find(key, &self.inner.parts).await?;
        Ok(found.map(|outputs| {
            let state = |(layers, held)| State::layers_held(layers, held);
            Arc::new(outputs.into_iter().map(state).collect())
        }))
    }

    /// Makes the keys of a step: what it is, and what its inputs are.
    async fn keys(&self, own: VertexId, vertex: &Vertex, inputs: &[State]) -> Result<Keys, Error> {
        let op = describe(&vertex.op, &vertex.platform);
        let parts = match &vertex.op {
            Op::File(file) => files::identities(self, file, inputs).await?,
            Op::Exec(exec) => exec::identities(self, exec, inputs).await?,
            _ => Vec::new(),
        };
        let kind = "step";
        let mut key = Keyed::new(kind).with(op.as_bytes());
        let mut quick = Some(Keyed::new("quick").with(op.as_bytes()));
        let mut reasons = Vec::new();
        for mut part in parts {
            if part.name == BASE {
                part.name = explain::base(&self.graph, vertex);
            }
            key = key.with(part.content.as_bytes());
            quick = match (quick, part.quick) {
                (Some(quick), Some(own)) => Some(quick.with(own.as_bytes())),
                _ => None,
            };
            reasons.push((part.name, part.content, part.entries));
        }
        let (id, other) = explain::ids(&self.graph, own, vertex);
        let reasons = Reasons { id, op: explain::fields(vertex), inputs: reasons };
        Ok(Keys {
            quick: quick.map(|quick| quick.digest().hex().to_owned()),
            key: key.digest().hex().to_owned(),
            reasons,
            other,
        })
    }
}

impl Keys {
    /// Lists the keys, the one that costs less first.
    fn all(&self) -> Vec<&String> {
        self.quick.iter().chain([&self.key]).collect()
    }
}

/// Tells how many states a step makes.
fn output_count(vertex: &Vertex) -> usize {
    match &vertex.op {
        Op::Exec(exec) => {
            let outputs = exec.mounts.iter().filter_map(|mount| mount.output);
            outputs.max().map_or(0, |last| last as usize + 1)
        }
        _ => 1,
    }
}

/// Lists the cache mounts of a step.
fn mounts(vertex: &Vertex) -> impl Iterator<Item = &str> {
    let mounts = match &vertex.op {
        Op::Exec(exec) => exec.mounts.as_slice(),
        _ => &[],
    };
    mounts.iter().filter_map(|mount| match &mount.kind {
        MountKind::Cache { id, .. } => Some(id.as_str()),
        _ => None,
    })
}

/// What one input is to a key.
pub(crate) struct Identity {
    /// What people call it.
    pub(crate) name: String,
    /// By its layers, where it has some.
    pub(crate) quick: Option<String>,
    /// By its content, as far as the step sees it.
    pub(crate) content: String,
    /// The entries that the step sees, each with a short digest.
    pub(crate) entries: Vec<(String, u64)>,
}

fn no_such(index: usize) -> Error {
    Error::Invalid {
        message: format!("the build graph has no such output: {index}"),
        location: None,
    }
}

//! The graph while it is made: directories of the client become vertices before it is known which of their paths are used.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeSet, HashMap};
use std::fmt::Write;
use std::hash::Hasher;

use rorqual_core::Platform;

use crate::dockerfile::fault::invalid;
use crate::dockerfile::{BuildContext, FrontendInput, FrontendRequest};
use crate::{
    CopyAction, Error, FileAction, FileOp, FileOwner, Graph, Input, LocalSource, Op, Vertex,
    VertexId,
};

/// A graph that is being made.
pub(super) struct Draft {
    graph: Graph,
    /// Vertices by a hash of what they do.
    known: HashMap<u64, Vec<VertexId>>,
    locals: Vec<Local>,
    main: Main,
}

/// Hashes what is written, without keeping it.
struct Hashed(DefaultHasher);

impl Write for Hashed {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.0.write(text.as_bytes());
        Ok(())
    }
}

/// A directory of the client.
struct Local {
    vertex: VertexId,
    source: LocalSource,
    used: BTreeSet<String>,
}

/// The main context: not made yet, or made.
enum Main {
    Wanted(Box<Wanted>),
    Made(Input, Option<usize>),
}

struct Wanted {
    context: BuildContext,
    session: Option<String>,
    exclude: Vec<String>,
    input: Option<(Graph, Input)>,
}

impl Draft {
    pub(super) fn new(request: &FrontendRequest, exclude: &[String]) -> Result<Self, Error> {
        let mut wanted = Wanted {
            context: request.context.clone(),
            session: None,
            exclude: exclude.to_vec(),
            input: None,
        };
        match &request.context {
            BuildContext::Local { name, .. } => {
                wanted.session = request.options.local_sessions.get(name).cloned();
            }
            BuildContext::Input(name) => {
                let found = request.inputs.get(name);
                let found =
                    found.ok_or_else(|| invalid(format!("invalid input {name} for context")))?;
                wanted.input = Some((found.graph.clone(), found.output));
            }
            BuildContext::Git(_) | BuildContext::Archive(_) | BuildContext::Empty => {}
        }
        let main = Main::Wanted(Box::new(wanted));
        Ok(Self { graph: Graph::default(), known: HashMap::new(), locals: Vec::new(), main })
    }

    /// Adds a vertex. The same operation on the same inputs is one vertex, whatever it is called: stages may begin alike, and
    /// several platforms may share what runs on the builder's own.
    pub(super) fn add(&mut self, vertex: Vertex) -> Result<Input, Error> {
        let mut hash = Hashed(DefaultHasher::new());
        let written = write!(hash, "{:?} {} {}", vertex.op, vertex.platform, vertex.ignore_cache);
        let alike = self.known.entry(hash.0.finish()).or_default();
        if written.is_ok() {
            let same = |id: &&VertexId| {
                self.graph.vertex(**id).is_some_and(|known| {
                    known.op == vertex.op
                        && known.platform == vertex.platform
                        && known.ignore_cache == vertex.ignore_cache
                })
            };
            if let Some(id) = alike.iter().find(same) {
                return Ok(Input::of(*id));
            }
        }
        let id = self.graph.add(vertex)?;
        alike.push(id);
        Ok(Input::of(id))
    }

    pub(super) fn import(&mut self, graph: &Graph, state: Input) -> Result<Input, Error> {
        let states = self.graph.import(graph, &[state])?;
        Ok(states.first().copied().unwrap_or(Input::Scratch))
    }

    /// The state of the main context.
    pub(super) fn context(&mut self, platform: &Platform) -> Result<Input, Error> {
        if let Main::Made(state, _) = &self.main {
            return Ok(*state);
        }
        let made = Main::Made(Input::Scratch, None);
        let Main::Wanted(wanted) = std::mem::replace(&mut self.main, made) else {
            return Ok(Input::Scratch);
        };
        let (state, local) = self.make_context(*wanted, platform)?;
        self.main = Main::Made(state, local);
        Ok(state)
    }

    fn make_context(
        &mut self,
        wanted: Wanted,
        platform: &Platform,
    ) -> Result<(Input, Option<usize>), Error> {
        let vertex = |op, name: String| Vertex {
            op,
            name,
            platform: platform.clone(),
            ignore_cache: false,
            location: None,
        };
        match wanted.context {
            BuildContext::Local { name, shared_key } => {
                let source = LocalSource {
                    name,
                    session: wanted.session,
                    exclude: wanted.exclude,
                    shared_key,
                    ..LocalSource::default()
                };
                let label = "[internal] load build context".to_owned();
                let (state, local) = self.local(source, label, platform)?;
                Ok((state, Some(local)))
            }
            BuildContext::Git(source) => {
                let name = format!("[internal] load git source {}", source.remote);
                Ok((self.add(vertex(Op::Git(source), name))?, None))
            }
            BuildContext::Archive(mut source) => {
                let name = format!("[internal] load remote build context {}", source.url);
                let file = source.filename.get_or_insert_with(|| "context".to_owned()).clone();
                let archive = self.add(vertex(Op::Http(source), name))?;
                let copy = CopyAction {
                    unpack: true,
                    make_parents: true,
                    ..copy_of(archive, format!("/{file}"), "/".to_owned())
                };
                let actions = vec![FileAction::Copy(Box::new(copy))];
                let op = Op::File(FileOp { base: Input::Scratch, actions });
                Ok((
                    self.add(vertex(op, "[internal] unpack remote build context".to_owned()))?,
                    None,
                ))
            }
            BuildContext::Input(_) => match wanted.input {
                Some((graph, state)) => Ok((self.import(&graph, state)?, None)),
                None => Ok((Input::Scratch, None)),
            },
            BuildContext::Empty => Ok((Input::Scratch, None)),
        }
    }

    /// A directory of the client; the same one is one vertex, also for several platforms.
    pub(super) fn local(
        &mut self,
        source: LocalSource,
        label: String,
        platform: &Platform,
    ) -> Result<(Input, usize), Error> {
        if let Some(number) = self.locals.iter().position(|local| local.source == source) {
            return Ok((Input::of(self.locals[number].vertex), number));
        }
        let vertex = self.graph.add(Vertex {
            op: Op::Local(source.clone()),
            name: label,
            platform: platform.clone(),
            ignore_cache: false,
            location: None,
        })?;
        self.locals.push(Local { vertex, source, used: BTreeSet::new() });
        Ok((Input::of(vertex), self.locals.len() - 1))
    }

    /// Notes that paths of the main context are used.
    pub(super) fn use_context(&mut self, paths: &BTreeSet<String>) {
        if let Main::Made(_, Some(local)) = self.main {
            self.use_local(local, paths);
        }
    }

    pub(super) fn use_local(&mut self, local: usize, paths: &BTreeSet<String>) {
        self.locals[local].used.extend(paths.iter().cloned());
    }

    /// Tells each directory which of its paths are needed: all, when its root is among them.
    pub(super) fn finish(mut self) -> Graph {
        for local in self.locals {
            if local.used.contains("/") {
                continue;
            }
            if let Some(source) = self.graph.source_mut(local.vertex) {
                let paths = local.used.iter().map(|path| path.trim_start_matches('/').to_owned());
                source.follow = paths.collect();
            }
        }
        self.graph
    }
}

/// The state of a context that no client's session holds: a repository, or an archive, unpacked. What lies at an address and
/// is no archive is the file `context` in it.
pub fn remote_context(context: &BuildContext) -> Result<FrontendInput, Error> {
    let mut draft = Draft {
        graph: Graph::default(),
        known: HashMap::new(),
        locals: Vec::new(),
        main: Main::Made(Input::Scratch, None),
    };
    let wanted =
        Wanted { context: context.clone(), session: None, exclude: Vec::new(), input: None };
    let (output, _) = draft.make_context(wanted, &Platform::host())?;
    Ok(FrontendInput { graph: draft.finish(), output })
}

/// A copy with nothing special.
pub(super) const fn copy_of(from: Input, source: String, target: String) -> CopyAction {
    CopyAction {
        from,
        source,
        target,
        owner: FileOwner::Keep,
        mode: None,
        follow_link: false,
        contents_only: false,
        unpack: false,
        make_parents: false,
        wildcard: false,
        allow_empty_wildcard: false,
        include: Vec::new(),
        exclude: Vec::new(),
        parents: false,
        required: Vec::new(),
        replace: false,
        created: None,
    }
}

//! Keys: what a step is, over what its inputs are. Two steps with one key make the same; nothing of who builds is in it.

use rorqual_core::{DiffId, Digest, Platform};
use sha2::{Digest as _, Sha256};

use crate::graph::{FileAction, Graph, Input, Op, Vertex, VertexId};

/// Version of how keys are made; another one finds nothing of what was made before.
const VERSION: &str = "rorqual-build-1";

/// Makes a digest of fields, each with its length.
#[derive(Clone)]
pub(crate) struct Keyed(Sha256);

impl Keyed {
    pub(crate) fn new(kind: &str) -> Self {
        Self(Sha256::new()).with(VERSION.as_bytes()).with(kind.as_bytes())
    }

    pub(crate) fn with(mut self, field: &[u8]) -> Self {
        self.0.update((field.len() as u64).to_le_bytes());
        self.0.update(field);
        self
    }

    pub(crate) fn layers(self, layers: &[DiffId]) -> Self {
        let all = self.with(&(layers.len() as u64).to_le_bytes());
        layers.iter().fold(all, |all, layer| all.with(layer.0.hex().as_bytes()))
    }

    pub(crate) fn digest(self) -> Digest {
        Digest::sha256(self.0.finalize().into())
    }
}

/// Describes an operation without where its inputs are in the graph, and without what does not change what it makes.
pub(crate) fn describe(op: &Op, platform: &Platform) -> String {
    let mut op = op.clone();
    match &mut op {
        Op::Exec(exec) => {
            // A proxy is a way to the same things.
            exec.proxy_env.clear();
            for mount in &mut exec.mounts {
                mount.input = mount.input.map(|_| Input::Scratch);
            }
        }
        Op::File(file) => {
            file.base = Input::Scratch;
            for action in &mut file.actions {
                if let FileAction::Copy(copy) = action {
                    copy.from = Input::Scratch;
                }
            }
        }
        Op::Merge(inputs) => inputs.fill(Input::Scratch),
        Op::Diff { lower, upper } => (*lower, *upper) = (Input::Scratch, Input::Scratch),
        Op::Image(_) | Op::Local(_) | Op::Git(_) | Op::Http(_) => {}
    }
    // Every field is in it, also one that is added later.
    format!("{op:?} for {platform}")
}

/// Returns a vertex's identity in the progress: of the operation and its inputs.
pub fn vertex_digest(graph: &Graph, id: VertexId) -> Option<Digest> {
    vertex_digests(graph).into_iter().nth(id.0 as usize)
}

/// Returns the identities of all vertices.
pub fn vertex_digests(graph: &Graph) -> Vec<Digest> {
    let mut all: Vec<Digest> = Vec::new();
    for (_, vertex) in graph.vertices() {
        all.push(identity(vertex, &all));
    }
    all
}

fn identity(vertex: &Vertex, before: &[Digest]) -> Digest {
    let mut key = Keyed::new("vertex")
        .with(describe(&vertex.op, &vertex.platform).as_bytes())
        .with(vertex.name.as_bytes());
    for input in vertex.op.inputs() {
        key = match input {
            Input::Scratch => key.with(b"scratch"),
            Input::Output(output) => {
                let digest = before.get(output.vertex.0 as usize);
                key.with(digest.map_or("", Digest::hex).as_bytes())
                    .with(&output.index.to_le_bytes())
            }
        };
    }
    key.digest()
}

//! From definitions to graphs.

use std::collections::HashMap;

use prost::Message as _;
use rorqual_build::{Error, Graph, Input, Location, Op, OutputRef, Vertex};
use sha2::{Digest as _, Sha256};

use super::{exec, file, invalid, platform, source};
use crate::wire::pb;
use crate::{caps, hex};

/// LIMIT: operations of one definition.
const MOST_OPS: usize = 50_000;
/// LIMIT: outputs of one operation; an exec has one for each mount.
const MOST_OUTPUTS: i64 = 1024;

/// A definition as a graph.
#[derive(Debug)]
pub(crate) struct Decoded {
    pub(crate) graph: Graph,
    /// What the definition stands for.
    pub(crate) result: Input,
    /// Files that messages may show pieces of.
    pub(crate) sources: Vec<(String, Vec<u8>)>,
}

struct Node {
    digest: String,
    op: pb::Op,
}

/// States by the operation's digest and the number of its output.
type States = HashMap<(String, i64), Input>;

/// Translates a definition.
pub(crate) fn decode(definition: &pb::Definition) -> Result<Decoded, Error> {
    let Some((last, rest)) = definition.def.split_last() else {
        return Ok(Decoded {
            graph: Graph::default(),
            result: Input::Scratch,
            sources: Vec::new(),
        });
    };
    if rest.len() > MOST_OPS {
        return Err(invalid(format!("the definition has more than {MOST_OPS} operations")));
    }
    let last = pb::Op::decode(&last[..]).map_err(|error| malformed(&error))?;
    let [wanted] = &last.inputs[..] else {
        return Err(invalid("the last operation of a definition must have exactly one input"));
    };
    let nodes = rest.iter().map(|bytes| node(bytes)).collect::<Result<Vec<_>, _>>()?;
    let order = inputs_first(&nodes, &wanted.digest)?;
    let mut decoder = Decoder { definition, graph: Graph::default(), states: States::new() };
    for at in order {
        decoder.add(&nodes[at])?;
    }
    let result = decoder.state(wanted)?;
    let infos = definition.source.iter().flat_map(|source| &source.infos);
    let sources = infos.map(|info| (info.filename.clone(), info.data.clone())).collect();
    Ok(Decoded { graph: decoder.graph, result, sources })
}

fn malformed(error: &prost::DecodeError) -> Error {
    invalid(format!("the definition is damaged: {error}"))
}

fn node(bytes: &[u8]) -> Result<Node, Error> {
    let digest = format!("sha256:{}", hex(&Sha256::digest(bytes)));
    let op = pb::Op::decode(bytes).map_err(|error| malformed(&error))?;
    Ok(Node { digest, op })
}

/// The operations that a result needs, every one after its inputs.
fn inputs_first(nodes: &[Node], wanted: &str) -> Result<Vec<usize>, Error> {
    let by_digest: HashMap<&str, usize> =
        nodes.iter().enumerate().map(|(at, node)| (node.digest.as_str(), at)).collect();
    let find = |digest: &str| {
        by_digest
            .get(digest)
            .copied()
            .ok_or_else(|| invalid(format!("invalid missing input digest {digest}")))
    };
    // A digest covers those of the inputs, so there are no cycles; the walk is a loop because depth is the client's.
    let (mut order, mut is_placed) = (Vec::new(), vec![false; nodes.len()]);
    let mut stack = vec![(find(wanted)?, 0)];
    while let Some((at, input)) = stack.pop() {
        if is_placed[at] {
            continue;
        }
        match nodes[at].op.inputs.get(input) {
            Some(next) => {
                stack.push((at, input + 1));
                let next = find(&next.digest)?;
                if !is_placed[next] {
                    stack.push((next, 0));
                }
            }
            None => {
                is_placed[at] = true;
                order.push(at);
            }
        }
    }
    Ok(order)
}

struct Decoder<'a> {
    definition: &'a pb::Definition,
    graph: Graph,
    states: States,
}

impl Decoder<'_> {
    fn state(&self, input: &pb::Input) -> Result<Input, Error> {
        let key = (input.digest.clone(), input.index);
        let missing = || invalid(format!("{} has no output {}", input.digest, input.index));
        self.states.get(&key).copied().ok_or_else(missing)
    }

    fn add(&mut self, node: &Node) -> Result<(), Error> {
        let metadata = self.definition.metadata.get(&node.digest);
        for cap in metadata.iter().flat_map(|metadata| metadata.caps.keys()) {
            if !caps::is_known(cap) {
                return Err(Error::Unsupported(format!(
                    "requested build definition feature {cap} is not supported by this builder"
                )));
            }
        }
        let inputs =
            node.op.inputs.iter().map(|input| self.state(input)).collect::<Result<Vec<_>, _>>()?;
        let vertex = |op: Op| Vertex {
            name: name(metadata, &op),
            op,
            platform: platform(node.op.platform.as_ref()),
            ignore_cache: metadata.is_some_and(|metadata| metadata.ignore_cache),
            location: location(self.definition, &node.digest),
        };
        let outputs = match &node.op.op {
            Some(pb::op::Op::Source(wire)) => {
                self.graph.add(vertex(source::decode(wire)?)).map(|id| one(id, 0))?
            }
            Some(pb::op::Op::Exec(wire)) => {
                let (op, outputs) = exec::decode(wire, &inputs)?;
                let id = self.graph.add(vertex(Op::Exec(Box::new(op))))?;
                let output = |index: i64| {
                    (index, Input::Output(OutputRef { vertex: id, index: index as u32 }))
                };
                outputs.into_iter().map(output).collect()
            }
            Some(pb::op::Op::File(wire)) => file::decode(wire, &inputs, |op| {
                let id = self.graph.add(vertex(Op::File(op)))?;
                Ok(Input::Output(OutputRef { vertex: id, index: 0 }))
            })?,
            Some(pb::op::Op::Merge(wire)) => {
                let layers = wire.inputs.iter().map(|input| pick(&inputs, input.input));
                let op = Op::Merge(layers.collect::<Result<Vec<_>, _>>()?);
                self.graph.add(vertex(op)).map(|id| one(id, 0))?
            }
            Some(pb::op::Op::Diff(wire)) => {
                let lower = pick(&inputs, wire.lower.map_or(-1, |lower| lower.input))?;
                let upper = pick(&inputs, wire.upper.map_or(-1, |upper| upper.input))?;
                self.graph.add(vertex(Op::Diff { lower, upper })).map(|id| one(id, 0))?
            }
            Some(pb::op::Op::Build(_)) => {
                return Err(Error::Unsupported(
                    "definitions that contain builds (BuildOp) are not supported: solve the inner definition by itself"
                        .to_owned(),
                ));
            }
            None => {
                return Err(Error::Unsupported(format!(
                    "the definition has an operation of a kind that this builder does not know ({})",
                    node.digest
                )));
            }
        };
        for (index, state) in outputs {
            if !(0..MOST_OUTPUTS).contains(&index) {
                return Err(invalid(format!("{index} is no possible number of an output")));
            }
            self.states.insert((node.digest.clone(), index), state);
        }
        Ok(())
    }
}

fn one(vertex: rorqual_build::VertexId, index: u32) -> Vec<(i64, Input)> {
    vec![(0, Input::Output(OutputRef { vertex, index }))]
}

/// An input by its number; -1 is the empty file system.
pub(super) fn pick(inputs: &[Input], number: i64) -> Result<Input, Error> {
    if number == -1 {
        return Ok(Input::Scratch);
    }
    let found = usize::try_from(number).ok().and_then(|number| inputs.get(number));
    found.copied().ok_or_else(|| invalid(format!("invalid input index {number}")))
}

fn name(metadata: Option<&pb::OpMetadata>, op: &Op) -> String {
    let custom = metadata.and_then(|metadata| metadata.description.get("llb.customname"));
    custom.cloned().unwrap_or_else(|| match op {
        Op::Image(image) => format!("docker-image://{}", image.reference),
        Op::Local(local) => format!("local://{}", local.name),
        Op::Git(git) => format!("git://{}", git.remote),
        Op::Http(http) => http.url.clone(),
        Op::Exec(exec) => exec.args.join(" "),
        Op::File(file) => file::describe(file),
        Op::Merge(inputs) => format!("merge of {} states", inputs.len()),
        Op::Diff { .. } => "diff".to_owned(),
    })
}

fn location(definition: &pb::Definition, digest: &str) -> Option<Location> {
    let source = definition.source.as_ref()?;
    let found = source.locations.get(digest)?.locations.first()?;
    let info = source.infos.get(usize::try_from(found.source_index).ok()?)?;
    let range = found.ranges.first()?;
    let line = |position: Option<pb::Position>| u32::try_from(position?.line).ok();
    let first_line = line(range.start)?;
    Some(Location {
        file: info.filename.clone(),
        first_line,
        first_column: 0,
        last_line: line(range.end).unwrap_or_default().max(first_line),
    })
}

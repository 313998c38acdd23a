//! From graphs to definitions: what clients get who want to build on a result.

use std::collections::{BTreeMap, HashMap};

use prost::Message as _;
use rorqual_build::{Error, Graph, Input, Op, VertexId};
use sha2::{Digest as _, Sha256};

use super::{exec, file, source, wire_platform};
use crate::hex;
use crate::wire::pb;

/// Writes what an output needs.
///
/// # Errors
///
/// `Unsupported` when the graph has something that definitions have no form for.
pub(crate) fn encode(graph: &Graph, output: Input) -> Result<pb::Definition, Error> {
    let Input::Output(wanted) = output else { return Ok(pb::Definition::default()) };
    let needed = needed(graph, wanted.vertex);
    let mut definition = pb::Definition::default();
    let mut digests: HashMap<VertexId, String> = HashMap::new();
    for (id, vertex) in graph.vertices().filter(|(id, _)| needed[id.0 as usize]) {
        let inputs = distinct(&vertex.op);
        let index = |input: Input| {
            inputs.iter().position(|found| *found == input).map_or(-1, |at| at as i64)
        };
        let op = wire_op(&vertex.op, inputs.len(), index)?;
        let inputs = inputs.iter().filter_map(|input| wire_input(*input, &digests)).collect();
        let platform = Some(wire_platform(&vertex.platform));
        let bytes = pb::Op { inputs, platform, constraints: None, op: Some(op) }.encode_to_vec();
        let digest = format!("sha256:{}", hex(&Sha256::digest(&bytes)));
        let name = BTreeMap::from([("llb.customname".to_owned(), vertex.name.clone())]);
        let metadata = pb::OpMetadata {
            ignore_cache: vertex.ignore_cache,
            description: name,
            ..pb::OpMetadata::default()
        };
        definition.metadata.insert(digest.clone(), metadata);
        definition.def.push(bytes);
        digests.insert(id, digest);
    }
    let inputs = wire_input(output, &digests).into_iter().collect();
    definition.def.push(pb::Op { inputs, ..pb::Op::default() }.encode_to_vec());
    Ok(definition)
}

fn needed(graph: &Graph, wanted: VertexId) -> Vec<bool> {
    let mut needed = vec![false; graph.vertices().len()];
    let mut stack = vec![wanted];
    while let Some(id) = stack.pop() {
        let Some(is_needed) = needed.get_mut(id.0 as usize) else { continue };
        if std::mem::replace(is_needed, true) {
            continue;
        }
        for input in graph.vertex(id).map(|vertex| vertex.op.inputs()).unwrap_or_default() {
            if let Input::Output(output) = input {
                stack.push(output.vertex);
            }
        }
    }
    needed
}

/// The states that an operation needs, each once.
fn distinct(op: &Op) -> Vec<Input> {
    let mut inputs: Vec<Input> = Vec::new();
    for input in op.inputs() {
        if input != Input::Scratch && !inputs.contains(&input) {
            inputs.push(input);
        }
    }
    inputs
}

fn wire_input(input: Input, digests: &HashMap<VertexId, String>) -> Option<pb::Input> {
    let Input::Output(output) = input else { return None };
    let digest = digests.get(&output.vertex)?.clone();
    Some(pb::Input { digest, index: i64::from(output.index) })
}

fn wire_op(op: &Op, count: usize, index: impl Fn(Input) -> i64) -> Result<pb::op::Op, Error> {
    Ok(match op {
        Op::Exec(exec) => pb::op::Op::Exec(exec::encode(exec, index)),
        Op::File(file) => pb::op::Op::File(file::encode(file, count, index)?),
        Op::Merge(inputs) => pb::op::Op::Merge(pb::MergeOp {
            inputs: inputs.iter().map(|input| pb::MergeInput { input: index(*input) }).collect(),
        }),
        Op::Diff { lower, upper } => pb::op::Op::Diff(pb::DiffOp {
            lower: Some(pb::LowerDiffInput { input: index(*lower) }),
            upper: Some(pb::UpperDiffInput { input: index(*upper) }),
        }),
        Op::Image(_) | Op::Local(_) | Op::Git(_) | Op::Http(_) => {
            let missing = || Error::Unsupported("an unknown kind of source".to_owned());
            pb::op::Op::Source(source::encode(op).ok_or_else(missing)?)
        }
    })
}

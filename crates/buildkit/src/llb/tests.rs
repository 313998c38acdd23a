use prost::Message as _;
use rorqual_build::{
    CacheSharing, CopyAction, ExecMount, ExecNetwork, ExecOp, ExecSecurity, FileAction, FileOp,
    FileOwner, GitSource, Graph, HttpSource, ImageSource, Input, LocalSource, MountKind, Op,
    OutputRef, SecretSpec, Vertex, VertexId,
};

use super::*;

fn state(vertex: VertexId, index: u32) -> Input {
    Input::Output(OutputRef { vertex, index })
}

fn add(graph: &mut Graph, name: &str, op: Op) -> VertexId {
    let vertex = Vertex {
        op,
        name: name.to_owned(),
        platform: Platform::host(),
        ignore_cache: name == "anew",
        location: None,
    };
    graph.add(vertex).unwrap()
}

fn mount(target: &str, input: Option<Input>, output: Option<u32>, kind: MountKind) -> ExecMount {
    let selector = "/".to_owned();
    ExecMount { target: target.to_owned(), input, selector, output, readonly: false, kind }
}

fn exec(base: Input, cache: Input) -> ExecOp {
    let spec = SecretSpec { id: "s".to_owned(), uid: 1, gid: 2, mode: 0o400, optional: true };
    ExecOp {
        args: vec!["/bin/sh".to_owned(), "-c".to_owned(), "make".to_owned()],
        env: vec!["A=1".to_owned()],
        cwd: "/src".to_owned(),
        user: "me".to_owned(),
        hostname: "h".to_owned(),
        mounts: vec![
            mount("/", Some(base), Some(0), MountKind::Bind),
            mount("/in", Some(cache), Some(1), MountKind::Bind),
            mount(
                "/c",
                None,
                None,
                MountKind::Cache { id: "c".to_owned(), sharing: CacheSharing::Locked },
            ),
            mount("/t", None, None, MountKind::Tmpfs(Some(1 << 20))),
            mount("/run/secrets/s", None, None, MountKind::Secret(spec.clone())),
            mount("/run/ssh", None, None, MountKind::Ssh(spec)),
        ],
        network: ExecNetwork::Host,
        security: ExecSecurity::Insecure,
        extra_hosts: vec![("x".to_owned(), "10.0.0.1".to_owned())],
        proxy_env: vec!["HTTP_PROXY=p".to_owned(), "http_proxy=p".to_owned()],
        secret_env: vec![(
            "TOKEN".to_owned(),
            SecretSpec { id: "t".to_owned(), ..SecretSpec::default() },
        )],
        shm_size: None,
        ulimits: vec!["nofile=10:20".to_owned()],
        cgroup_parent: "/b".to_owned(),
        devices: vec![("vendor.com/gpu=0".to_owned(), true)],
        valid_exit_codes: vec![0, 3],
    }
}

fn copy(from: Input) -> FileAction {
    FileAction::Copy(Box::new(CopyAction {
        from,
        source: "/*.c".to_owned(),
        target: "/src/".to_owned(),
        owner: FileOwner::Named("a:b".to_owned()),
        mode: Some("u+x".to_owned()),
        follow_link: true,
        contents_only: true,
        unpack: false,
        make_parents: true,
        wildcard: true,
        allow_empty_wildcard: false,
        include: vec!["*.c".to_owned()],
        exclude: vec!["x.c".to_owned()],
        parents: false,
        required: vec!["y.c".to_owned()],
        replace: true,
        created: Some(7),
    }))
}

/// A graph with an operation of every kind, and its result.
fn everything() -> (Graph, Input) {
    let mut graph = Graph::default();
    let image = ImageSource { reference: "docker.io/library/debian:sid".to_owned(), layout: None };
    let base = add(&mut graph, "base", Op::Image(image));
    let local = LocalSource {
        name: "context".to_owned(),
        session: Some("s".to_owned()),
        include: vec!["a".to_owned()],
        exclude: vec!["b".to_owned()],
        follow: vec!["c".to_owned()],
        shared_key: "k".to_owned(),
    };
    let context = add(&mut graph, "context", Op::Local(local));
    let git = GitSource {
        remote: "https://example.com/x.git".to_owned(),
        reference: "main".to_owned(),
        subdir: "sub".to_owned(),
        keep_git_dir: true,
        ..GitSource::default()
    };
    let git = add(&mut graph, "git", Op::Git(git));
    let http = HttpSource {
        url: "https://example.com/f".to_owned(),
        mode: Some(0o755),
        owner: Some((3, 4)),
        ..HttpSource::default()
    };
    let http = add(&mut graph, "http", Op::Http(http));
    let actions = vec![
        FileAction::MakeDir {
            path: "/src".to_owned(),
            mode: 0o700,
            parents: true,
            owner: FileOwner::Ids(1, 2),
        },
        copy(state(context, 0)),
        FileAction::MakeFile {
            path: "/f".to_owned(),
            data: vec![0, 1],
            mode: 0o600,
            owner: FileOwner::Keep,
        },
        FileAction::Symlink { old: "f".to_owned(), new: "/g".to_owned(), owner: FileOwner::Keep },
        FileAction::Remove { path: "/h*".to_owned(), allow_missing: true, wildcard: true },
    ];
    let files = add(&mut graph, "files", Op::File(FileOp { base: state(base, 0), actions }));
    let run = exec(state(files, 0), state(git, 0));
    let run = add(&mut graph, "anew", Op::Exec(Box::new(run)));
    let diff = Op::Diff { lower: state(base, 0), upper: state(run, 0) };
    let diff = add(&mut graph, "diff", diff);
    let merge = Op::Merge(vec![state(diff, 0), state(http, 0), state(run, 1)]);
    let merge = add(&mut graph, "merge", merge);
    (graph, state(merge, 0))
}

#[test]
fn every_operation_survives_the_way() {
    let (graph, result) = everything();
    let definition = encode(&graph, result).unwrap();
    let decoded = decode(&definition).unwrap();
    let again = encode(&decoded.graph, decoded.result).unwrap();
    // The order may be another, the operations and what they name are the same, byte for byte.
    let sorted = |definition: &pb::Definition| {
        let mut ops = definition.def.clone();
        ops.sort();
        ops
    };
    assert_eq!(sorted(&again), sorted(&definition));
    assert_eq!(again.def.last(), definition.def.last());
    assert_eq!(again.metadata, definition.metadata);
}

#[test]
fn what_is_not_needed_is_left_out() {
    let (graph, _) = everything();
    let definition = encode(&graph, state(VertexId(0), 0)).unwrap();
    assert_eq!(definition.def.len(), 2);
    assert_eq!(decode(&pb::Definition::default()).unwrap().result, Input::Scratch);
}

#[test]
fn the_order_of_a_definition_does_not_matter() {
    let (graph, result) = everything();
    let mut definition = encode(&graph, result).unwrap();
    let last = definition.def.len() - 1;
    definition.def[..last].reverse();
    let decoded = decode(&definition).unwrap();
    assert_eq!(decoded.graph.vertices().len(), graph.vertices().len());
}

fn raw(op: pb::op::Op, inputs: Vec<pb::Input>) -> pb::Definition {
    let bytes = pb::Op { inputs, op: Some(op), ..pb::Op::default() }.encode_to_vec();
    let digest = format!("sha256:{}", crate::hex(&<sha2::Sha256 as sha2::Digest>::digest(&bytes)));
    let last = pb::Op { inputs: vec![pb::Input { digest, index: 0 }], ..pb::Op::default() };
    pb::Definition { def: vec![bytes, last.encode_to_vec()], ..pb::Definition::default() }
}

#[test]
fn chains_that_fork_become_vertices_of_their_own() {
    let mkdir = |path: &str, input, output| pb::FileAction {
        input,
        secondary_input: -1,
        output,
        action: Some(pb::file_action::Action::Mkdir(pb::FileActionMkDir {
            path: path.to_owned(),
            mode: 0o755,
            ..pb::FileActionMkDir::default()
        })),
    };
    let actions = vec![mkdir("/a", -1, -1), mkdir("/b", 0, 0), mkdir("/c", 0, 1)];
    let decoded = decode(&raw(pb::op::Op::File(pb::FileOp { actions }), Vec::new())).unwrap();
    let chains: Vec<usize> = decoded
        .graph
        .vertices()
        .map(|(_, vertex)| match &vertex.op {
            Op::File(file) => file.actions.len(),
            _ => 0,
        })
        .collect();
    assert_eq!(chains, [2, 2]);
}

#[test]
fn wrong_definitions_are_refused_with_a_reason() {
    let source = |identifier: &str, name: &str| {
        let attrs = [(name.to_owned(), "x".to_owned())].into_iter().collect();
        pb::op::Op::Source(pb::SourceOp { identifier: identifier.to_owned(), attrs })
    };
    let missing = vec![pb::Input { digest: "sha256:00".to_owned(), index: 0 }];
    let cases = [
        (raw(source("docker-image://x", "image.layerlimit"), Vec::new()), "image.layerlimit"),
        (raw(source("blob://x", ""), Vec::new()), "scheme \"blob\""),
        (raw(source("nothing", ""), Vec::new()), "no scheme"),
        (raw(source("local://x", "local.includepattern"), Vec::new()), "no list"),
        (raw(pb::op::Op::Build(pb::BuildOp::default()), Vec::new()), "BuildOp"),
        (raw(pb::op::Op::Exec(pb::ExecOp::default()), Vec::new()), "no meta"),
        (raw(pb::op::Op::Merge(pb::MergeOp::default()), missing), "missing input"),
        (
            raw(
                pb::op::Op::File(pb::FileOp {
                    actions: vec![pb::FileAction { input: 3, ..pb::FileAction::default() }],
                }),
                Vec::new(),
            ),
            "invalid action index",
        ),
        (pb::Definition { def: vec![vec![0xff, 0xff]], ..pb::Definition::default() }, "damaged"),
    ];
    for (definition, reason) in cases {
        let error = decode(&definition).unwrap_err().to_string();
        assert!(error.contains(reason), "{error:?} does not say {reason:?}");
    }
}

#[test]
fn unknown_capabilities_are_named() {
    let merge = pb::op::Op::Merge(pb::MergeOp::default());
    let mut definition = raw(merge, Vec::new());
    let last = pb::Op::decode(&definition.def[1][..]).unwrap();
    let caps = [("exec.teleport".to_owned(), true)].into_iter().collect();
    let metadata = pb::OpMetadata { caps, ..pb::OpMetadata::default() };
    definition.metadata.insert(last.inputs[0].digest.clone(), metadata);
    let error = decode(&definition).unwrap_err().to_string();
    assert!(error.contains("exec.teleport"), "{error}");
}

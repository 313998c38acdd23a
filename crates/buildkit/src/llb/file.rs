//! Changes of files. On the wire actions form a graph of their own; here a vertex is one chain, so every chain that
//! something else needs becomes a vertex.

use std::collections::HashMap;

use rorqual_build::{CopyAction, Error, FileAction, FileOp, FileOwner, Input};

use super::decode::pick;
use super::invalid;
use crate::wire::pb;
use crate::wire::pb::file_action::Action;

/// LIMIT: actions of one operation.
const MOST_ACTIONS: usize = 10_000;

/// Actions on top of a state.
#[derive(Clone)]
struct Chain {
    base: Input,
    actions: Vec<FileAction>,
}

/// Reads an operation: adds vertices through `add`, returns its outputs by their number.
pub(super) fn decode(
    wire: &pb::FileOp,
    inputs: &[Input],
    mut add: impl FnMut(FileOp) -> Result<Input, Error>,
) -> Result<Vec<(i64, Input)>, Error> {
    if wire.actions.len() > MOST_ACTIONS {
        return Err(invalid(format!("a file operation has more than {MOST_ACTIONS} actions")));
    }
    let mut chains: Vec<Chain> = Vec::with_capacity(wire.actions.len());
    let mut made: HashMap<usize, Input> = HashMap::new();
    let mut outputs = Vec::new();
    for (at, action) in wire.actions.iter().enumerate() {
        let below = earlier(action.input, inputs.len(), at)?;
        let mut chain = match below {
            // A chain that was made already is a state to go on from.
            Some(below) => match made.get(&below) {
                Some(state) => Chain { base: *state, actions: Vec::new() },
                None => chains[below].clone(),
            },
            None => Chain { base: pick(inputs, action.input)?, actions: Vec::new() },
        };
        let second = match earlier(action.secondary_input, inputs.len(), at)? {
            Some(other) => make(other, &chains, &mut made, &mut add)?,
            None => pick(inputs, action.secondary_input)?,
        };
        chain.actions.push(file_action(action, second)?);
        chains.push(chain);
        if action.output >= 0 {
            outputs.push((action.output, make(at, &chains, &mut made, &mut add)?));
        }
    }
    Ok(outputs)
}

/// The earlier action that an input number means, if it means one.
fn earlier(number: i64, inputs: usize, at: usize) -> Result<Option<usize>, Error> {
    let Some(number) = usize::try_from(number).ok().filter(|number| *number >= inputs) else {
        return Ok(None);
    };
    let action = number - inputs;
    if action >= at {
        return Err(invalid(format!("invalid action index {action}")));
    }
    Ok(Some(action))
}

fn make(
    at: usize,
    chains: &[Chain],
    made: &mut HashMap<usize, Input>,
    add: &mut impl FnMut(FileOp) -> Result<Input, Error>,
) -> Result<Input, Error> {
    if let Some(state) = made.get(&at) {
        return Ok(*state);
    }
    let Chain { base, actions } = chains[at].clone();
    let state = add(FileOp { base, actions })?;
    made.insert(at, state);
    Ok(state)
}

fn file_action(wire: &pb::FileAction, from: Input) -> Result<FileAction, Error> {
    let action = wire.action.as_ref().ok_or_else(|| {
        Error::Unsupported("the definition has a file action of an unknown kind".to_owned())
    })?;
    Ok(match action {
        Action::Copy(copy) => FileAction::Copy(Box::new(copy_action(copy, from))),
        Action::Mkfile(file) => FileAction::MakeFile {
            path: file.path.clone(),
            data: file.data.clone(),
            mode: permissions(file.mode, 0o644),
            owner: owner(file.owner.as_ref()),
        },
        Action::Mkdir(dir) => FileAction::MakeDir {
            path: dir.path.clone(),
            mode: permissions(dir.mode, 0o755),
            parents: dir.make_parents,
            owner: owner(dir.owner.as_ref()),
        },
        Action::Symlink(link) => FileAction::Symlink {
            old: link.oldpath.clone(),
            new: link.newpath.clone(),
            owner: owner(link.owner.as_ref()),
        },
        Action::Rm(rm) => FileAction::Remove {
            path: rm.path.clone(),
            allow_missing: rm.allow_not_found,
            wildcard: rm.allow_wildcard,
        },
    })
}

fn permissions(mode: i32, default: u32) -> u32 {
    u32::try_from(mode).map_or(default, |mode| mode & 0o7777)
}

fn copy_action(wire: &pb::FileActionCopy, from: Input) -> CopyAction {
    let mode = match (wire.mode_str.as_str(), wire.mode) {
        ("", -1) => None,
        ("", mode) => Some(format!("{:o}", permissions(mode, 0))),
        (text, _) => Some(text.to_owned()),
    };
    CopyAction {
        from,
        source: wire.src.clone(),
        target: wire.dest.clone(),
        owner: owner(wire.owner.as_ref()),
        mode,
        follow_link: wire.follow_symlink,
        contents_only: wire.dir_copy_contents,
        unpack: wire.attempt_unpack_docker_compatibility,
        make_parents: wire.create_dest_path,
        wildcard: wire.allow_wildcard,
        allow_empty_wildcard: wire.allow_empty_wildcard,
        include: wire.include_patterns.clone(),
        exclude: wire.exclude_patterns.clone(),
        parents: false,
        required: wire.required_paths.clone(),
        replace: wire.always_replace_existing_dest_paths,
        // -1 is "as it is"; other times are in nanoseconds.
        created: (wire.timestamp >= 0).then_some(wire.timestamp / 1_000_000_000),
    }
}

fn owner(wire: Option<&pb::ChownOpt>) -> FileOwner {
    use pb::user_opt::User;
    let Some(wire) = wire else { return FileOwner::Keep };
    let part = |wire: Option<&pb::UserOpt>| wire.and_then(|wire| wire.user.clone());
    match (part(wire.user.as_ref()), part(wire.group.as_ref())) {
        (None, None) => FileOwner::Keep,
        (Some(User::ById(uid)), Some(User::ById(gid))) => FileOwner::Ids(uid, gid),
        (Some(User::ById(uid)), None) => FileOwner::Ids(uid, uid),
        (user, group) => {
            let text = |part: Option<User>| match part {
                Some(User::ByName(named)) => named.name,
                Some(User::ById(id)) => id.to_string(),
                None => String::new(),
            };
            let (user, group) = (text(user), text(group));
            FileOwner::Named(if group.is_empty() { user } else { format!("{user}:{group}") })
        }
    }
}

/// A label for an operation that has none.
pub(super) fn describe(op: &FileOp) -> String {
    let names = op.actions.iter().map(|action| match action {
        FileAction::Copy(copy) => format!("copy {} {}", copy.source, copy.target),
        FileAction::MakeFile { path, .. } => format!("mkfile {path}"),
        FileAction::MakeDir { path, .. } => format!("mkdir {path}"),
        FileAction::Symlink { old, new, .. } => format!("symlink {old} -> {new}"),
        FileAction::Remove { path, .. } => format!("rm {path}"),
    });
    names.collect::<Vec<_>>().join(", ")
}

/// Writes an operation; `index` numbers its inputs, of which there are `count` in the end.
pub(super) fn encode(
    op: &FileOp,
    count: usize,
    mut index: impl FnMut(Input) -> i64,
) -> Result<pb::FileOp, Error> {
    let mut actions = Vec::with_capacity(op.actions.len());
    let last = op.actions.len().saturating_sub(1);
    for (at, action) in op.actions.iter().enumerate() {
        let secondary_input = match action {
            FileAction::Copy(copy) => index(copy.from),
            _ => -1,
        };
        actions.push(pb::FileAction {
            input: if at == 0 { index(op.base) } else { (count + at - 1) as i64 },
            secondary_input,
            output: if at == last { 0 } else { -1 },
            action: Some(wire_action(action)?),
        });
    }
    Ok(pb::FileOp { actions })
}

fn wire_action(action: &FileAction) -> Result<Action, Error> {
    let timestamp = -1;
    Ok(match action {
        FileAction::Copy(copy) => Action::Copy(wire_copy(copy)?),
        FileAction::MakeFile { path, data, mode, owner } => Action::Mkfile(pb::FileActionMkFile {
            path: path.clone(),
            mode: *mode as i32,
            data: data.clone(),
            owner: wire_owner(owner),
            timestamp,
        }),
        FileAction::MakeDir { path, mode, parents, owner } => Action::Mkdir(pb::FileActionMkDir {
            path: path.clone(),
            mode: *mode as i32,
            make_parents: *parents,
            owner: wire_owner(owner),
            timestamp,
        }),
        FileAction::Symlink { old, new, owner } => Action::Symlink(pb::FileActionSymlink {
            oldpath: old.clone(),
            newpath: new.clone(),
            owner: wire_owner(owner),
            timestamp,
        }),
        FileAction::Remove { path, allow_missing, wildcard } => Action::Rm(pb::FileActionRm {
            path: path.clone(),
            allow_not_found: *allow_missing,
            allow_wildcard: *wildcard,
        }),
    })
}

fn wire_copy(copy: &CopyAction) -> Result<pb::FileActionCopy, Error> {
    if copy.parents {
        return Err(Error::Unsupported(
            "a copy that keeps parent directories has no form in build definitions".to_owned(),
        ));
    }
    Ok(pb::FileActionCopy {
        src: copy.source.clone(),
        dest: copy.target.clone(),
        owner: wire_owner(&copy.owner),
        mode: -1,
        follow_symlink: copy.follow_link,
        dir_copy_contents: copy.contents_only,
        attempt_unpack_docker_compatibility: copy.unpack,
        create_dest_path: copy.make_parents,
        allow_wildcard: copy.wildcard,
        allow_empty_wildcard: copy.allow_empty_wildcard,
        timestamp: copy.created.map_or(-1, |created| created.saturating_mul(1_000_000_000)),
        include_patterns: copy.include.clone(),
        exclude_patterns: copy.exclude.clone(),
        always_replace_existing_dest_paths: copy.replace,
        mode_str: copy.mode.clone().unwrap_or_default(),
        required_paths: copy.required.clone(),
    })
}

fn wire_owner(owner: &FileOwner) -> Option<pb::ChownOpt> {
    use pb::user_opt::User;
    let part = |user: User| Some(pb::UserOpt { user: Some(user) });
    let named = |name: &str| match name.parse() {
        Ok(id) => User::ById(id),
        Err(_) => User::ByName(pb::NamedUserOpt { name: name.to_owned(), input: 0 }),
    };
    match owner {
        FileOwner::Keep => None,
        FileOwner::Ids(uid, gid) => {
            Some(pb::ChownOpt { user: part(User::ById(*uid)), group: part(User::ById(*gid)) })
        }
        FileOwner::Named(text) => {
            let (user, group) = text.split_once(':').unwrap_or((text, ""));
            let group = if group.is_empty() { None } else { part(named(group)) };
            Some(pb::ChownOpt { user: part(named(user)), group })
        }
    }
}

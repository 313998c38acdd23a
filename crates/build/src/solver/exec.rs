//! Programs: their root and mounts, their run, and the layers of what they wrote.

pub(super) mod lent;

use std::path::PathBuf;
use std::sync::Arc;

use rorqual_core::DiffId;
use rorqual_core::mount::{OverlayPlan, RootfsPlan, StepMount, StepMountSource};
use rorqual_snapshot::{Edit, FileTree, Mountable, Selection};

use super::explain::BASE;
use super::failed::FailedStep;
use super::files::{self, Scratch, failed, whole};
use super::flight::Audience;
use super::job::Entitlement;
use super::walk::{Identity, Walk};
use super::{State, mounts};
use crate::Error;
use crate::contract::{Log, Step};
use crate::error::other;
use crate::graph::{
    CacheSharing, ExecMount, ExecNetwork, ExecOp, ExecSecurity, MountKind, Op, Vertex,
};

use lent::Lent;

/// Refuses what the build's user did not allow it, or the daemon's not him.
pub(crate) fn allowed(walk: &Walk, vertex: &Vertex) -> Result<(), Error> {
    let Op::Exec(exec) = &vertex.op else { return Ok(()) };
    let options = &walk.inner.options;
    let asked = [
        (
            exec.network == ExecNetwork::Host,
            Entitlement::NetworkHost,
            options.allow_host_network,
            "network.host",
        ),
        (
            exec.security == ExecSecurity::Insecure,
            Entitlement::SecurityInsecure,
            options.allow_insecure,
            "security.insecure",
        ),
    ];
    for (wants, entitlement, granted, name) in asked {
        if wants && !granted {
            // COMPAT: BuildKit's words.
            return Err(Error::Forbidden(format!(
                "granting entitlement {name} is not allowed by build daemon configuration"
            )));
        }
        if wants && !walk.job.entitlements.contains(&entitlement) {
            return Err(Error::Forbidden(format!("{name} is not allowed")));
        }
    }
    if !exec.devices.is_empty() {
        let text = "RUN --device: this builder has no CDI devices".to_owned();
        return Err(Error::Unsupported(text));
    }
    Ok(())
}

/// Pairs each mount with its input.
fn paired<'a>(exec: &'a ExecOp, inputs: &'a [State]) -> Vec<(&'a ExecMount, Option<&'a State>)> {
    let mut inputs = inputs.iter();
    exec.mounts.iter().map(|mount| (mount, mount.input.and_then(|_| inputs.next()))).collect()
}

/// Tells what the inputs of a program are: states by their layers, parts of them and directories of the client by what the
/// program sees. What a cache mount begins with changes nothing that a program may rely on.
pub(crate) async fn identities(
    walk: &Walk,
    exec: &ExecOp,
    inputs: &[State],
) -> Result<Vec<Identity>, Error> {
    let mut all = Vec::new();
    for (mount, state) in paired(exec, inputs) {
        let Some(state) = state.filter(|_| !matches!(mount.kind, MountKind::Cache { .. })) else {
            continue;
        };
        let all_of_it = mount.selector.trim_matches('/').is_empty();
        if state.is_layered() && all_of_it {
            let name = if mount.target == "/" { BASE } else { mount.target.as_str() };
            all.push(whole(name, state));
            continue;
        }
        let selection = Selection {
            source: format!("/{}", mount.selector.trim_matches('/')),
            wildcard: false,
            allow_empty: false,
            follow: true,
            parents: false,
            filter: None,
            owners: true,
        };
        let contents = files::contents(walk, state, selection).await?;
        all.push(Identity {
            name: mount.target.clone(),
            quick: state.is_layered().then(|| whole("", state).content),
            content: contents.digest.hex().to_owned(),
            entries: contents.entries,
        });
    }
    Ok(all)
}

/// Everything that a step's mounts hold while it runs.
#[derive(Default)]
struct Held {
    mounts: Vec<StepMount>,
    /// Snapshots of writable mounts that are outputs: which output, and what lies below.
    outputs: Vec<(u32, Scratch, Vec<DiffId>)>,
    /// Snapshots whose writes are discarded.
    discarded: Vec<Scratch>,
    caches: Vec<mounts::InUse>,
    lent: Option<Lent>,
}

/// Runs a program; returns its outputs, in order.
pub(crate) async fn run(
    walk: &Walk,
    vertex: &Vertex,
    exec: &ExecOp,
    inputs: &[State],
    audience: &Audience,
) -> Result<Vec<State>, Error> {
    let pairs = paired(exec, inputs);
    let root = pairs.iter().find(|(mount, _)| mount.target == "/");
    let Some((root, base)) = root else {
        let message = "a step has no root file system".to_owned();
        return Err(Error::Invalid { message, location: vertex.location.clone() });
    };
    let base = base.cloned().unwrap_or_else(|| walk.scratch());
    if !base.is_layered() {
        let text = "a step cannot run in a directory of the client; copy it into a state first";
        return Err(Error::Unsupported(text.to_owned()));
    }
    let scratch = Scratch::new(walk, base.layers()).await?;
    let mut held = Held::default();
    for (mount, state) in pairs.iter().filter(|(mount, _)| mount.target != "/") {
        held.add(walk, vertex, mount, *state).await?;
    }
    // ORDER: a parent must be mounted before what lies below it.
    held.mounts.sort_by_key(|mount| mount.target.trim_end_matches('/').matches('/').count());
    let stubs = held.mounts.iter().map(|mount| mount.target.clone()).collect();
    let workbench = &walk.inner.parts.workbench;
    let stubs = workbench.missing(&FileTree::Layers(base.layers().to_vec()), stubs).await;
    let stubs = stubs.map_err(|error| failed("look for places to mount on", error))?;

    let env = held.environment(walk, exec).await?;
    let step =
        step(walk, vertex, exec, (&scratch, root.readonly), (held.mounts.clone(), env)).await?;
    if let Err(error) = perform(walk, vertex, exec, step.clone(), audience).await {
        if matches!(error, Error::Step { .. }) {
            let runner = Arc::clone(&walk.inner.parts.steps);
            let kept = (scratch, held, inputs.to_vec());
            audience.keep(FailedStep::new(runner, vertex.name.clone(), step, Box::new(kept)));
        }
        return Err(error);
    }

    let mut outputs = Vec::new();
    if let Some(number) = root.output {
        if !stubs.is_empty() {
            // What was made only to mount on is nothing that the program made.
            let prune = vec![Edit::Prune { paths: stubs }];
            let pruned = workbench.edit(&scratch.id, prune).await;
            pruned.map_err(|error| failed("tidy up behind mounts", error))?;
        }
        outputs.push((number, scratch.commit(walk, base.layers()).await?));
    }
    for (number, scratch, below) in held.outputs {
        outputs.push((number, scratch.commit(walk, &below).await?));
    }
    let count = outputs.iter().map(|(number, _)| *number as usize + 1).max().unwrap_or(0);
    let mut all = vec![walk.scratch(); count];
    for (number, state) in outputs {
        all[number as usize] = state;
    }
    Ok(all)
}

async fn perform(
    walk: &Walk,
    vertex: &Vertex,
    exec: &ExecOp,
    step: Step,
    audience: &Audience,
) -> Result<(), Error> {
    let told = audience.clone();
    let log: Log = Arc::new(move |stream, data: &[u8]| told.log(stream, data));
    // Others may wait for the same step: it ends when all have gone, not when this build does.
    let cancel = tokio_util::sync::CancellationToken::new();
    let exit = walk.inner.parts.steps.run(step, log, cancel).await?;
    let fine = if exec.valid_exit_codes.is_empty() {
        exit.code == 0
    } else {
        exec.valid_exit_codes.contains(&exit.code)
    };
    if fine {
        return Ok(());
    }
    Err(Error::Step {
        command: exec.args.join(" "),
        code: exit.code,
        location: vertex.location.clone(),
    })
}

async fn step(
    walk: &Walk,
    vertex: &Vertex,
    exec: &ExecOp,
    (scratch, readonly_root): (&Scratch, bool),
    (mounts, env): (Vec<StepMount>, Vec<String>),
) -> Result<Step, Error> {
    let rootfs = walk.inner.parts.snapshots.rootfs(&scratch.id).await;
    // COMPAT: BuildKit's name of the machine that builds.
    let hostname = if exec.hostname.is_empty() { "buildkitsandbox" } else { &exec.hostname };
    Ok(Step {
        id: scratch.id,
        rootfs: rootfs.map_err(|error| failed("find the root of a step", error))?,
        readonly_root,
        mounts,
        args: exec.args.clone(),
        env,
        cwd: exec.cwd.clone(),
        user: exec.user.clone(),
        hostname: hostname.to_owned(),
        network: exec.network,
        security: exec.security,
        extra_hosts: exec.extra_hosts.clone(),
        shm_size: exec.shm_size,
        ulimits: exec.ulimits.clone(),
        cgroup_parent: exec.cgroup_parent.clone(),
        platform: vertex.platform.clone(),
    })
}

impl Held {
    async fn add(
        &mut self,
        walk: &Walk,
        vertex: &Vertex,
        mount: &ExecMount,
        state: Option<&State>,
    ) -> Result<(), Error> {
        let source = match &mount.kind {
            MountKind::Bind => self.bind(walk, mount, state).await?,
            MountKind::Cache { id, sharing } => {
                self.cache(walk, (vertex, mount), (id, *sharing), state).await?
            }
            MountKind::Tmpfs(size) => StepMountSource::Tmpfs(*size),
            MountKind::Secret(spec) => {
                let lent = self.lent(walk)?;
                match lent.secret(walk, spec).await? {
                    Some(path) => StepMountSource::Path(path),
                    None => return Ok(()),
                }
            }
            MountKind::Ssh(spec) => {
                let lent = self.lent(walk)?;
                match lent.agent(walk, spec).await? {
                    Some(path) => StepMountSource::Path(path),
                    None => return Ok(()),
                }
            }
        };
        let readonly = mount.readonly || matches!(mount.kind, MountKind::Secret(_));
        self.mounts.push(StepMount { target: mount.target.clone(), source, readonly });
        Ok(())
    }

    fn lent(&mut self, walk: &Walk) -> Result<&mut Lent, Error> {
        let lent = match self.lent.take() {
            Some(lent) => lent,
            None => Lent::new(walk)?,
        };
        Ok(self.lent.insert(lent))
    }

    /// Returns the program's variables, with secrets among them.
    async fn environment(&mut self, walk: &Walk, exec: &ExecOp) -> Result<Vec<String>, Error> {
        let mut env = [exec.env.clone(), exec.proxy_env.clone()].concat();
        for (name, spec) in &exec.secret_env {
            let Some(value) = lent::secret(walk, spec).await? else { continue };
            let value = String::from_utf8(value.0).map_err(|_| {
                let message = format!("secret {} is no text and cannot be a variable", spec.id);
                Error::Invalid { message, location: None }
            })?;
            env.push(format!("{name}={value}"));
        }
        Ok(env)
    }

    async fn bind(
        &mut self,
        walk: &Walk,
        mount: &ExecMount,
        state: Option<&State>,
    ) -> Result<StepMountSource, Error> {
        let state = state.cloned().unwrap_or_else(|| walk.scratch());
        let all_of_it = mount.selector.trim_matches('/').is_empty();
        if mount.output.is_some() && !(all_of_it && state.is_layered()) {
            let text =
                "a mount of a part of a state, or of a client's directory, cannot be an output";
            return Err(Error::Unsupported(text.to_owned()));
        }
        let parts = &walk.inner.parts;
        let found = parts.workbench.mountable(&state.tree(), &mount.selector).await;
        let found = found.map_err(|error| failed("look for what is to be mounted", error))?;
        let Some(found) = found else {
            // COMPAT: BuildKit's text.
            let message = format!(
                "failed to calculate checksum of ref: {:?}: not found",
                format!("/{}", mount.selector.trim_matches('/'))
            );
            return Err(Error::NotFound { message, location: None });
        };
        let lower = match found {
            Mountable::File(path) => {
                // Its bytes are a layer's: nobody may write to them.
                if !mount.readonly {
                    let text =
                        format!("{} is a file and can only be mounted read-only", mount.selector);
                    return Err(Error::Unsupported(text));
                }
                return Ok(StepMountSource::Path(path));
            }
            Mountable::Layers(plan) if mount.readonly => {
                return Ok(StepMountSource::Rootfs(RootfsPlan::Overlay(plan)));
            }
            Mountable::Layers(plan) => plan,
        };
        // What is written goes to a snapshot of its own.
        let layers = state.layers().to_vec();
        let scratch = Scratch::new(walk, &layers).await?;
        let rootfs = parts.snapshots.rootfs(&scratch.id).await;
        let rootfs = rootfs.map_err(|error| failed("find the files of a mount", error))?;
        match mount.output {
            Some(number) => self.outputs.push((number, scratch, layers)),
            None => self.discarded.push(scratch),
        }
        Ok(match rootfs {
            RootfsPlan::Overlay(OverlayPlan { upper, .. }) => {
                StepMountSource::Rootfs(RootfsPlan::Overlay(OverlayPlan { upper, ..lower }))
            }
            RootfsPlan::Directory { path } => StepMountSource::Path(path),
        })
    }

    async fn cache(
        &mut self,
        walk: &Walk,
        (vertex, mount): (&Vertex, &ExecMount),
        (id, sharing): (&str, CacheSharing),
        state: Option<&State>,
    ) -> Result<StepMountSource, Error> {
        let snapshots = Arc::clone(&walk.inner.parts.snapshots);
        let begin = state.filter(|state| !state.layers().is_empty()).cloned();
        let mut selector = mount.selector.clone();
        let imports = (!walk.job.imports.is_empty()).then(|| (walk.clone(), id.to_owned()));
        let fill = async move |directory: PathBuf| {
            let mut begin = begin;
            if let Some((walk, id)) = imports
                && let Some(state) = walk.imported_mount(&id).await
            {
                (begin, selector) = (Some(state), "/".to_owned());
            }
            let Some(state) = begin else { return Ok(()) };
            let view = snapshots.view(state.layers()).await;
            let view = view.map_err(other("open what a cache mount begins with"))?;
            let selector = format!("/{}", selector.trim_matches('/'));
            let copied = view.copy_out(&selector, directory).await;
            copied.map_err(other("copy what a cache mount begins with"))
        };
        let description = format!("cached mount {} from exec {}", mount.target, vertex.name);
        let lent = mounts::lend(&walk.inner, id, sharing, &description, fill).await?;
        let path = lent.path.clone();
        self.caches.push(lent);
        Ok(StepMountSource::Path(path))
    }
}

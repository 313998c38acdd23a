//! The engine's steps as the solver knows them.

use std::sync::Arc;

use async_trait::async_trait;
use rorqual_build::{
    Error, ExecNetwork, ExecSecurity, Log, LogStream, Step, StepExit, StepMountSource, StepRunner,
};
use rorqual_core::Classify;
use rorqual_engine::spec::{NetworkMode, Ulimit};
use rorqual_engine::{StepMount, StepMountSource as Source, StepRequest, Steps};
use tokio_util::sync::CancellationToken;

/// Runs steps by the engine.
pub(super) struct EngineSteps(pub(super) Steps);

/// Reads `name=soft[:hard]`.
fn ulimit(text: &str) -> Result<Ulimit, Error> {
    let invalid = || Error::Invalid { message: format!("invalid ulimit {text:?}"), location: None };
    let (name, value) = text.split_once('=').ok_or_else(invalid)?;
    let (soft, hard) = value.split_once(':').unwrap_or((value, value));
    let number = |text: &str| text.parse::<i64>().map_err(|_| invalid());
    Ok(Ulimit { name: name.to_owned(), soft: number(soft)?, hard: number(hard)? })
}

fn request(step: Step) -> Result<StepRequest, Error> {
    let mounts = step.mounts.into_iter().map(|mount| StepMount {
        target: mount.target,
        source: match mount.source {
            StepMountSource::Rootfs(plan) => Source::Layers(plan),
            StepMountSource::Path(path) => Source::Path(path),
            StepMountSource::Tmpfs(size) => Source::Tmpfs(size),
        },
        readonly: mount.readonly,
    });
    Ok(StepRequest {
        id: step.id,
        rootfs: step.rootfs,
        readonly_root: step.readonly_root,
        mounts: mounts.collect(),
        args: step.args,
        env: step.env,
        cwd: step.cwd,
        user: step.user,
        hostname: step.hostname,
        network: match step.network {
            ExecNetwork::Sandbox => NetworkMode::Default,
            ExecNetwork::Host => NetworkMode::Host,
            ExecNetwork::None => NetworkMode::None,
        },
        privileged: step.security == ExecSecurity::Insecure,
        extra_hosts: step.extra_hosts.iter().map(|(name, at)| format!("{name}:{at}")).collect(),
        shm_size: step.shm_size,
        ulimits: step.ulimits.iter().map(|text| ulimit(text)).collect::<Result<_, _>>()?,
        cgroup_parent: Some(step.cgroup_parent).filter(|parent| !parent.is_empty()),
    })
}

#[async_trait]
impl StepRunner for EngineSteps {
    async fn run(
        &self,
        step: Step,
        log: Log,
        cancel: CancellationToken,
    ) -> Result<StepExit, Error> {
        let command = step.args.join(" ");
        let output = Arc::new(move |error: bool, data: &[u8]| {
            log(if error { LogStream::Stderr } else { LogStream::Stdout }, data);
        });
        let run = self.0.run(request(step)?, output, cancel.clone()).await;
        let exit = run.map_err(|error| match cancel.is_cancelled() {
            true => Error::Cancelled,
            false => Error::Other {
                action: format!("run {command:?}"),
                kind: error.kind(),
                source: error.into(),
            },
        })?;
        Ok(StepExit { code: exit.code, oom_killed: exit.oom_killed })
    }
}

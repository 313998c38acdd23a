//! The engine's steps as the solver knows them.

use std::sync::Arc;

use async_trait::async_trait;
use rorqual_build::{
    Error, ExecNetwork, ExecSecurity, Log, LogStream, Step, StepExit, StepRunner, Terminal,
};
use rorqual_core::{Classify, InvalidUlimit, Platform, Ulimit};
use rorqual_engine::spec::NetworkMode;
use rorqual_engine::{StepRequest, StepTerminal, Steps};
use tokio_util::sync::CancellationToken;

/// Runs steps by the engine.
pub(super) struct EngineSteps(pub(super) Steps);

fn ulimit(text: &str) -> Result<Ulimit, Error> {
    text.parse().map_err(|error: InvalidUlimit| Error::Invalid {
        message: error.to_string(),
        location: None,
    })
}

fn request(step: Step) -> Result<StepRequest, Error> {
    Ok(StepRequest {
        id: step.id,
        rootfs: step.rootfs,
        readonly_root: step.readonly_root,
        mounts: step.mounts,
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

/// Where the kernel lists interpreters of foreign programs.
const INTERPRETERS: &str = "/proc/sys/fs/binfmt_misc";

/// Tells whether programs for a platform run here, natively or by an interpreter that the kernel holds open. Blocking.
fn runs(platform: &Platform) -> bool {
    let host = Platform::host();
    let is_native = host.architecture == platform.architecture
        || (host.architecture == "amd64" && platform.architecture == "386");
    if host.os != platform.os {
        return false;
    }
    // Variants differ in what a compiler may use; which of them runs shows when it does.
    is_native || has_interpreter(std::path::Path::new(INTERPRETERS), &platform.architecture)
}

fn has_interpreter(directory: &std::path::Path, architecture: &str) -> bool {
    let name = match architecture {
        "amd64" => "x86_64",
        "arm64" => "aarch64",
        "386" => "i386",
        "loong64" => "loongarch64",
        "mips64le" => "mips64el",
        other => other,
    };
    let Ok(entries) = std::fs::read_dir(directory) else { return false };
    entries.flatten().any(|entry| {
        let own = entry.file_name();
        let own = own.to_string_lossy();
        let is_meant = own.strip_prefix("qemu-").unwrap_or(&own) == name;
        is_meant && std::fs::read_to_string(entry.path()).is_ok_and(|text| is_usable(&text))
    })
}

/// An interpreter that is not held open would be looked for inside of the container.
fn is_usable(text: &str) -> bool {
    let flags = text.lines().find_map(|line| line.strip_prefix("flags:")).unwrap_or_default();
    text.lines().any(|line| line == "enabled") && flags.contains('F')
}

/// Refuses what this machine cannot run.
async fn check(step: &Step) -> Result<(), Error> {
    let platform = step.platform.clone();
    let can_run = rorqual_store::blocking(move || Ok::<_, Error>(runs(&platform))).await?;
    if can_run {
        return Ok(());
    }
    Err(Error::Unsupported(format!(
        "cannot run {:?} for {}: this machine is {}, and its kernel has no interpreter for programs of the \
         other (binfmt_misc, with the flag F): register one, or let the stage run here (FROM --platform=$BUILDPLATFORM)",
        step.args.join(" "),
        step.platform,
        Platform::host()
    )))
}

/// Tells how a step ended as the solver knows it.
fn ended(
    command: &str,
    run: Result<rorqual_engine::StepExit, rorqual_engine::Error>,
    cancel: &CancellationToken,
) -> Result<StepExit, Error> {
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

#[async_trait]
impl StepRunner for EngineSteps {
    async fn run(
        &self,
        step: Step,
        log: Log,
        cancel: CancellationToken,
    ) -> Result<StepExit, Error> {
        check(&step).await?;
        let command = step.args.join(" ");
        let output = Arc::new(move |error: bool, data: &[u8]| {
            log(if error { LogStream::Stderr } else { LogStream::Stdout }, data);
        });
        let run = self.0.run(request(step)?, output, cancel.clone()).await;
        ended(&command, run, &cancel)
    }

    async fn run_on_terminal(
        &self,
        step: Step,
        terminal: Terminal,
        cancel: CancellationToken,
    ) -> Result<StepExit, Error> {
        check(&step).await?;
        let command = step.args.join(" ");
        let terminal = StepTerminal { stream: terminal.stream, size: terminal.size };
        let run = self.0.run_on_terminal(request(step)?, terminal, cancel.clone()).await;
        ended(&command, run, &cancel)
    }
}

#[cfg(test)]
mod tests {
    use super::has_interpreter;

    #[test]
    fn an_interpreter_counts_when_it_is_held_open() {
        let folder = tempfile::tempdir().unwrap();
        let write =
            |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        write("qemu-aarch64", "enabled\ninterpreter /usr/bin/qemu-aarch64\nflags: OCF\noffset 0\n");
        write("qemu-arm", "enabled\ninterpreter /usr/bin/qemu-arm\nflags: OC\n");
        write("qemu-s390x", "disabled\nflags: F\n");
        let has = |name: &str| has_interpreter(folder.path(), name);
        assert!(has("arm64"));
        assert!(!has("arm") && !has("s390x") && !has("riscv64"));
        assert!(!has_interpreter(&folder.path().join("none"), "arm64"));
    }
}

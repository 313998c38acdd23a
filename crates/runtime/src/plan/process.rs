//! The part of a plan that turns a copy of the runtime into the container's program.

use oci_spec::runtime::Process;
use rorqual_sys::rlimit::Rlimit;

use super::convert::{capabilities, io_priority, number_list, rlimit_number, scheduler};
use super::{Facts, HookPoint, Step};
use crate::Error;
use crate::request::ProcessUser;

/// What the last steps depend on besides the process itself.
pub(super) struct ProcessContext<'a> {
    pub facts: &'a Facts,
    pub user: &'a ProcessUser,
    pub filtered: bool,
    /// Init makes a missing working directory and runs `startContainer` hooks; an exec does not.
    pub init: bool,
    pub start_hooks: bool,
}

/// Appends the steps that must see the host's `/proc`.
pub(super) fn push_early(steps: &mut Vec<Step>, process: &Process) {
    let label = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let (apparmor, selinux) = (label(process.apparmor_profile()), label(process.selinux_label()));
    if apparmor.is_some() || selinux.is_some() {
        steps.push(Step::OpenLabels { apparmor, selinux });
    }
    if let Some(adjustment) = process.oom_score_adj() {
        steps.push(Step::OomScore(adjustment));
    }
}

/// Appends the steps from the finished root file system to `execve(2)`.
pub(super) fn push_process(
    steps: &mut Vec<Step>,
    process: &Process,
    context: &ProcessContext<'_>,
) -> Result<(), Error> {
    if process.args().as_ref().is_none_or(Vec::is_empty) {
        return Err(Error::InvalidSpec("process.args must not be empty".into()));
    }
    if !process.cwd().is_absolute() {
        return Err(Error::InvalidSpec(format!(
            "process.cwd {:?} must be an absolute path",
            process.cwd()
        )));
    }
    push_scheduling(steps, process, context)?;
    push_rlimits(steps, process)?;
    let user = process.user();
    steps.push(Step::FindUser {
        user: context.user.clone(),
        uid: user.uid(),
        gid: user.gid(),
        groups: user.additional_gids().clone().unwrap_or_default(),
    });
    steps.push(Step::Stdio);
    steps.push(Step::Umask(user.umask().unwrap_or(0o022)));
    steps.push(Step::WorkingDirectory { path: process.cwd().clone(), create: context.init });
    steps.push(Step::Labels);
    let sets = capabilities(process.capabilities().as_ref());
    steps.push(Step::LimitCapabilities { bounding: sets.bounding });
    steps.push(Step::SetUser);
    if process.no_new_privileges() == Some(true) {
        steps.push(Step::NoNewPrivileges);
    }
    steps.push(Step::FindProgram);
    if context.facts.barrier {
        steps.push(Step::Barrier);
    }
    if context.start_hooks {
        steps.push(Step::Hooks(HookPoint::StartContainer));
    }
    let affinity = process.exec_cpu_affinity().as_ref().filter(|_| !context.init);
    if let Some(last) = affinity.and_then(|affinity| affinity.cpu_affinity_final().as_deref()) {
        steps.push(Step::FinalCpuAffinity(number_list(last)?));
    }
    if context.facts.dies_with_parent {
        // ORDER: after the ids are set, which would undo it; before the announcement, which fails when the parent is gone.
        steps.push(Step::DieWithParent);
    }
    steps.push(Step::Announce);
    // ORDER: the filter comes last, so that it need allow nothing but what the program does; until here
    // CAP_SYS_ADMIN is kept in force for it.
    if context.filtered {
        steps.push(Step::Seccomp);
    }
    steps.push(Step::SetCapabilities(sets));
    steps.push(Step::Execute);
    Ok(())
}

fn push_rlimits(steps: &mut Vec<Step>, process: &Process) -> Result<(), Error> {
    let mut seen = Vec::new();
    for rlimit in process.rlimits().iter().flatten() {
        let resource = rlimit_number(rlimit.typ());
        if seen.contains(&resource) {
            return Err(Error::InvalidSpec(format!("process.rlimits has {} twice", rlimit.typ())));
        }
        seen.push(resource);
        let limit = Rlimit { soft: rlimit.soft(), hard: rlimit.hard() };
        steps.push(Step::Rlimit { resource, limit });
    }
    Ok(())
}

fn push_scheduling(
    steps: &mut Vec<Step>,
    process: &Process,
    context: &ProcessContext<'_>,
) -> Result<(), Error> {
    if !context.facts.keep_keyring {
        steps.push(Step::Keyring);
    }
    if let Some(spec) = process.scheduler() {
        steps.push(Step::Scheduler(scheduler(spec)));
    }
    if let Some(spec) = process.io_priority() {
        steps.push(Step::IoPriority(io_priority(spec)?));
    }
    let affinity = process.exec_cpu_affinity().as_ref().filter(|_| !context.init);
    if let Some(first) = affinity.and_then(|affinity| affinity.initial().as_deref()) {
        steps.push(Step::CpuAffinity(number_list(first)?));
    }
    Ok(())
}

//! `update` and `rename`.

use std::sync::Arc;

use rorqual_core::{ContainerName, full_message};

use crate::container::Container;
use crate::error::{Error, Result};
use crate::ocispec;
use crate::phase::Phase;
use crate::request::UpdateRequest;
use crate::spec::{Resources, RestartPolicy};
use crate::undo::Undo;
use crate::validate;
use crate::world::World;

/// Renames. The caller holds the operation lock.
pub(super) async fn rename(
    world: &Arc<World>,
    container: &Arc<Container>,
    name: ContainerName,
) -> Result<()> {
    let old = container.definition();
    if old.name == name {
        // COMPAT: dockerd's text.
        return Err(Error::Invalid(
            "Renaming a container with the same name as its current name".to_owned(),
        ));
    }
    if world.index.find(name.as_str()).is_ok_and(|other| other.id == container.id) {
        tracing::debug!(container = %container.id.short(), "the new name is a prefix of the id");
    }
    let mut operation = world.operations.begin("container.rename");
    operation.will_need(Undo::ReleaseName { name: name.clone(), owner: container.id })?;
    let result = async {
        // A free name or ours: reserved names of ours cannot be here, they are the old one.
        world.index.reserve_name(&name, container.id).map_err(|taken| {
            // COMPAT: dockerd's text.
            Error::Conflict(format!("Error when allocating new name: {taken}"))
        })?;
        let mut new = (*old).clone();
        new.name = name.clone();
        container.redefine(&world.parts.database, new).await
    }
    .await;
    operation.settle(result).await?;
    world.index.release_name(&old.name, container.id);
    if let Err(error) = world.parts.networks.rename(&container.id, name.as_str()).await {
        tracing::warn!(container = %container.id.short(), error = full_message(&error), "others do not see the new name yet");
    }
    world.container_event(container, "rename", [("oldName", format!("/{}", old.name))]);
    Ok(())
}

/// Changes limits and policy. The caller holds the operation lock.
pub(super) async fn update(
    world: &Arc<World>,
    container: &Arc<Container>,
    request: UpdateRequest,
) -> Result<Vec<String>> {
    if matches!(container.phase(), Phase::Removing | Phase::Dead { .. }) {
        return Err(Error::Conflict(format!(
            "cannot update container {}: container is marked for removal and cannot be updated",
            container.id
        )));
    }
    let mut new = (*container.definition()).clone();
    validate::resources(&request.resources)?;
    update_conflicts(&new.spec.resources, &request.resources).map_err(|reason| {
        // COMPAT: dockerd's text.
        Error::Conflict(format!("Cannot update container {}: {reason}", container.id))
    })?;
    validate::cpusets(&request.resources, &world.options)?;
    let mut merged = merge(&new.spec.resources, request.resources);
    let mut warnings = validate::unsupported_weights(&mut merged, &world.options);
    warnings.extend(validate::resources(&merged)?);
    if let Some(policy) = request.restart {
        if new.spec.auto_remove && policy != RestartPolicy::No {
            // COMPAT: dockerd's text.
            return Err(Error::Invalid(
                "Restart policy cannot be updated because AutoRemove is enabled for the container"
                    .to_owned(),
            ));
        }
        new.spec.restart = policy;
    }
    if let Some(task) = container.task().filter(|_| merged != new.spec.resources) {
        let resources = ocispec::build_resources(&merged, world.facts.cgroup_unified)?;
        let message = format!("cannot update container {}", container.id);
        task.update(resources).await.map_err(|source| Error::Task { message, source })?;
    }
    new.spec.resources = merged;
    container.redefine(&world.parts.database, new).await?;
    world.container_event(container, "update", []);
    Ok(warnings)
}

/// COMPAT: what dockerd does not let change alone, in its words.
fn update_conflicts(old: &Resources, new: &Resources) -> Result<(), &'static str> {
    let memory = new.memory.unwrap_or(0);
    if memory > old.memory_swap.unwrap_or(0) && memory != 0 && new.memory_swap.is_none() {
        return Err(
            "Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time",
        );
    }
    let set = |value: Option<i64>| value.is_some_and(|value| value > 0);
    if set(new.nano_cpus) && set(old.cpu_period) {
        return Err(
            "Conflicting options: Nano CPUs cannot be updated as CPU Period has already been set",
        );
    }
    if set(new.nano_cpus) && set(old.cpu_quota) {
        return Err(
            "Conflicting options: Nano CPUs cannot be updated as CPU Quota has already been set",
        );
    }
    if set(old.nano_cpus) && set(new.cpu_quota) {
        return Err(
            "Conflicting options: CPU Quota cannot be updated as NanoCPUs has already been set",
        );
    }
    if set(old.nano_cpus) && set(new.cpu_period) {
        return Err(
            "Conflicting options: CPU Period cannot be updated as NanoCPUs has already been set",
        );
    }
    Ok(())
}

/// Lays the given limits over the old ones.
fn merge(old: &Resources, new: Resources) -> Resources {
    fn list<T: Clone>(old: &[T], new: Vec<T>) -> Vec<T> {
        if new.is_empty() { old.to_vec() } else { new }
    }
    Resources {
        memory: new.memory.or(old.memory),
        memory_swap: new.memory_swap.or(old.memory_swap),
        memory_reservation: new.memory_reservation.or(old.memory_reservation),
        memory_swappiness: new.memory_swappiness.or(old.memory_swappiness),
        oom_kill_disable: new.oom_kill_disable.or(old.oom_kill_disable),
        nano_cpus: new.nano_cpus.or(old.nano_cpus),
        cpu_shares: new.cpu_shares.or(old.cpu_shares),
        cpu_quota: new.cpu_quota.or(old.cpu_quota),
        cpu_period: new.cpu_period.or(old.cpu_period),
        cpu_rt_runtime: new.cpu_rt_runtime.or(old.cpu_rt_runtime),
        cpu_rt_period: new.cpu_rt_period.or(old.cpu_rt_period),
        cpuset_cpus: new.cpuset_cpus.or_else(|| old.cpuset_cpus.clone()),
        cpuset_mems: new.cpuset_mems.or_else(|| old.cpuset_mems.clone()),
        pids: new.pids.or(old.pids),
        blkio_weight: new.blkio_weight.or(old.blkio_weight),
        blkio_weight_devices: list(&old.blkio_weight_devices, new.blkio_weight_devices),
        blkio_read_bps: list(&old.blkio_read_bps, new.blkio_read_bps),
        blkio_write_bps: list(&old.blkio_write_bps, new.blkio_write_bps),
        blkio_read_iops: list(&old.blkio_read_iops, new.blkio_read_iops),
        blkio_write_iops: list(&old.blkio_write_iops, new.blkio_write_iops),
        // COMPAT: devices, ulimits and the cgroup cannot change after the making.
        devices: old.devices.clone(),
        device_rules: old.device_rules.clone(),
        ulimits: old.ulimits.clone(),
        cgroup_parent: old.cgroup_parent.clone(),
    }
}

#[cfg(test)]
mod tests;

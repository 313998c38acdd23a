//! Limits: `HostConfig` and `UpdateRequest` to [`Resources`], and back for `inspect`.

use rorqual_api::container::UpdateRequest as UpdateDocument;
use rorqual_api::host_config::{
    DeviceMapping, HostConfig, RestartPolicy as RestartDocument, ThrottleDevice,
    Ulimit as UlimitDocument, WeightDevice as WeightDocument,
};
use rorqual_core::Ulimit;
use rorqual_engine::UpdateRequest;
use rorqual_engine::spec::{BlkioDevice, DeviceSpec, Resources, RestartPolicy, WeightDevice};

use crate::convert::non_empty;
use crate::error::{BadRequest, invalid};

fn positive(value: i64) -> Option<i64> {
    (value != 0).then_some(value)
}

fn rates(devices: Option<Vec<ThrottleDevice>>) -> Vec<BlkioDevice> {
    let convert = |ThrottleDevice { path, rate }| BlkioDevice { path, rate };
    devices.unwrap_or_default().into_iter().map(convert).collect()
}

fn weights(devices: Option<Vec<WeightDocument>>) -> Vec<WeightDevice> {
    let convert = |WeightDocument { path, weight }| WeightDevice { path, weight };
    devices.unwrap_or_default().into_iter().map(convert).collect()
}

fn device(document: DeviceMapping) -> Result<DeviceSpec, BadRequest> {
    let DeviceMapping { path_on_host, path_in_container, cgroup_permissions } = document;
    let permissions =
        if cgroup_permissions.is_empty() { "rwm".to_owned() } else { cgroup_permissions };
    if !permissions.chars().all(|letter| "rwm".contains(letter)) {
        return Err(invalid(format!("invalid device mode: {permissions}")));
    }
    let container = non_empty(path_in_container).unwrap_or_else(|| path_on_host.clone());
    Ok(DeviceSpec { host: path_on_host, container, permissions })
}

fn ulimit(UlimitDocument { name, hard, soft }: UlimitDocument) -> Result<Ulimit, BadRequest> {
    Ulimit::new(name, soft, hard).map_err(|error| invalid(error.to_string()))
}

/// Takes the limits out of a request; what is zero or empty on the wire becomes `None`.
pub(crate) fn resources(host: &mut HostConfig) -> Result<Resources, BadRequest> {
    let devices = host.devices.take().unwrap_or_default();
    let ulimits = host.ulimits.take().unwrap_or_default();
    if host.memory_swappiness.is_some_and(|value| !(-1..=100).contains(&value)) {
        let value = host.memory_swappiness.unwrap_or_default();
        return Err(invalid(format!(
            "Invalid value: {value}, valid memory swappiness range is 0-100"
        )));
    }
    Ok(Resources {
        memory: positive(host.memory),
        memory_swap: positive(host.memory_swap),
        memory_reservation: positive(host.memory_reservation),
        memory_swappiness: host.memory_swappiness.filter(|value| *value != -1),
        oom_kill_disable: host.oom_kill_disable,
        nano_cpus: positive(host.nano_cpus),
        cpu_shares: positive(host.cpu_shares),
        cpu_quota: positive(host.cpu_quota),
        cpu_period: positive(host.cpu_period),
        cpu_rt_runtime: positive(host.cpu_realtime_runtime),
        cpu_rt_period: positive(host.cpu_realtime_period),
        cpuset_cpus: non_empty(std::mem::take(&mut host.cpuset_cpus)),
        cpuset_mems: non_empty(std::mem::take(&mut host.cpuset_mems)),
        pids: host.pids_limit.filter(|limit| *limit > 0),
        blkio_weight: (host.blkio_weight != 0).then_some(host.blkio_weight),
        blkio_weight_devices: weights(host.blkio_weight_device.take()),
        blkio_read_bps: rates(host.blkio_device_read_bps.take()),
        blkio_write_bps: rates(host.blkio_device_write_bps.take()),
        blkio_read_iops: rates(host.blkio_device_read_iops.take()),
        blkio_write_iops: rates(host.blkio_device_write_iops.take()),
        devices: devices.into_iter().map(device).collect::<Result<_, _>>()?,
        device_rules: host.device_cgroup_rules.take().unwrap_or_default(),
        ulimits: ulimits.into_iter().map(ulimit).collect::<Result<_, _>>()?,
        cgroup_parent: non_empty(std::mem::take(&mut host.cgroup_parent)),
    })
}

/// Reads a restart policy.
pub(crate) fn restart(document: &RestartDocument) -> Result<RestartPolicy, BadRequest> {
    let RestartDocument { name, maximum_retry_count } = document;
    let policy = match name.as_str() {
        "" | "no" => RestartPolicy::No,
        "always" => RestartPolicy::Always,
        "unless-stopped" => RestartPolicy::UnlessStopped,
        "on-failure" => {
            let count = u32::try_from(*maximum_retry_count).map_err(|_| {
                invalid("invalid restart policy: maximum retry count cannot be negative")
            })?;
            return Ok(RestartPolicy::OnFailure(count));
        }
        other => {
            return Err(invalid(format!(
                "invalid restart policy: unknown policy '{other}'; use one of 'no', 'always', 'on-failure', or \
                 'unless-stopped'"
            )));
        }
    };
    if *maximum_retry_count != 0 {
        let reason = "maximum retry count can only be used with 'on-failure'";
        let negative = if *maximum_retry_count < 0 { " and cannot be negative" } else { "" };
        return Err(invalid(format!("invalid restart policy: {reason}{negative}")));
    }
    Ok(policy)
}

/// Writes a restart policy.
pub(crate) fn restart_document(policy: RestartPolicy) -> RestartDocument {
    let (name, count) = match policy {
        RestartPolicy::No => ("no", 0),
        RestartPolicy::OnFailure(count) => ("on-failure", count),
        RestartPolicy::Always => ("always", 0),
        RestartPolicy::UnlessStopped => ("unless-stopped", 0),
    };
    RestartDocument { name: name.to_owned(), maximum_retry_count: i64::from(count) }
}

/// Reads a change of limits; zero leaves a limit as it is.
pub(crate) fn update(document: UpdateDocument) -> Result<UpdateRequest, BadRequest> {
    let UpdateDocument {
        cpu_shares,
        memory,
        nano_cpus,
        cgroup_parent: _, // COMPAT: cannot change and is ignored by dockerd too.
        blkio_weight,
        blkio_weight_device,
        blkio_device_read_bps,
        blkio_device_write_bps,
        blkio_device_read_iops,
        blkio_device_write_iops,
        cpu_period,
        cpu_quota,
        cpu_realtime_period,
        cpu_realtime_runtime,
        cpuset_cpus,
        cpuset_mems,
        memory_reservation,
        memory_swap,
        memory_swappiness,
        oom_kill_disable,
        pids_limit,
        restart_policy,
    } = document;
    let given = |value: Option<i64>| value.and_then(positive);
    let resources = Resources {
        memory: given(memory),
        memory_swap: given(memory_swap),
        memory_reservation: given(memory_reservation),
        memory_swappiness,
        oom_kill_disable,
        nano_cpus: given(nano_cpus),
        cpu_shares: given(cpu_shares),
        cpu_quota: given(cpu_quota),
        cpu_period: given(cpu_period),
        cpu_rt_runtime: given(cpu_realtime_runtime),
        cpu_rt_period: given(cpu_realtime_period),
        cpuset_cpus: cpuset_cpus.and_then(non_empty),
        cpuset_mems: cpuset_mems.and_then(non_empty),
        pids: pids_limit.map(|limit| if limit <= 0 { -1 } else { limit }),
        blkio_weight: blkio_weight.filter(|weight| *weight != 0),
        blkio_weight_devices: weights(blkio_weight_device),
        blkio_read_bps: rates(blkio_device_read_bps),
        blkio_write_bps: rates(blkio_device_write_bps),
        blkio_read_iops: rates(blkio_device_read_iops),
        blkio_write_iops: rates(blkio_device_write_iops),
        devices: Vec::new(),
        device_rules: Vec::new(),
        ulimits: Vec::new(),
        cgroup_parent: None,
    };
    // An empty name is how Go says "not given".
    let restart_policy = restart_policy.filter(|policy| !policy.name.is_empty());
    let restart = restart_policy.map(|policy| restart(&policy)).transpose()?;
    Ok(UpdateRequest { resources, restart })
}

/// Writes present limits (which `update` may have changed) over those of the request.
pub(crate) fn show(resources: &Resources, host: &mut HostConfig) {
    let rates = |devices: &[BlkioDevice]| {
        let convert =
            |device: &BlkioDevice| ThrottleDevice { path: device.path.clone(), rate: device.rate };
        (!devices.is_empty()).then(|| devices.iter().map(convert).collect())
    };
    host.memory = resources.memory.unwrap_or_default();
    host.memory_swap = match (resources.memory_swap, resources.memory) {
        (Some(swap), _) => swap,
        // COMPAT: dockerd shows what it made of a missing value.
        (None, Some(memory)) if memory > 0 => memory.saturating_mul(2),
        (None, _) => 0,
    };
    host.memory_reservation = resources.memory_reservation.unwrap_or_default();
    host.memory_swappiness = resources.memory_swappiness;
    host.oom_kill_disable = Some(resources.oom_kill_disable.unwrap_or_default());
    host.nano_cpus = resources.nano_cpus.unwrap_or_default();
    host.cpu_shares = resources.cpu_shares.unwrap_or_default();
    host.cpu_quota = resources.cpu_quota.unwrap_or_default();
    host.cpu_period = resources.cpu_period.unwrap_or_default();
    host.cpu_realtime_runtime = resources.cpu_rt_runtime.unwrap_or_default();
    host.cpu_realtime_period = resources.cpu_rt_period.unwrap_or_default();
    host.cpuset_cpus = resources.cpuset_cpus.clone().unwrap_or_default();
    host.cpuset_mems = resources.cpuset_mems.clone().unwrap_or_default();
    if resources.pids.is_some() {
        // COMPAT: a bound that was taken away is shown as 0.
        host.pids_limit = resources.pids.map(|limit| limit.max(0));
    }
    host.blkio_weight = resources.blkio_weight.unwrap_or_default();
    host.blkio_device_read_bps =
        rates(&resources.blkio_read_bps).or(host.blkio_device_read_bps.take());
    host.blkio_device_write_bps =
        rates(&resources.blkio_write_bps).or(host.blkio_device_write_bps.take());
    host.blkio_device_read_iops =
        rates(&resources.blkio_read_iops).or(host.blkio_device_read_iops.take());
    host.blkio_device_write_iops =
        rates(&resources.blkio_write_iops).or(host.blkio_device_write_iops.take());
}

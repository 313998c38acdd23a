//! Programs that run.

use rorqual_build::{
    CacheSharing, Error, ExecMount, ExecNetwork, ExecOp, ExecSecurity, Input, MountKind, SecretSpec,
};

use super::decode::pick;
use super::invalid;
use crate::wire::pb;

/// LIMIT: mounts of one program.
const MOST_MOUNTS: usize = 1024;

/// Reads a program and the numbers of its outputs.
pub(super) fn decode(wire: &pb::ExecOp, inputs: &[Input]) -> Result<(ExecOp, Vec<i64>), Error> {
    let meta = wire.meta.clone().ok_or_else(|| invalid("invalid exec op with no meta"))?;
    if meta.args.is_empty() {
        return Err(invalid("invalid exec op with no args"));
    }
    if wire.mounts.len() > MOST_MOUNTS {
        return Err(invalid(format!("a program has more than {MOST_MOUNTS} mounts")));
    }
    let mounts =
        wire.mounts.iter().map(|wire| mount(wire, inputs)).collect::<Result<Vec<_>, _>>()?;
    if mounts.iter().filter(|mount| mount.target == "/").count() != 1 {
        return Err(invalid("invalid exec op with no rootfs"));
    }
    let outputs = mounts.iter().filter_map(|mount| mount.output.map(i64::from)).collect();
    let op = ExecOp {
        args: meta.args,
        env: meta.env,
        cwd: meta.cwd,
        user: meta.user,
        hostname: meta.hostname,
        mounts,
        network: match wire.network() {
            pb::NetMode::Unset => ExecNetwork::Sandbox,
            pb::NetMode::Host => ExecNetwork::Host,
            pb::NetMode::None => ExecNetwork::None,
        },
        security: match wire.security() {
            pb::SecurityMode::Sandbox => ExecSecurity::Sandbox,
            pb::SecurityMode::Insecure => ExecSecurity::Insecure,
        },
        extra_hosts: meta.extra_hosts.into_iter().map(|host| (host.host, host.ip)).collect(),
        proxy_env: meta.proxy_env.map(proxies).unwrap_or_default(),
        secret_env: wire.secretenv.iter().map(secret_env).collect(),
        shm_size: None,
        ulimits: meta
            .ulimit
            .iter()
            .map(|limit| format!("{}={}:{}", limit.name, limit.soft, limit.hard))
            .collect(),
        cgroup_parent: meta.cgroup_parent,
        devices: wire.cdi_devices.iter().map(|d| (d.name.clone(), !d.optional)).collect(),
        valid_exit_codes: meta.valid_exit_codes,
    };
    Ok((op, outputs))
}

/// The variables that a proxy setting becomes, in both spellings.
fn proxies(wire: pb::ProxyEnv) -> Vec<String> {
    let named = [
        ("HTTP_PROXY", wire.http_proxy),
        ("HTTPS_PROXY", wire.https_proxy),
        ("FTP_PROXY", wire.ftp_proxy),
        ("NO_PROXY", wire.no_proxy),
        ("ALL_PROXY", wire.all_proxy),
    ];
    let set = named.into_iter().filter(|(_, value)| !value.is_empty());
    set.flat_map(|(name, value)| {
        [format!("{name}={value}"), format!("{}={value}", name.to_lowercase())]
    })
    .collect()
}

fn secret_env(wire: &pb::SecretEnv) -> (String, SecretSpec) {
    let spec = SecretSpec { id: wire.id.clone(), optional: wire.optional, ..SecretSpec::default() };
    (wire.name.clone(), spec)
}

fn mount(wire: &pb::Mount, inputs: &[Input]) -> Result<ExecMount, Error> {
    if !wire.dest.starts_with('/') {
        return Err(invalid(format!("the mount target {:?} is not absolute", wire.dest)));
    }
    if !wire.result_id.is_empty() {
        return Err(Error::Unsupported("mounts of results by name are not supported".to_owned()));
    }
    let kind = match pb::MountType::try_from(wire.mount_type) {
        Ok(pb::MountType::Bind) => MountKind::Bind,
        Ok(pb::MountType::Cache) => cache(wire.cache_opt.as_ref()),
        Ok(pb::MountType::Tmpfs) => {
            let size = wire.tmpfs_opt.map_or(0, |options| options.size);
            MountKind::Tmpfs(u64::try_from(size).ok().filter(|size| *size > 0))
        }
        Ok(pb::MountType::Secret) => {
            let wire = wire.secret_opt.clone().unwrap_or_default();
            MountKind::Secret(spec(wire.id, (wire.uid, wire.gid), wire.mode, wire.optional))
        }
        Ok(pb::MountType::Ssh) => {
            let wire = wire.ssh_opt.clone().unwrap_or_default();
            MountKind::Ssh(spec(wire.id, (wire.uid, wire.gid), wire.mode, wire.optional))
        }
        Err(_) => {
            return Err(Error::Unsupported(format!(
                "mounts of the kind {} are not supported",
                wire.mount_type
            )));
        }
    };
    let input = match (&kind, wire.input) {
        (MountKind::Bind, number) => Some(pick(inputs, number)?),
        (MountKind::Cache { .. }, -1) => None,
        (MountKind::Cache { .. }, number) => Some(pick(inputs, number)?),
        _ => None,
    };
    let output = match wire.output {
        -1 => None,
        number => Some(
            u32::try_from(number)
                .map_err(|_| invalid(format!("{number} is no possible number of an output")))?,
        ),
    };
    Ok(ExecMount {
        target: wire.dest.clone(),
        input,
        selector: if wire.selector.is_empty() { "/".to_owned() } else { wire.selector.clone() },
        output,
        readonly: wire.readonly,
        kind,
    })
}

fn cache(wire: Option<&pb::CacheOpt>) -> MountKind {
    MountKind::Cache {
        id: wire.map(|wire| wire.id.clone()).unwrap_or_default(),
        sharing: match wire.map(pb::CacheOpt::sharing) {
            Some(pb::CacheSharingOpt::Private) => CacheSharing::Private,
            Some(pb::CacheSharingOpt::Locked) => CacheSharing::Locked,
            _ => CacheSharing::Shared,
        },
    }
}

fn spec(id: String, (uid, gid): (u32, u32), mode: u32, optional: bool) -> SecretSpec {
    SecretSpec { id, uid, gid, mode, optional }
}

/// Writes a program; `index` numbers its inputs.
pub(super) fn encode(op: &ExecOp, mut index: impl FnMut(Input) -> i64) -> pb::ExecOp {
    let mounts = op.mounts.iter().map(|mount| wire_mount(mount, &mut index)).collect();
    pb::ExecOp {
        meta: Some(pb::Meta {
            args: op.args.clone(),
            env: op.env.clone(),
            cwd: op.cwd.clone(),
            user: op.user.clone(),
            proxy_env: wire_proxies(&op.proxy_env),
            extra_hosts: op
                .extra_hosts
                .iter()
                .map(|(host, ip)| pb::HostIp { host: host.clone(), ip: ip.clone() })
                .collect(),
            hostname: op.hostname.clone(),
            ulimit: op.ulimits.iter().filter_map(|limit| wire_ulimit(limit)).collect(),
            cgroup_parent: op.cgroup_parent.clone(),
            remove_mount_stubs_recursive: false,
            valid_exit_codes: op.valid_exit_codes.clone(),
        }),
        mounts,
        network: match op.network {
            ExecNetwork::Sandbox => pb::NetMode::Unset,
            ExecNetwork::Host => pb::NetMode::Host,
            ExecNetwork::None => pb::NetMode::None,
        } as i32,
        security: match op.security {
            ExecSecurity::Sandbox => pb::SecurityMode::Sandbox,
            ExecSecurity::Insecure => pb::SecurityMode::Insecure,
        } as i32,
        secretenv: op
            .secret_env
            .iter()
            .map(|(name, spec)| pb::SecretEnv {
                id: spec.id.clone(),
                name: name.clone(),
                optional: spec.optional,
            })
            .collect(),
        cdi_devices: op
            .devices
            .iter()
            .map(|(name, required)| pb::CdiDevice { name: name.clone(), optional: !required })
            .collect(),
    }
}

fn wire_ulimit(text: &str) -> Option<pb::Ulimit> {
    let (name, limits) = text.split_once('=')?;
    let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
    Some(pb::Ulimit { name: name.to_owned(), soft: soft.parse().ok()?, hard: hard.parse().ok()? })
}

fn wire_proxies(variables: &[String]) -> Option<pb::ProxyEnv> {
    if variables.is_empty() {
        return None;
    }
    let value = |name: &str| {
        let mut set = variables.iter().filter_map(|variable| variable.split_once('='));
        set.find(|(found, _)| found.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.to_owned())
            .unwrap_or_default()
    };
    Some(pb::ProxyEnv {
        http_proxy: value("HTTP_PROXY"),
        https_proxy: value("HTTPS_PROXY"),
        ftp_proxy: value("FTP_PROXY"),
        no_proxy: value("NO_PROXY"),
        all_proxy: value("ALL_PROXY"),
    })
}

fn wire_mount(mount: &ExecMount, index: &mut impl FnMut(Input) -> i64) -> pb::Mount {
    let mut wire = pb::Mount {
        input: mount.input.map_or(-1, index),
        selector: if mount.selector == "/" { String::new() } else { mount.selector.clone() },
        dest: mount.target.clone(),
        output: mount.output.map_or(-1, i64::from),
        readonly: mount.readonly,
        ..pb::Mount::default()
    };
    match &mount.kind {
        MountKind::Bind => {}
        MountKind::Cache { id, sharing } => {
            wire.mount_type = pb::MountType::Cache as i32;
            let sharing = match sharing {
                CacheSharing::Shared => pb::CacheSharingOpt::Shared,
                CacheSharing::Private => pb::CacheSharingOpt::Private,
                CacheSharing::Locked => pb::CacheSharingOpt::Locked,
            };
            wire.cache_opt = Some(pb::CacheOpt { id: id.clone(), sharing: sharing as i32 });
        }
        MountKind::Tmpfs(size) => {
            wire.mount_type = pb::MountType::Tmpfs as i32;
            let size = size.and_then(|size| i64::try_from(size).ok()).unwrap_or_default();
            wire.tmpfs_opt = Some(pb::TmpfsOpt { size });
        }
        MountKind::Secret(spec) => {
            wire.mount_type = pb::MountType::Secret as i32;
            wire.secret_opt = Some(pb::SecretOpt {
                id: spec.id.clone(),
                uid: spec.uid,
                gid: spec.gid,
                mode: spec.mode,
                optional: spec.optional,
            });
        }
        MountKind::Ssh(spec) => {
            wire.mount_type = pb::MountType::Ssh as i32;
            wire.ssh_opt = Some(pb::SshOpt {
                id: spec.id.clone(),
                uid: spec.uid,
                gid: spec.gid,
                mode: spec.mode,
                optional: spec.optional,
            });
        }
    }
    wire
}

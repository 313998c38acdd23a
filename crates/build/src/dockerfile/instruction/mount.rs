//! `RUN --mount`: its keys, and what each type of mount takes.

use rorqual_core::units;

use crate::dockerfile::fault::did_you_mean;
use crate::dockerfile::options::csv_fields;
use crate::git_reference::parse_bool;

/// What is mounted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::dockerfile) enum MountType {
    #[default]
    Bind,
    Cache,
    Tmpfs,
    Secret,
    Ssh,
}

impl MountType {
    const ALL: [Self; 5] = [Self::Bind, Self::Cache, Self::Tmpfs, Self::Secret, Self::Ssh];

    const fn name(self) -> &'static str {
        match self {
            Self::Bind => "bind",
            Self::Cache => "cache",
            Self::Tmpfs => "tmpfs",
            Self::Secret => "secret",
            Self::Ssh => "ssh",
        }
    }
}

/// A mount as it was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::dockerfile) struct Mount {
    pub(in crate::dockerfile) kind: MountType,
    pub(in crate::dockerfile) from: String,
    pub(in crate::dockerfile) source: String,
    pub(in crate::dockerfile) target: String,
    pub(in crate::dockerfile) readonly: bool,
    pub(in crate::dockerfile) size: Option<u64>,
    pub(in crate::dockerfile) id: String,
    pub(in crate::dockerfile) sharing: String,
    pub(in crate::dockerfile) required: bool,
    pub(in crate::dockerfile) env: Option<String>,
    pub(in crate::dockerfile) mode: Option<u32>,
    pub(in crate::dockerfile) uid: Option<u32>,
    pub(in crate::dockerfile) gid: Option<u32>,
}

impl Mount {
    /// Tells whether owner or permissions were given.
    pub(in crate::dockerfile) const fn has_owner(&self) -> bool {
        self.mode.is_some() || self.uid.is_some() || self.gid.is_some()
    }
}

const KEYS: [&str; 19] = [
    "type",
    "from",
    "source",
    "target",
    "readonly",
    "id",
    "sharing",
    "required",
    "size",
    "mode",
    "uid",
    "gid",
    "src",
    "dst",
    "destination",
    "ro",
    "rw",
    "readwrite",
    "env",
];

/// Finds the stage or image of a mount, before variables have values.
pub(in crate::dockerfile) fn mount_from(text: &str) -> Result<String, String> {
    let mut from = String::new();
    for field in fields(text)? {
        if let Some((key, value)) = field.split_once('=') {
            if !key.eq_ignore_ascii_case("from") {
                continue;
            }
            if value.find('$').is_some_and(|at| at + 1 != value.len()) {
                return Err(
                    "'from' doesn't support variable expansion, define alias stage instead"
                        .to_owned(),
                );
            }
            value.clone_into(&mut from);
        }
    }
    Ok(from)
}

fn fields(text: &str) -> Result<Vec<String>, String> {
    csv_fields(text).map_err(|error| format!("failed to parse csv mounts: {error}"))
}

/// Reads a mount, with `expand` for the variables in its values.
pub(in crate::dockerfile) fn parse_mount(
    text: &str,
    mut expand: impl FnMut(&str) -> Result<String, String>,
) -> Result<Mount, String> {
    let mut mount = Mount::default();
    let mut access = None;
    for field in fields(text)? {
        let (key, value) = match field.split_once('=') {
            Some((key, value)) => (key.to_ascii_lowercase(), Some(expand(value)?)),
            None => (field.to_ascii_lowercase(), None),
        };
        set(&mut mount, &mut access, &field, (&key, value))?;
    }
    check(&mount)?;
    mount.readonly = access.unwrap_or(!matches!(mount.kind, MountType::Cache | MountType::Tmpfs));
    Ok(mount)
}

fn set(
    mount: &mut Mount,
    readonly: &mut Option<bool>,
    field: &str,
    (key, value): (&str, Option<String>),
) -> Result<(), String> {
    let unexpected =
        || Err(format!("unexpected key '{key}' for mount type '{}'", mount.kind.name()));
    let switch = |value: Option<&str>| match value {
        None => Ok(true),
        Some(value) => parse_bool(value).ok_or_else(|| format!("invalid value for {key}: {value}")),
    };
    match key {
        "readonly" | "ro" => *readonly = Some(switch(value.as_deref())?),
        "readwrite" | "rw" => *readonly = Some(!switch(value.as_deref())?),
        "required" => match mount.kind {
            MountType::Secret | MountType::Ssh => mount.required = switch(value.as_deref())?,
            _ => return unexpected(),
        },
        "size" if mount.kind != MountType::Tmpfs && value.is_some() => return unexpected(),
        key => {
            let Some(value) = value else {
                return Err(format!("invalid field '{field}' must be a key=value pair"));
            };
            return set_value(mount, field, key, value);
        }
    }
    Ok(())
}

fn set_value(mount: &mut Mount, field: &str, key: &str, value: String) -> Result<(), String> {
    let number = |radix| {
        u32::from_str_radix(&value, radix)
            .map(Some)
            .map_err(|_| format!("invalid value {value} for {key}"))
    };
    match key {
        "type" => {
            let wanted = value.to_ascii_lowercase();
            let found = MountType::ALL.into_iter().find(|kind| kind.name() == wanted);
            mount.kind = found.ok_or_else(|| {
                let hint = did_you_mean(&value, MountType::ALL.map(MountType::name), false);
                format!("unsupported mount type {value:?}{hint}")
            })?;
        }
        "from" => mount.from = value,
        "source" | "src" => mount.source = value,
        "target" | "dst" | "destination" => mount.target = value,
        "size" => {
            let size = units::parse_size(&value);
            mount.size = Some(size.map_err(|_| format!("invalid value for {key}: {value}"))?);
        }
        "id" => mount.id = value,
        "sharing" => {
            let modes = ["shared", "private", "locked"];
            let wanted = value.to_ascii_lowercase();
            if !modes.contains(&&*wanted) {
                let hint = did_you_mean(&value, modes, false);
                return Err(format!("unsupported sharing value {value:?}{hint}"));
            }
            mount.sharing = wanted;
        }
        "mode" => mount.mode = number(8)?,
        "uid" => mount.uid = number(10)?,
        "gid" => mount.gid = number(10)?,
        "env" => mount.env = Some(value),
        _ => {
            let hint = did_you_mean(key, KEYS, false);
            return Err(format!("unexpected key '{key}' in '{field}'{hint}"));
        }
    }
    Ok(())
}

/// Checks what may not stand together.
fn check(mount: &Mount) -> Result<(), String> {
    let kind = mount.kind.name();
    if matches!(mount.kind, MountType::Bind | MountType::Tmpfs) {
        let given = [("mode", mount.mode), ("uid", mount.uid), ("gid", mount.gid)];
        if let Some((key, _)) = given.iter().find(|(_, value)| value.is_some()) {
            return Err(format!("{key} not allowed for {kind:?} type mounts"));
        }
    }
    if mount.kind == MountType::Secret {
        if !mount.from.is_empty() {
            return Err("secret mount should not have a from".to_owned());
        }
        if !mount.sharing.is_empty() {
            return Err("secret mount should not define sharing".to_owned());
        }
        if [&mount.source, &mount.target, &mount.id].iter().all(|text| text.is_empty()) {
            return Err("invalid secret mount. one of source, target required".to_owned());
        }
        if !mount.source.is_empty() && !mount.id.is_empty() {
            return Err("both source and id can't be set".to_owned());
        }
    }
    if !mount.sharing.is_empty() && mount.kind != MountType::Cache {
        return Err(format!("invalid cache sharing set for {kind} mount"));
    }
    Ok(())
}

#[cfg(test)]
mod tests;

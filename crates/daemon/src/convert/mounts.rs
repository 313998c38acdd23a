//! Binds, volumes and tmpfs: three spellings on the wire, one in the engine.

use std::collections::BTreeMap;

use rorqual_api::host_config::{self as wire, Mount};
use rorqual_core::VolumeName;
use rorqual_engine::spec::{
    BindOptions, IdMap, MountKind, MountSpec, Propagation, RecursiveReadOnly, TmpfsOptions,
    VolumeOptions, VolumesFrom,
};

use crate::convert::non_empty;
use crate::error::{BadRequest, invalid, unsupported};

/// Reads all mounts of a request in its order: `Binds`, `Mounts`, `Tmpfs`.
pub(crate) fn mounts(
    binds: Vec<String>,
    mounts: Vec<Mount>,
    tmpfs: BTreeMap<String, String>,
) -> Result<Vec<MountSpec>, BadRequest> {
    let binds = binds.iter().map(|text| bind(text));
    let mounts = mounts.into_iter().map(mount);
    let tmpfs = tmpfs.into_iter().map(|(target, options)| tmpfs_option(target, &options));
    let all = binds.chain(mounts).chain(tmpfs).collect::<Result<Vec<_>, _>>()?;
    let mut seen = std::collections::BTreeSet::new();
    for mount in &all {
        if !seen.insert(mount.target.trim_end_matches('/')) {
            return Err(invalid(format!("Duplicate mount point: {}", mount.target)));
        }
    }
    Ok(all)
}

fn propagation(word: &str) -> Option<Propagation> {
    Some(match word {
        "private" => Propagation::Private,
        "rprivate" => Propagation::Rprivate,
        "shared" => Propagation::Shared,
        "rshared" => Propagation::Rshared,
        "slave" => Propagation::Slave,
        "rslave" => Propagation::Rslave,
        _ => return None,
    })
}

/// Checks that a path inside the container can be mounted over.
fn check_target(target: &str, context: &str) -> Result<(), BadRequest> {
    if !target.starts_with('/') {
        return Err(invalid(format!(
            "{context}invalid mount path: '{target}' mount path must be absolute"
        )));
    }
    let is_root = target.split('/').all(|part| part.is_empty() || part == ".");
    if is_root {
        return Err(invalid(format!("{context}invalid specification: destination can't be '/'")));
    }
    Ok(())
}

/// What the mode words of a short form say.
#[derive(Default)]
struct Mode {
    read_only: Option<bool>,
    label: bool,
    propagation: Option<Propagation>,
    no_copy: bool,
    consistency: bool,
    idmap: Option<IdMapMode>,
}

/// What a bind says of ids. Whose they are on the host is known by who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IdMapMode {
    /// `idmap`, or `idmap=USER` or `idmap=USER.GROUP` of the container.
    Caller(Option<(u32, u32)>),
    /// `noidmap`, whatever the daemon's default is.
    Off,
}

/// Stands for the caller until that is known.
pub(crate) const CALLER: (u32, u32) = (u32::MAX, u32::MAX);

fn idmap_mode(word: &str) -> Option<IdMapMode> {
    let ids = match word {
        "noidmap" => return Some(IdMapMode::Off),
        "idmap" => None,
        word => {
            let ids = word.strip_prefix("idmap=")?;
            let (user, group) = ids.split_once('.').unwrap_or((ids, ids));
            Some((user.parse().ok()?, group.parse().ok()?))
        }
    };
    Some(IdMapMode::Caller(ids))
}

impl IdMapMode {
    fn map(self) -> Option<IdMap> {
        match self {
            Self::Caller(container) => Some(IdMap { container, host: CALLER }),
            Self::Off => None,
        }
    }
}

/// Puts the caller into all binds that are to be id-mapped; `default` maps those that say nothing.
pub(crate) fn settle_idmaps(
    mounts: &mut [MountSpec],
    caller: Option<(u32, u32)>,
    default: bool,
) -> Result<(), BadRequest> {
    for mount in mounts {
        let words = mount.mode.split(',').find_map(idmap_mode);
        let MountKind::Bind { source, options } = &mut mount.kind else { continue };
        if default && words.is_none() && options.idmap.is_none() && caller.is_some() {
            options.idmap = Some(IdMap { container: None, host: CALLER });
        }
        let Some(map) = &mut options.idmap else { continue };
        if map.host == CALLER {
            map.host = caller.ok_or_else(|| {
                invalid(format!(
                    "cannot map ids of the bind of {source}: who asks is known only over a unix socket (or ssh)"
                ))
            })?;
        }
    }
    Ok(())
}

fn mode(words: &str) -> Option<Mode> {
    let mut mode = Mode::default();
    for word in words.split(',') {
        let is_first = match word {
            "ro" | "rw" => mode.read_only.replace(word == "ro").is_none(),
            "z" | "Z" => !std::mem::replace(&mut mode.label, true),
            "nocopy" => !std::mem::replace(&mut mode.no_copy, true),
            "consistent" | "cached" | "delegated" | "default" => {
                !std::mem::replace(&mut mode.consistency, true)
            }
            word if let Some(idmap) = idmap_mode(word) => mode.idmap.replace(idmap).is_none(),
            word => mode.propagation.replace(propagation(word)?).is_none(),
        };
        if !is_first {
            return None;
        }
    }
    Some(mode)
}

/// Reads `source:target[:mode]`; a lone target is an anonymous volume.
fn bind(text: &str) -> Result<MountSpec, BadRequest> {
    let context = format!("invalid volume specification: '{text}'");
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, words) = match parts.as_slice() {
        [target] if !target.is_empty() => ("", *target, ""),
        [source, target] if !source.is_empty() && !target.is_empty() => (*source, *target, ""),
        [source, target, words]
            if !source.is_empty() && !target.is_empty() && !words.is_empty() =>
        {
            (*source, *target, *words)
        }
        _ => return Err(invalid(context)),
    };
    // COMPAT: dockerd's text.
    let kind = if source.starts_with('/') { "bind" } else { "volume" };
    check_target(target, &format!("{context}: invalid mount config for type \"{kind}\": "))?;
    let parsed = if words.is_empty() {
        Mode::default()
    } else {
        mode(words).ok_or_else(|| invalid(format!("invalid mode: {words}")))?
    };
    let kind = if source.starts_with('/') {
        if parsed.no_copy {
            return Err(invalid(format!("{context}: invalid mode: {words}")));
        }
        MountKind::Bind {
            source: source.to_owned(),
            options: BindOptions {
                propagation: parsed.propagation,
                non_recursive: false,
                create_source: true,
                recursive_read_only: RecursiveReadOnly::IfPossible,
                idmap: parsed.idmap.and_then(IdMapMode::map),
            },
        }
    } else {
        if parsed.propagation.is_some() || parsed.idmap.is_some() {
            return Err(invalid(format!("{context}: invalid mode: {words}")));
        }
        let name = if source.is_empty() { None } else { Some(volume_name(source)?) };
        MountKind::Volume {
            name,
            options: VolumeOptions { no_copy: parsed.no_copy, ..VolumeOptions::default() },
        }
    };
    Ok(MountSpec {
        kind,
        target: target.to_owned(),
        read_only: parsed.read_only.unwrap_or_default(),
        mode: words.to_owned(),
    })
}

/// Reads the name of a volume.
pub(crate) fn volume_name(text: &str) -> Result<VolumeName, BadRequest> {
    // COMPAT: dockerd's texts.
    if text.len() == 1 {
        return Err(invalid(format!(
            "create {text}: volume name is too short, names should be at least two alphanumeric characters"
        )));
    }
    text.parse().map_err(|_| {
        invalid(format!(
            "create {text}: \"{text}\" includes invalid characters for a local volume name, only \
             \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use absolute path"
        ))
    })
}

/// Reads an entry of `Mounts`.
fn mount(document: Mount) -> Result<MountSpec, BadRequest> {
    let Mount {
        kind,
        source,
        target,
        read_only,
        // COMPAT: means nothing on Linux, and dockerd ignores it too. It is the one word of a bind that docker's client
        // passes on as it is, so it can ask for an id-mapped bind.
        consistency,
        bind_options,
        volume_options,
        image_options,
        tmpfs_options,
        cluster_options,
    } = document;
    let context = format!("invalid mount config for type \"{kind}\"");
    if target.is_empty() {
        return Err(invalid(format!("{context}: field Target must not be empty")));
    }
    check_target(&target, &format!("{context}: "))?;
    let misplaced = [
        ("BindOptions", bind_options.is_some() && kind != "bind"),
        ("VolumeOptions", volume_options.is_some() && kind != "volume"),
        ("ImageOptions", image_options.is_some() && kind != "image"),
        ("TmpfsOptions", tmpfs_options.is_some() && kind != "tmpfs"),
        ("ClusterOptions", cluster_options.is_some() && kind != "cluster"),
    ];
    if let Some((name, _)) = misplaced.iter().find(|(_, is_misplaced)| *is_misplaced) {
        return Err(invalid(format!("{context}: field {name} must not be specified")));
    }
    let idmap = idmap_mode(&consistency);
    let kind = match kind.as_str() {
        "bind" => {
            let options = bind_options.unwrap_or_default();
            bind_kind(source, options, idmap.and_then(IdMapMode::map), &context)?
        }
        "volume" => volume_kind(source, volume_options.unwrap_or_default(), &context)?,
        "tmpfs" if source.is_empty() => tmpfs_kind(tmpfs_options.unwrap_or_default(), &context)?,
        "tmpfs" => return Err(invalid(format!("{context}: field Source must not be specified"))),
        "image" if source.is_empty() => {
            return Err(invalid(format!("{context}: field Source must not be empty")));
        }
        "image" => {
            let wire::ImageOptions { subpath } = image_options.unwrap_or_default();
            MountKind::Image { reference: source, subpath: non_empty(subpath) }
        }
        "cluster" => {
            return Err(unsupported(format!(
                "{context}: cluster volumes need a swarm, which is not supported"
            )));
        }
        _ => return Err(invalid(format!("{context}: mount type unknown"))),
    };
    let mode = if idmap.is_some() { consistency } else { String::new() };
    Ok(MountSpec { kind, target, read_only, mode })
}

fn bind_kind(
    source: String,
    options: wire::BindOptions,
    idmap: Option<IdMap>,
    context: &str,
) -> Result<MountKind, BadRequest> {
    let wire::BindOptions {
        propagation: word,
        non_recursive,
        create_mountpoint,
        read_only_non_recursive,
        read_only_force_recursive,
    } = options;
    if source.is_empty() {
        return Err(invalid(format!("{context}: field Source must not be empty")));
    }
    if !source.starts_with('/') {
        return Err(invalid(format!(
            "{context}: invalid mount path: '{source}' mount path must be absolute"
        )));
    }
    let propagation = if word.is_empty() {
        None
    } else {
        let unknown = || invalid(format!("{context}: invalid propagation mode: {word}"));
        Some(propagation(&word).ok_or_else(unknown)?)
    };
    let recursive_read_only = match (read_only_non_recursive, read_only_force_recursive) {
        (false, false) => RecursiveReadOnly::IfPossible,
        (true, false) => RecursiveReadOnly::Never,
        (false, true) => RecursiveReadOnly::Force,
        (true, true) => {
            return Err(invalid(format!(
                "{context}: ReadOnlyNonRecursive and ReadOnlyForceRecursive exclude each other"
            )));
        }
    };
    let create_source = create_mountpoint;
    let options =
        BindOptions { propagation, non_recursive, create_source, recursive_read_only, idmap };
    Ok(MountKind::Bind { source, options })
}

fn volume_kind(
    source: String,
    options: wire::VolumeOptions,
    context: &str,
) -> Result<MountKind, BadRequest> {
    let wire::VolumeOptions { no_copy, labels, subpath, driver_config } = options;
    let wire::DriverConfig { name: driver, options: driver_options } =
        driver_config.unwrap_or_default();
    let name = if source.is_empty() { None } else { Some(volume_name(&source)?) };
    if name.is_none() && !subpath.is_empty() {
        return Err(invalid(format!(
            "{context}: must not set Subpath when using anonymous volumes"
        )));
    }
    let subpath = non_empty(subpath);
    let driver = non_empty(driver);
    Ok(MountKind::Volume {
        name,
        options: VolumeOptions { no_copy, labels, driver, driver_options, subpath },
    })
}

fn tmpfs_kind(options: wire::TmpfsOptions, context: &str) -> Result<MountKind, BadRequest> {
    let wire::TmpfsOptions { size_bytes, mode, options } = options;
    let size = match u64::try_from(size_bytes) {
        Ok(0) => None,
        Ok(size) => Some(size),
        Err(_) => return Err(invalid(format!("{context}: negative tmpfs size"))),
    };
    let options = options
        .into_iter()
        .map(|pair| match pair.as_slice() {
            [flag] => Ok(flag.clone()),
            [key, value] => Ok(format!("{key}={value}")),
            _ => Err(invalid(format!("{context}: invalid option array length"))),
        })
        .collect::<Result<_, _>>()?;
    Ok(MountKind::Tmpfs(TmpfsOptions { size, mode: (mode != 0).then_some(mode), options }))
}

/// Reads an entry of `Tmpfs`: options as for `mount -o`.
fn tmpfs_option(target: String, options: &str) -> Result<MountSpec, BadRequest> {
    check_target(&target, "")?;
    let mut read_only = false;
    let mut parsed = TmpfsOptions::default();
    for option in options.split(',').filter(|option| !option.is_empty()) {
        let bad = || invalid(format!("invalid tmpfs option {option:?}"));
        match option.split_once('=') {
            Some(("size", size)) if !size.ends_with('%') => {
                parsed.size = Some(rorqual_core::units::parse_size(size).map_err(|_| bad())?);
            }
            Some(("mode", mode)) => {
                parsed.mode = Some(u32::from_str_radix(mode, 8).map_err(|_| bad())?);
            }
            None if option == "ro" => read_only = true,
            None if option == "rw" => read_only = false,
            _ => parsed.options.push(option.to_owned()),
        }
    }
    Ok(MountSpec { kind: MountKind::Tmpfs(parsed), target, read_only, mode: options.to_owned() })
}

/// Reads `container[:ro|rw]`.
pub(crate) fn volumes_from(text: &str) -> Result<VolumesFrom, BadRequest> {
    let (container, words) = text.split_once(':').unwrap_or((text, ""));
    if container.is_empty() {
        return Err(invalid("invalid volumes-from specification: must not be empty"));
    }
    let read_only = match words {
        "" => None,
        words => {
            let bad = || invalid(format!("invalid mode: {words}"));
            mode(words).ok_or_else(bad)?.read_only
        }
    };
    Ok(VolumesFrom { container: container.to_owned(), read_only })
}

#[cfg(test)]
mod tests;

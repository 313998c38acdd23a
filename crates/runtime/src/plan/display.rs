//! How a plan prints: one line per source and step, for tests and for debugging.

use std::fmt::{self, Display, Formatter};
use std::path::Path;

use super::{FsPlan, InitPlan, SourcePlan, Step};

impl Display for InitPlan {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "create {:#x}", self.create.bits())?;
        if let Some(map) = &self.users {
            writeln!(f, "users {map:?}")?;
        }
        for (index, source) in self.sources.iter().enumerate() {
            writeln!(f, "source {index}: {source}")?;
        }
        for step in &self.steps {
            writeln!(f, "{step}")?;
        }
        self.warnings.iter().try_for_each(|warning| writeln!(f, "warning: {warning}"))
    }
}

impl Display for SourcePlan {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rootfs(plan) => write!(f, "rootfs {plan:?}"),
            Self::Bind {
                path,
                subpath,
                recursive,
                attributes: a,
                recursive_attributes: r,
                idmap,
            } => {
                write!(f, "{} {path:?}", if *recursive { "rbind" } else { "bind" })?;
                subpath.as_ref().map_or(Ok(()), |below| write!(f, " below {below:?}"))?;
                write!(f, " +{:#x} -{:#x} p{:#x}", a.set, a.clear, a.propagation)?;
                if (r.set | r.clear | r.propagation) != 0 {
                    write!(f, " rec +{:#x} -{:#x} p{:#x}", r.set, r.clear, r.propagation)?;
                }
                idmap.as_ref().map_or(Ok(()), |map| write!(f, " idmap {map:?}"))
            }
            Self::Part { whole, subpath } => write!(f, "part {subpath:?} of {whole:?}"),
            Self::Namespace(path) => write!(f, "namespace {path:?}"),
            Self::Given(index) => write!(f, "given namespace {index}"),
        }
    }
}

impl Display for FsPlan {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} on {:?} +{:#x}", self.kind, self.destination, self.attributes)?;
        for (key, value) in &self.data {
            match value {
                Some(value) => write!(f, " {key}={value}")?,
                None => write!(f, " {key}")?,
            }
        }
        if self.classic != 0 {
            write!(f, " flags {:#x}", self.classic)?;
        }
        if self.copy_up { write!(f, " (copy up)") } else { Ok(()) }
    }
}

impl Display for Step {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Join(kind, source) => write!(f, "join {kind:?} by source {}", source.0),
            Self::Sysctl { name, value } => write!(f, "sysctl {name} = {value}"),
            Self::Root { source, at } if at == Path::new("/") => {
                write!(f, "root from source {}", source.0)
            }
            Self::Root { source, at } => {
                write!(f, "root from source {} at {}", source.0, at.display())
            }
            Self::Bind { source, destination, .. } => {
                write!(f, "bind source {} on {destination:?}", source.0)
            }
            Self::Mount(plan) => write!(f, "mount {plan}"),
            Self::Device(device) => write!(
                f,
                "device {:?} {:o} {}:{} mode {:o} owner {}:{}{}",
                device.path,
                device.kind,
                device.number.0,
                device.number.1,
                device.mode,
                device.owner.0,
                device.owner.1,
                if device.bind { " (bind)" } else { "" }
            ),
            Self::Link { path, target } => write!(f, "link {path:?} -> {target}"),
            Self::Mask(path) => write!(f, "mask {path:?}"),
            Self::ReadOnly(path) => write!(f, "read-only {path:?}"),
            Self::LimitCapabilities { bounding } => write!(f, "limit capabilities {bounding:#x}"),
            Self::SetCapabilities(sets) => write!(
                f,
                "capabilities effective {:#x} permitted {:#x} inheritable {:#x} ambient {:#x}",
                sets.effective, sets.permitted, sets.inheritable, sets.ambient
            ),
            other => write!(f, "{other:?}"),
        }
    }
}

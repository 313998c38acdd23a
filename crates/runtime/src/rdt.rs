//! `linux.intelRdt`: the class of service that a container's caches and memory bandwidth come from.

use std::path::PathBuf;

use oci_spec::runtime::{LinuxIntelRdt, Spec};
use rorqual_core::full_message;
use rorqual_sys::resctrl::{self, Group, Resctrl};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::Error;

/// Which groups a container is in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Membership {
    /// The class of service.
    pub class: PathBuf,
    /// Whether the class was made for this container.
    made: bool,
    /// Whether it goes with the container: one that has a name of its own stays.
    owned: bool,
    /// The monitoring group, always the container's own.
    pub monitor: Option<PathBuf>,
}

fn failed(error: &resctrl::Error) -> Error {
    let message = format!("unable to apply Intel RDT configuration: {}", full_message(error));
    match error {
        resctrl::Error::Absent | resctrl::Error::NotMounted => Error::Unsupported(message),
        _ => Error::InvalidSpec(message),
    }
}

fn invalid(what: impl std::fmt::Display) -> Error {
    Error::InvalidSpec(format!("intelRdt: {what}"))
}

fn section(spec: &Spec) -> Option<&LinuxIntelRdt> {
    spec.linux().as_ref()?.intel_rdt().as_ref()
}

/// Returns the lines of the schemata in the order of their precedence, the strongest last.
fn lines(rdt: &LinuxIntelRdt) -> Result<Vec<&str>, Error> {
    let mut lines = Vec::new();
    // COMPAT: callers of older runtimes put several resources there.
    lines.extend(rdt.l3_cache_schema().iter().flat_map(|text| text.lines()));
    if let Some(bandwidth) = rdt.mem_bw_schema().as_deref().filter(|text| !text.is_empty()) {
        if !bandwidth.starts_with("MB:") || bandwidth.contains('\n') {
            return Err(invalid(format_args!(
                "memBwSchema {bandwidth:?} is no line that starts with \"MB:\""
            )));
        }
        lines.push(bandwidth);
    }
    for line in rdt.schemata().iter().flatten() {
        if line.contains('\n') {
            return Err(invalid(format_args!("schemata has a line feed in {line:?}")));
        }
        lines.push(line);
    }
    lines.retain(|line| !line.trim().is_empty());
    Ok(lines)
}

/// Makes the groups of a container and limits them; the container's processes come into them by [`Membership::assign`].
pub(crate) fn prepare(id: &str, spec: &Spec) -> Result<Option<Guard>, Error> {
    let Some(rdt) = section(spec) else { return Ok(None) };
    let control = Resctrl::find().map_err(|error| failed(&error))?;
    prepare_in(control, id, rdt).map(Some)
}

fn prepare_in(control: Resctrl, id: &str, rdt: &LinuxIntelRdt) -> Result<Guard, Error> {
    let lines = lines(rdt)?;
    let name = rdt.clos_id().as_deref().filter(|name| !name.is_empty());
    let class = class(&control, id, name).map_err(|error| failed(&error))?;
    if name.is_some() && lines.is_empty() && !class.exists() {
        return Err(invalid(format_args!("closID {:?} does not exist", name.unwrap_or_default())));
    }
    let made = !class.exists() && class.make().map_err(|error| failed(&error))?;
    let membership = Membership {
        class: class.directory().to_owned(),
        made,
        owned: made && name.is_none(),
        monitor: None,
    };
    // From here on what was made is undone by whoever fails.
    let mut guard = Guard { control, membership, keep: false };
    if made && !lines.is_empty() {
        class.set_schemata(lines.iter().copied()).map_err(|error| failed(&error))?;
    } else {
        compare(&guard.control, &class, &lines)?;
    }
    if rdt.enable_monitoring().unwrap_or(false) {
        let monitor = class.monitor(id).map_err(|error| failed(&error))?;
        if !monitor.make().map_err(|error| failed(&error))? {
            return Err(invalid(format_args!(
                "monitoring group {:?} exists already",
                monitor.directory()
            )));
        }
        guard.membership.monitor = Some(monitor.directory().to_owned());
    }
    Ok(guard)
}

fn class(control: &Resctrl, id: &str, name: Option<&str>) -> Result<Group, resctrl::Error> {
    match name {
        Some("/") => Ok(control.default_class()),
        name => control.class(name.unwrap_or(id)),
    }
}

/// A class that others use is not changed: it has what is asked for, or it is the wrong one.
fn compare(control: &Resctrl, class: &Group, lines: &[&str]) -> Result<(), Error> {
    if lines.is_empty() {
        return Ok(());
    }
    let present = class.schemata().map_err(|error| failed(&error))?;
    let present: Vec<_> = present.iter().filter_map(|line| control.normalise(line)).collect();
    for line in lines {
        let (resource, wanted) = control
            .normalise(line)
            .ok_or_else(|| invalid(format_args!("invalid schema {line:?}")))?;
        let fits = present.iter().any(|(name, values)| {
            *name == resource
                && wanted.iter().all(|(cache, value)| values.get(cache) == Some(value))
        });
        if !fits {
            return Err(invalid(format_args!(
                "class {:?} exists and does not have schema {line:?}",
                class.directory()
            )));
        }
    }
    Ok(())
}

/// Puts an extra process where those of its container are; classes may have been removed meanwhile by whoever made them.
pub(crate) fn join(id: &str, spec: &Spec, pid: i32) -> Result<(), Error> {
    let Some(rdt) = section(spec) else { return Ok(()) };
    let control = Resctrl::find().map_err(|error| failed(&error))?;
    let name = rdt.clos_id().as_deref().filter(|name| !name.is_empty());
    let class = class(&control, id, name).map_err(|error| failed(&error))?;
    if !class.exists() {
        return Ok(());
    }
    class.assign(pid).map_err(|error| failed(&error))?;
    let monitor = class.monitor(id).map_err(|error| failed(&error))?;
    if rdt.enable_monitoring().unwrap_or(false) && monitor.exists() {
        monitor.assign(pid).map_err(|error| failed(&error))?;
    }
    Ok(())
}

impl Membership {
    fn groups(&self, control: &Resctrl) -> (Group, Option<Group>) {
        let monitor = self.monitor.as_deref().map(|directory| control.group(directory));
        (control.group(&self.class), monitor)
    }

    /// Moves the container's first process into its groups.
    pub(crate) fn assign(&self, control: &Resctrl, pid: i32) -> Result<(), Error> {
        let (class, monitor) = self.groups(control);
        // ORDER: only what belongs to the class can be monitored in it.
        class.assign(pid).map_err(|error| failed(&error))?;
        monitor.map_or(Ok(()), |group| group.assign(pid)).map_err(|error| failed(&error))
    }

    /// Removes what goes with the container, whose processes have ended.
    pub(crate) fn remove(&self) -> Result<(), Error> {
        match Resctrl::find() {
            Ok(control) => self.remove_in(&control, self.owned),
            // With the file system went all groups.
            Err(_) => Ok(()),
        }
    }

    /// Removes all that was made for a container that did not come to be.
    pub(crate) fn undo(&self) {
        if let Ok(control) = Resctrl::find() {
            self.undo_in(&control);
        }
    }

    fn undo_in(&self, control: &Resctrl) {
        // Another container may have found the class meanwhile. What cannot be removed now stays for its administrator.
        let alone = self.made && control.group(&self.class).is_empty();
        let _ = self.remove_in(control, alone);
    }

    fn remove_in(&self, control: &Resctrl, with_class: bool) -> Result<(), Error> {
        let (class, monitor) = self.groups(control);
        let monitor = monitor.map_or(Ok(()), |group| group.remove());
        let class = if with_class { class.remove() } else { Ok(()) };
        monitor.and(class).map_err(|error| failed(&error))
    }

    /// Returns its limits beside those of the host, and what was counted in its monitoring group, as other runtimes name
    /// them.
    pub(crate) fn stats(&self) -> Option<Value> {
        Resctrl::find().ok().map(|control| self.stats_in(&control))
    }

    fn stats_in(&self, control: &Resctrl) -> Value {
        let (class, monitor) = self.groups(control);
        let mut document = json!({});
        let of = |group: &Group, resource: &str| {
            let lines = group.schemata().unwrap_or_default();
            lines.into_iter().find(|line| line.starts_with(resource))
        };
        let info = |resource: &str, names: &[&str]| {
            let values = names.iter().filter_map(|name| {
                let text = control.info(resource, name)?;
                let value = if *name == "cbm_mask" {
                    json!(text)
                } else {
                    json!(text.parse::<u64>().ok()?)
                };
                Some(((*name).to_owned(), value))
            });
            Value::Object(values.collect())
        };
        let bandwidth = ["bandwidth_gran", "delay_linear", "min_bandwidth", "num_closids"];
        for (resource, prefix, names) in [
            ("L3", "l3_cache", &["cbm_mask", "min_cbm_bits", "num_closids"][..]),
            ("MB", "mem_bw", &bandwidth[..]),
        ] {
            let line = format!("{resource}:");
            let Some(root) = of(&control.default_class(), &line) else { continue };
            document[format!("{prefix}_info")] = info(resource, names);
            document[format!("{prefix}_schema_root")] = json!(root);
            document[format!("{prefix}_schema")] = json!(of(&class, &line));
        }
        if let Some(monitor) = monitor {
            let counts = |name| monitor.counts(name);
            let (total, local) = (counts("mbm_total_bytes"), counts("mbm_local_bytes"));
            let both = total.iter().zip(&local);
            document["mbm_stats"] = both
                .map(|(total, local)| json!({"mbm_total_bytes": total, "mbm_local_bytes": local}))
                .collect();
            document["cmt_stats"] = counts("llc_occupancy")
                .iter()
                .map(|count| json!({"llc_occupancy": count}))
                .collect();
        }
        document
    }

    /// Changes the limits of the container's class.
    pub(crate) fn update(&self, rdt: &LinuxIntelRdt) -> Result<(), Error> {
        let control = Resctrl::find().map_err(|error| failed(&error))?;
        let lines = lines(rdt)?;
        control.group(&self.class).set_schemata(lines).map_err(|error| failed(&error))
    }
}

/// Undoes the groups of a container unless it comes to be.
pub(crate) struct Guard {
    control: Resctrl,
    membership: Membership,
    keep: bool,
}

impl Guard {
    /// See [`Membership::assign`].
    pub(crate) fn assign(&self, pid: i32) -> Result<(), Error> {
        self.membership.assign(&self.control, pid)
    }

    /// The container has come to be.
    pub(crate) fn keep(mut self) -> Membership {
        self.keep = true;
        self.membership.clone()
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if !self.keep {
            self.membership.undo_in(&self.control);
        }
    }
}

#[cfg(test)]
mod tests;

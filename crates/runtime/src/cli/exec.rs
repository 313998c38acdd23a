//! `exec`: an extra process in a running container.

use std::path::PathBuf;

use clap::ArgMatches;
use oci_spec::runtime::Process;
use rorqual_sys::process;
use serde_json::json;

use super::lifecycle::preserve_fds;
use super::log::Log;
use super::state::{Container, Status, write_pid_file};
use super::{Context, Failure, Outcome, console, document, seal, text};
use crate::create::{self, Extras};
use crate::request::{ExecRequest, ProcessUser, Stdio};

pub(super) fn exec(context: &Context, matches: &ArgMatches) -> Outcome {
    seal::ensure()?;
    // COMPAT: 255 tells a failure of the runtime from one of the program.
    run(context, matches)
        .map_err(|failure| Failure::new(format!("exec failed: {}", failure.message)).with_code(255))
}

fn run(context: &Context, matches: &ArgMatches) -> Outcome {
    let container = context.store.load(text(matches, "id"))?;
    match container.status() {
        Status::Stopped => return Err(Failure::new("cannot exec in a stopped container")),
        Status::Paused if !matches.get_flag("ignore-paused") => {
            return Err(Failure::new(
                "cannot exec in a paused container (use --ignore-paused to override)",
            ));
        }
        _ => {}
    }
    let Some(target) = container.init() else {
        return Err(Failure::new("cannot exec in a stopped container"));
    };
    let spec = container.spec()?;
    let process = new_process(&context.log, matches, spec.process().as_ref())?;
    let detach = matches.get_flag("detach");
    let terminal = process.terminal() == Some(true);
    let socket = matches.get_one::<PathBuf>("console-socket");
    console::check(terminal, detach, socket)?;
    let foreground = if detach { None } else { Some(console::Foreground::prepare()?) };
    let request = ExecRequest {
        id: container.record.id.clone(),
        bundle: container.record.bundle.clone(),
        target_pid: container.record.pid,
        target,
        process,
        spec,
        cgroup: cgroup(matches, &container)?,
        stdio: if terminal { Stdio::Terminal { size: (0, 0) } } else { Stdio::Inherit },
        user: ProcessUser::Spec,
    };
    let extras = Extras {
        preserve_fds: preserve_fds(matches),
        outlives_parent: true,
        observer: context.observer(),
        ..Extras::default()
    };
    let mut executed = create::exec(request, &extras).map_err(|error| {
        let failure = Failure::from(error);
        Failure::new(format!("unable to start container process: {}", failure.message))
    })?;
    if let Some(path) = matches.get_one::<PathBuf>("pid-file") {
        write_pid_file(path, executed.pid)?;
    }
    if let Some(socket) = socket
        && let Some(master) = executed.terminal.take()
        && let Err(failure) = console::send(socket, &master)
    {
        let pidfd = std::os::fd::AsFd::as_fd(&executed.pidfd);
        let _ = process::pidfd_send_signal(pidfd, libc::SIGKILL);
        return Err(failure);
    }
    foreground
        .map_or(Ok(0), |foreground| foreground.attend(&executed.pidfd, executed.terminal.as_ref()))
}

/// Appends the sub-cgroups that were asked for to the container's own.
fn cgroup(matches: &ArgMatches, container: &Container) -> Result<String, Failure> {
    let wanted: Vec<&String> = matches.get_many("cgroup").into_iter().flatten().collect();
    if container.record.cgroup.is_empty() && wanted.is_empty() {
        return Ok(String::new());
    }
    let mut lines: Vec<String> = container.record.cgroup.lines().map(str::to_owned).collect();
    for entry in wanted {
        let (controllers, path) = match entry.split_once(':') {
            Some((controllers, path)) => (Some(controllers), path),
            None => (None, entry.as_str()),
        };
        if path.split('/').any(|part| part == "..") {
            return Err(Failure::new(format!("{path:?} is not a sub cgroup path")));
        }
        let path = path.trim_matches('/');
        let named = |line: &String| {
            let list = line.split(':').nth(1).unwrap_or("");
            controllers
                .is_none_or(|names| names.split(',').any(|n| list.split(',').any(|c| c == n)))
        };
        for line in lines.iter_mut().filter(|line| named(line)) {
            line.push('/');
            line.push_str(path);
        }
    }
    Ok(lines.join("\n") + "\n")
}

/// Reads `process.json`, or derives the process from init's and the flags.
fn new_process(
    log: &Log,
    matches: &ArgMatches,
    init: Option<&Process>,
) -> Result<Process, Failure> {
    let bad = |error: &dyn std::fmt::Display| Failure::new(format!("invalid process: {error}"));
    if let Some(path) = matches.get_one::<PathBuf>("process") {
        let bytes = std::fs::read(path)
            .map_err(|error| Failure::io(&format!("cannot read {path:?}"), &error))?;
        let (process, warnings) = document::process(&bytes).map_err(|error| bad(&error))?;
        log.warnings(&warnings);
        return Ok(process);
    }
    let args: Vec<&String> = matches.get_many("command").into_iter().flatten().collect();
    if args.is_empty() {
        return Err(Failure::new("process args cannot be empty"));
    }
    let mut process =
        serde_json::to_value(init.cloned().unwrap_or_default()).map_err(|error| bad(&error))?;
    process["args"] = json!(args);
    process["terminal"] = json!(matches.get_flag("tty"));
    if let Some(cwd) = matches.get_one::<String>("cwd") {
        process["cwd"] = json!(cwd);
    }
    let extra: Vec<&String> = matches.get_many("env").into_iter().flatten().collect();
    if let (false, Some(env)) = (extra.is_empty(), process["env"].as_array_mut()) {
        env.extend(extra.into_iter().map(|entry| json!(entry)));
    } else if let Some(extra) = matches.get_many::<String>("env") {
        process["env"] = json!(extra.collect::<Vec<_>>());
    }
    if let Some(user) = matches.get_one::<String>("user") {
        let (uid, gid) = user.split_once(':').map_or((user.as_str(), None), |(u, g)| (u, Some(g)));
        process["user"]["uid"] = json!(uid.parse::<u32>().map_err(|error| bad(&error))?);
        if let Some(gid) = gid {
            process["user"]["gid"] = json!(gid.parse::<u32>().map_err(|error| bad(&error))?);
        }
    }
    let gids: Result<Vec<u32>, _> = matches
        .get_many::<String>("additional-gids")
        .into_iter()
        .flatten()
        .map(|g| g.parse())
        .collect();
    let gids = gids.map_err(|error| bad(&error))?;
    if !gids.is_empty() {
        process["user"]["additionalGids"] = json!(gids);
    }
    for (flag, key) in [("apparmor", "apparmorProfile"), ("process-label", "selinuxLabel")] {
        if let Some(label) = matches.get_one::<String>(flag) {
            process[key] = json!(label);
        }
    }
    if matches.get_flag("no-new-privs") {
        process["noNewPrivileges"] = json!(true);
    }
    add_capabilities(&mut process, matches)?;
    serde_json::from_value(process).map_err(|error| bad(&error))
}

fn add_capabilities(process: &mut serde_json::Value, matches: &ArgMatches) -> Result<(), Failure> {
    for name in matches.get_many::<String>("cap").into_iter().flatten() {
        let number = rorqual_sys::capability::number(name)
            .ok_or_else(|| Failure::new(format!("unknown capability {name:?}")))?;
        let name = format!("CAP_{}", rorqual_sys::capability::NAMES[number as usize]);
        for set in ["bounding", "effective", "permitted", "ambient"] {
            let list = &mut process["capabilities"][set];
            if !list.is_array() {
                *list = json!([]);
            }
            if let Some(list) = list.as_array_mut()
                && !list.contains(&json!(name))
            {
                list.push(json!(name));
            }
        }
    }
    Ok(())
}

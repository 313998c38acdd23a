//! Execs.

use rorqual_api::exec::{CreateRequest, Inspect, ProcessConfig, StartRequest};
use rorqual_engine::{ExecSpec, ExecStart, ExecView};

use crate::convert::create::window;
use crate::error::{BadRequest, invalid};

/// Reads a request to make an exec.
pub(crate) fn exec_spec(request: CreateRequest) -> Result<ExecSpec, BadRequest> {
    let CreateRequest {
        user,
        privileged,
        tty,
        console_size,
        attach_stdin,
        attach_stderr,
        attach_stdout,
        detach: _, // COMPAT: decided at the start.
        detach_keys,
        env,
        working_dir,
        cmd,
    } = request;
    let command = cmd.unwrap_or_default().0;
    if command.is_empty() {
        return Err(invalid("No exec command specified"));
    }
    if !detach_keys.is_empty() {
        crate::detach::keys(&detach_keys)?;
    }
    Ok(ExecSpec {
        command,
        env: env.unwrap_or_default(),
        user,
        working_dir,
        privileged,
        tty,
        stdin: attach_stdin,
        stdout: attach_stdout,
        stderr: attach_stderr,
        detach_keys,
        window: window(console_size.unwrap_or_default()),
    })
}

/// Reads a request to start an exec.
pub(crate) fn exec_start(request: StartRequest) -> Result<ExecStart, BadRequest> {
    let StartRequest { detach, tty, console_size } = request;
    if console_size.is_some() && !tty {
        return Err(invalid("console size cannot be specified without a tty"));
    }
    Ok(ExecStart { detach, window: console_size.map(window), tty })
}

/// Writes an exec.
pub(crate) fn exec_document(view: &ExecView) -> Inspect {
    let ExecView { id, container, spec, running, exit_code, pid } = view;
    let ExecSpec {
        command,
        env: _, // Not shown.
        user,
        working_dir: _,
        privileged,
        tty,
        stdin,
        stdout,
        stderr,
        detach_keys,
        window: _,
    } = spec;
    let (program, arguments) = command.split_first().map_or_else(
        || (String::new(), Vec::new()),
        |(program, arguments)| (program.clone(), arguments.to_vec()),
    );
    Inspect {
        id: id.to_string(),
        running: *running,
        exit_code: exit_code.map(i64::from),
        process_config: ProcessConfig {
            tty: *tty,
            entrypoint: program,
            arguments,
            privileged: Some(*privileged),
            user: user.clone(),
        },
        open_stdin: *stdin,
        open_stderr: *stderr,
        open_stdout: *stdout,
        can_remove: false,
        container_id: container.to_string(),
        detach_keys: detach_keys.clone(),
        pid: i64::from(*pid),
    }
}

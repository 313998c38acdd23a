//! Secrets and ssh agents that are lent to a build.

use std::path::PathBuf;

use rorqual_build::SecretValue;

use super::csv;
use super::options::Plan;
use crate::failure::{Failure, open_failure};
use crate::flag::Matches;

/// LIMIT: as builders bound it.
const LARGEST_SECRET: usize = 500 << 10;

fn wrong(text: String) -> Failure {
    Failure::new(format!("ERROR: {text}"))
}

/// Adds what is to be lent to a plan.
pub(super) fn add(plan: &mut Plan, matches: &Matches) -> Result<(), Failure> {
    for text in matches.list("secret") {
        let (id, value) = secret(text)?;
        plan.lending.secrets.insert(id, value);
    }
    for text in matches.list("ssh") {
        let (id, socket) = text.split_once('=').unwrap_or((text, ""));
        let socket = match socket {
            "" => std::env::var("SSH_AUTH_SOCK").map_err(|_| {
                wrong(format!(
                    "invalid empty ssh agent socket for {id:?}: make sure SSH_AUTH_SOCK is set"
                ))
            })?,
            socket => socket.to_owned(),
        };
        let path = PathBuf::from(&socket);
        let metadata = std::fs::metadata(&path).map_err(|error| open_failure(&socket, &error))?;
        if !std::os::unix::fs::FileTypeExt::is_socket(&metadata.file_type()) {
            return Err(wrong(format!(
                "{socket} is no socket of an ssh agent: keys are not read from files; add it to an agent (ssh-add {socket}) and \
                 pass --ssh {id}"
            )));
        }
        plan.lending.agents.insert(id.to_owned(), path);
    }
    Ok(())
}

fn secret(text: &str) -> Result<(String, SecretValue), Failure> {
    let (mut id, mut source, mut variable, mut kind) =
        (String::new(), String::new(), String::new(), String::new());
    for (name, value) in csv::pairs(text).map_err(wrong)? {
        match name.as_str() {
            "id" => id = value,
            "src" | "source" => source = value,
            "env" => variable = value,
            "type" if matches!(value.as_str(), "file" | "env") => kind = value,
            "type" => return Err(wrong(format!("unsupported secret type {value:?}"))),
            other => {
                return Err(wrong(format!("unexpected key '{other}' in '{other}={value}'")));
            }
        }
    }
    if id.is_empty() {
        return Err(wrong(format!("secret {text:?} has no id")));
    }
    if kind == "env" && variable.is_empty() {
        variable = std::mem::take(&mut source);
    }
    if source.is_empty() && variable.is_empty() && kind != "file" && std::env::var(&id).is_ok() {
        variable = id.clone();
    }
    let value = if variable.is_empty() {
        let path = if source.is_empty() { id.as_str() } else { source.as_str() };
        std::fs::read(path).map_err(|error| open_failure(path, &error))?
    } else {
        let value = std::env::var_os(&variable);
        let value = value
            .ok_or_else(|| wrong(format!("secret {id:?}: the variable {variable} is not set")))?;
        std::os::unix::ffi::OsStringExt::into_vec(value)
    };
    if value.len() > LARGEST_SECRET {
        return Err(wrong(format!("secret {id:?} is larger than {LARGEST_SECRET} bytes")));
    }
    Ok((id, SecretValue(value)))
}

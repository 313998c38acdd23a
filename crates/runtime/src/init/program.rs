//! The program: finding it, its working directory, and becoming it.

use std::ffi::{CStr, CString, OsStr};
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rorqual_sys::process;
use rustix::fs::{Access, AtFlags, CWD, FileType, Mode};

use super::{Init, StepError};
use crate::StartFailure;
use crate::plan::Step;
use crate::text::reason;

impl Init<'_> {
    pub(super) fn working_directory(&mut self, path: &Path, create: bool) -> Result<(), StepError> {
        if path.as_os_str().is_empty() {
            return Self::change_directory(Path::new("/")).map_err(|error| bad_cwd(path, &error));
        }
        if create && let Some(root) = &self.root {
            root.directory(path, 0o755).map_err(|error| {
                StepError::new(format!("mkdir {}: {}", path.display(), reason(&error)))
            })?;
        }
        match Self::change_directory(path) {
            // Tried once more as the user: the directory may be closed to root (network file systems).
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
            other => other.map_err(|error| bad_cwd(path, &error)),
        }
    }

    pub(super) fn enter_working_directory_as_user(&self) {
        let cwd = self.prepared.plan.steps.iter().find_map(|step| match step {
            Step::WorkingDirectory { path, .. } => Some(path),
            _ => None,
        });
        if let Some(cwd) = cwd.filter(|path| !path.as_os_str().is_empty()) {
            let _ = Self::change_directory(cwd);
        }
    }

    fn change_directory(path: &Path) -> io::Result<()> {
        rustix::process::chdir(path)?;
        // A directory outside the root, reached through a descriptor, has no path.
        let now = rustix::process::getcwd(Vec::new())?;
        if now.as_bytes().first() == Some(&b'/') {
            Ok(())
        } else {
            Err(io::Error::other(
                "current working directory is outside of container mount namespace root",
            ))
        }
    }

    /// Finds the program as the user will see it and remembers its path.
    pub(super) fn find_program(&mut self) -> Result<(), StepError> {
        let sets = self.prepared.plan.steps.iter().find_map(|step| match step {
            Step::SetCapabilities(sets) => Some(*sets),
            _ => None,
        });
        self.warn_of_missing_capabilities(&sets.unwrap_or_default());
        let name = self.prepared.args.first().map_or(c"", |name| name.as_c_str());
        let name = OsStr::from_bytes(name.to_bytes());
        let program = self.look_up_program(name)?;
        self.program = Some(program);
        self.restore_effective()
    }

    fn look_up_program(&self, name: &OsStr) -> Result<PathBuf, StepError> {
        let shown = name.to_string_lossy();
        if name.as_bytes().contains(&b'/') {
            let path = PathBuf::from(name);
            return executable(&path).map(|()| path).map_err(|error| match error {
                NotExecutable::Missing(error) => StepError {
                    failure: StartFailure::NotFound,
                    message: format!("exec: {shown:?}: stat {shown}: {}", reason(&error)),
                },
                NotExecutable::Directory => {
                    denied(&format!("exec: {shown:?}: is a directory: permission denied"))
                }
                NotExecutable::Denied => denied(&format!("exec: {shown:?}: permission denied")),
            });
        }
        let search = self.variable("PATH").unwrap_or_default();
        search
            .split(|byte| *byte == b':')
            .filter(|directory| !name.is_empty() && !directory.is_empty())
            .map(|directory| Path::new(OsStr::from_bytes(directory)).join(name))
            .find(|path| executable(path).is_ok())
            .ok_or_else(|| StepError {
                failure: StartFailure::NotFound,
                message: format!("exec: {shown:?}: executable file not found in $PATH"),
            })
    }

    /// Returns a variable of the program's environment; the last setting counts.
    fn variable(&self, name: &str) -> Option<&[u8]> {
        self.prepared
            .env
            .iter()
            .rev()
            .find_map(|entry| entry.to_bytes().strip_prefix(name.as_bytes())?.strip_prefix(b"="))
    }

    pub(super) fn execute(&mut self) -> Result<(), StepError> {
        let path = self.program.take().unwrap_or_default();
        let program = CString::new(path.as_os_str().as_bytes())
            .map_err(|_| StepError::new("program path contains a null byte"))?;
        let mut env = self.prepared.env.clone();
        if let Some(home) = &self.home
            && let Ok(home) = CString::new(format!("HOME={home}"))
        {
            env.push(home);
        }
        let error = process::execute(&program, &self.prepared.args, &env);
        Err(self.explain(&program, &error))
    }

    fn explain(&self, program: &CStr, error: &io::Error) -> StepError {
        let shown = program.to_string_lossy();
        let message = format!("exec {shown}: {}", reason(error));
        match error.raw_os_error() {
            // COMPAT: a file that is no program counts as a container that ran and failed with 255; the text goes to
            // its standard error.
            Some(libc::ENOEXEC) => {
                let _ =
                    rustix::io::write(rustix::stdio::stderr(), format!("{message}\n").as_bytes());
                let _ = rustix::net::shutdown(self.socket.as_fd(), rustix::net::Shutdown::Both);
                process::exit_now(255)
            }
            Some(libc::ENOENT) => StepError { failure: StartFailure::NotFound, message },
            Some(libc::EACCES | libc::EPERM) => denied(&message),
            _ => StepError::new(message),
        }
    }
}

fn denied(message: &str) -> StepError {
    StepError { failure: StartFailure::NotExecutable, message: message.to_owned() }
}

fn bad_cwd(path: &Path, error: &io::Error) -> StepError {
    let message = format!(
        "chdir to cwd ({:?}) set in config.json failed: {}",
        path.to_string_lossy(),
        reason(error)
    );
    match error.raw_os_error() {
        // COMPAT: a missing directory gives the exit code of a missing program.
        Some(libc::ENOENT) => StepError { failure: StartFailure::NotFound, message },
        _ => StepError::new(message),
    }
}

enum NotExecutable {
    Missing(io::Error),
    Directory,
    Denied,
}

fn executable(path: &Path) -> Result<(), NotExecutable> {
    let stat = rustix::fs::statat(CWD, path, AtFlags::empty()).map_err(|error| match error {
        rustix::io::Errno::ACCESS => NotExecutable::Denied,
        other => NotExecutable::Missing(other.into()),
    })?;
    if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
        return Err(NotExecutable::Directory);
    }
    let may = Mode::from_raw_mode(stat.st_mode).bits() & 0o111 != 0;
    if may && rustix::fs::accessat(CWD, path, Access::EXEC_OK, AtFlags::EACCESS).is_ok() {
        Ok(())
    } else {
        Err(NotExecutable::Denied)
    }
}

//! AppArmor and SELinux: whether they are there, labels for the next exec, and the default profile.
//! Which container gets which label is decided elsewhere.

use std::io::{self, Write};
use std::path::Path;
use std::process::{Command, Stdio};

mod profile;
pub mod selinux;

pub use profile::{DEFAULT_PROFILE, Features, default_profile};

/// A security module that labels processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Module {
    /// AppArmor, see `apparmor(7)`.
    AppArmor,
    /// SELinux, see `selinux(8)`.
    SeLinux,
}

/// A failure of a security module.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel runs without it.
    #[error("{0} is not enabled on this host")]
    Disabled(&'static str),
    /// `apparmor_parser` is not installed.
    #[error("cannot load AppArmor profile {profile:?}: apparmor_parser is not installed")]
    NoParser {
        /// The profile's name.
        profile: String,
    },
    /// `apparmor_parser` said no.
    #[error("cannot load AppArmor profile {profile:?}: {reason}")]
    Parser {
        /// The profile's name.
        profile: String,
        /// What it said.
        reason: String,
    },
    /// A name that would mean something else to the parser.
    #[error("invalid AppArmor profile name {0:?}")]
    Name(String),
    /// A directory whose label is the host's.
    // COMPAT: dockerd's text.
    #[error("SELinux relabeling of {} is not allowed", .0.display())]
    Label(std::path::PathBuf),
    /// A file of the kernel.
    #[error("cannot {action}")]
    Io {
        /// What was tried.
        action: String,
        /// What the kernel said.
        source: io::Error,
    },
}

impl rorqual_core::Classify for Error {
    fn kind(&self) -> rorqual_core::ErrorKind {
        use rorqual_core::ErrorKind;
        match self {
            Self::Disabled(_) | Self::NoParser { .. } => ErrorKind::Unsupported,
            Self::Name(_) | Self::Label(_) => ErrorKind::InvalidArgument,
            Self::Parser { .. } | Self::Io { .. } => ErrorKind::Internal,
        }
    }
}

/// Tells which labelling module is active, `None` for neither.
pub fn active() -> Option<Module> {
    if has_apparmor() {
        Some(Module::AppArmor)
    } else if Path::new("/sys/fs/selinux/enforce").exists() {
        Some(Module::SeLinux)
    } else {
        None
    }
}

/// Tells whether the kernel enforces AppArmor profiles.
pub fn has_apparmor() -> bool {
    let enabled = std::fs::read_to_string("/sys/module/apparmor/parameters/enabled");
    enabled.is_ok_and(|text| text.trim() == "Y")
}

/// Tells whether AppArmor is there with all it takes to confine containers: in the kernel, in this mount namespace,
/// and with the parser that loads profiles.
pub fn can_load_profiles() -> bool {
    has_apparmor() && Path::new("/sys/kernel/security/apparmor").is_dir() && parser().is_some()
}

/// Tells whether an AppArmor profile of that name is loaded.
pub fn has_profile(name: &str) -> Result<bool, Error> {
    const FILE: &str = "/sys/kernel/security/apparmor/profiles";
    if !has_apparmor() {
        return Err(Error::Disabled("AppArmor"));
    }
    let text = std::fs::read_to_string(FILE)
        .map_err(|source| Error::Io { action: format!("read {FILE}"), source })?;
    Ok(listed(&text, name))
}

/// Looks for `name` in lines of the form `name (mode)`.
fn listed(profiles: &str, name: &str) -> bool {
    profiles.lines().any(|line| line.rsplit_once(" (").is_some_and(|(known, _)| known == name))
}

/// Loads the default profile unless a profile of that name is loaded; tells whether it had to.
///
/// Runs `apparmor_parser`: for the start of a daemon, not for that of a container. `own` is the label
/// of the daemon, from which containers may be signalled.
///
/// # Errors
///
/// [`Error::Disabled`] where the kernel has no AppArmor, which means that no profile is needed.
pub fn ensure_default_profile(own: &str) -> Result<bool, Error> {
    if has_profile(DEFAULT_PROFILE)? {
        return Ok(false);
    }
    let text = default_profile(DEFAULT_PROFILE, own, Features::of_host())
        .ok_or_else(|| Error::Name(own.to_owned()))?;
    load(DEFAULT_PROFILE, &text)?;
    Ok(true)
}

fn parser() -> Option<&'static str> {
    let places = ["/usr/sbin/apparmor_parser", "/sbin/apparmor_parser", "/usr/bin/apparmor_parser"];
    places.into_iter().find(|path| Path::new(path).exists())
}

fn load(name: &str, text: &str) -> Result<(), Error> {
    let parser = parser().ok_or_else(|| Error::NoParser { profile: name.to_owned() })?;
    let failed =
        |source| Error::Io { action: format!("run {parser} for profile {name:?}"), source };
    let mut child = Command::new(parser)
        .args(["--replace", "--skip-cache"])
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    // Closing the pipe ends the text. A parser that gave up early says why by itself.
    let written = child.stdin.take().map_or(Ok(()), |mut pipe| pipe.write_all(text.as_bytes()));
    let output = child.wait_with_output().map_err(failed)?;
    if !output.status.success() {
        let reason = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(Error::Parser { profile: name.to_owned(), reason });
    }
    written.map_err(failed)
}

/// Returns the label of the calling process, `unconfined` without any module.
pub fn own_label() -> String {
    let label = std::fs::read_to_string("/proc/self/attr/apparmor/current")
        .or_else(|_| std::fs::read_to_string("/proc/self/attr/current"))
        .unwrap_or_default();
    let label = label.trim_matches(['\0', '\n']);
    let name = label.rsplit_once(" (").map_or(label, |(name, _)| name);
    if name.is_empty() { "unconfined".to_owned() } else { name.to_owned() }
}

/// Sets the label the calling thread gets by its next `execve(2)`.
///
/// Call it after the mount namespace is set up and before privileges are given up; `/proc` must be
/// mounted. With [`Module::AppArmor`] `label` is a profile's name.
///
/// # Errors
///
/// [`Error::Disabled`] where the kernel does not run the module: a container never starts without the
/// label that was asked for.
pub fn set_exec_label(module: Module, label: &str) -> Result<(), Error> {
    let (file, text) = match module {
        Module::AppArmor if has_apparmor() => {
            // Since 5.1 modules have directories of their own, so that several can be active.
            let own = "/proc/thread-self/attr/apparmor/exec";
            let shared = "/proc/thread-self/attr/exec";
            let file = if Path::new(own).exists() { own } else { shared };
            (file, format!("exec {label}"))
        }
        Module::AppArmor => return Err(Error::Disabled("AppArmor")),
        Module::SeLinux if Path::new("/sys/fs/selinux/enforce").exists() => {
            ("/proc/thread-self/attr/exec", label.to_owned())
        }
        Module::SeLinux => return Err(Error::Disabled("SELinux")),
    };
    std::fs::OpenOptions::new()
        .write(true)
        .open(file)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(|source| Error::Io { action: format!("set label {label:?} by {file}"), source })
}

#[cfg(test)]
mod tests;

//! The text of the AppArmor profile every container gets that asks for none. Loading it is one level
//! up.

use std::path::Path;

/// The name Docker's users know.
pub const DEFAULT_PROFILE: &str = "docker-default";

/// What the host's AppArmor has to offer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features {
    /// The rules of version 3.0 are installed.
    pub abi_3: bool,
    /// `tunables/global` is installed.
    pub tunables: bool,
    /// `abstractions/base` is installed.
    pub base: bool,
}

impl Features {
    /// Looks at what is installed on this host.
    pub fn of_host() -> Self {
        let has = |name: &str| Path::new("/etc/apparmor.d").join(name).exists();
        Self {
            abi_3: has("abi/3.0"),
            tunables: has("tunables/global"),
            base: has("abstractions/base"),
        }
    }
}

/// What a container may not do, whatever else protects the host.
const DENIALS: &str = "\
  deny mount,

  # Files right in /proc, and trees of it other than processes and settings.
  deny @{PROC}/* w,
  deny @{PROC}/{[^1-9/],[^1-9/][^0-9/],[^1-9s/][^0-9y/][^0-9s/],[^1-9/][^0-9/][^0-9/][^0-9/]*}/** w,
  # Of the settings only those of shared memory stay writable.
  deny @{PROC}/sys/[^k]** w,
  deny @{PROC}/sys/kernel/{?,??,[^s][^h][^m]**} w,
  deny @{PROC}/{sysrq-trigger,kcore} rwklx,

  # All of /sys but the control groups.
  deny /sys/{[^f]*,f[^s]*,fs/[^c]*,fs/c[^g]*,fs/cg[^r]*}/** wklx,
  deny /sys/{firmware,devices/virtual/powercap,kernel/security}/** rwklx,
";

/// Writes the profile `name`, which processes labelled `daemon` may signal.
///
/// `None` when one of the names cannot be written in a profile.
pub fn default_profile(name: &str, daemon: &str, features: Features) -> Option<String> {
    let plain = |text: &str| {
        !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "/_-.:+".contains(c))
    };
    if !plain(name) || !plain(daemon) {
        return None;
    }
    let abi = if features.abi_3 { "abi <abi/3.0>,\n\n" } else { "" };
    let tunables =
        if features.tunables { "#include <tunables/global>\n" } else { "@{PROC}=/proc/\n" };
    let base = if features.base { "  #include <abstractions/base>\n\n" } else { "" };
    let denied_families = if features.abi_3 { "  deny network alg,\n" } else { "" };
    let mut senders = vec!["unconfined", "runc", "crun"];
    if !senders.contains(&daemon) {
        senders.push(daemon);
    }
    let senders: Vec<_> =
        senders.iter().map(|peer| format!("  signal (receive) peer={peer},")).collect();
    let senders = senders.join("\n");
    Some(format!(
        "{abi}{tunables}
profile {name} flags=(attach_disconnected,mediate_deleted) {{
{base}  network,
{denied_families}  capability,
  file,
  umount,

{senders}
  signal (send,receive) peer={name},
  ptrace (trace,read,tracedby,readby) peer={name},

{DENIALS}}}
"
    ))
}

//! Images made on the spot, without a network: a root file system around a static busybox.

use std::io::Write;
use std::path::Path;
use std::process::Command;

use crate::TestResult;

const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n\
                      daemon:x:1:1:daemon:/usr/sbin:/bin/false\n\
                      app:x:1000:1000:app:/home/app:/bin/sh\n";
const GROUP: &str = "root:x:0:\nwheel:x:10:root\napp:x:1000:\naudio:x:29:app\n";

/// Where a static busybox is, if there is one.
pub fn busybox() -> TestResult<&'static Path> {
    ["/bin/busybox", "/usr/bin/busybox"]
        .into_iter()
        .map(Path::new)
        .find(|path| path.exists())
        .ok_or_else(|| "no busybox: install the package busybox-static".into())
}

/// An entry that no sane image has.
#[derive(Clone, Debug)]
pub enum Odd {
    /// A directory.
    Folder,
    /// A regular file.
    File(Vec<u8>),
    /// A symbolic link to this.
    Link(&'static str),
    /// A hard link to this.
    HardLink(&'static str),
    /// A named pipe.
    Pipe,
}

/// Returns a tar of a busybox without anything else but `odd` entries, whose names are taken as they are.
pub fn odd_rootfs(odd: &[(&str, Odd)]) -> TestResult<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    append(&mut tar, "bin", tar::EntryType::Directory, 0o755, &[])?;
    append(&mut tar, "bin/busybox", tar::EntryType::Regular, 0o755, &std::fs::read(busybox()?)?)?;
    for applet in ["cat", "echo", "grep", "ls", "sh", "true"] {
        let mut header = header(tar::EntryType::Symlink, 0o777, 0);
        tar.append_link(&mut header, format!("bin/{applet}"), "busybox")?;
    }
    for (name, odd) in odd {
        let (kind, data, target) = match odd {
            Odd::Folder => (tar::EntryType::Directory, &[][..], ""),
            Odd::File(data) => (tar::EntryType::Regular, data.as_slice(), ""),
            Odd::Link(target) => (tar::EntryType::Symlink, &[][..], *target),
            Odd::HardLink(target) => (tar::EntryType::Link, &[][..], *target),
            Odd::Pipe => (tar::EntryType::Fifo, &[][..], ""),
        };
        let mut header = header(kind, 0o755, data.len() as u64);
        let gnu = header.as_gnu_mut().ok_or("no GNU header")?;
        for (field, text) in [(&mut gnu.name, *name), (&mut gnu.linkname, target)] {
            field[..text.len()].copy_from_slice(text.as_bytes());
        }
        header.set_cksum();
        tar.append(&header, data)?;
    }
    Ok(tar.into_inner()?)
}

/// Returns a tar of a small root file system with all applets of busybox, for `import`.
pub fn busybox_rootfs() -> TestResult<Vec<u8>> {
    let busybox = busybox()?;
    let list = Command::new(busybox).arg("--list").output()?;
    let mut tar = tar::Builder::new(Vec::new());
    for folder in ["bin", "dev", "etc", "home/app", "proc", "root", "sys", "tmp", "usr/bin", "var"]
    {
        let mode = if folder == "tmp" { 0o1777 } else { 0o755 };
        append(&mut tar, folder, tar::EntryType::Directory, mode, &[])?;
    }
    append(&mut tar, "bin/busybox", tar::EntryType::Regular, 0o755, &std::fs::read(busybox)?)?;
    append(&mut tar, "etc/passwd", tar::EntryType::Regular, 0o644, PASSWD.as_bytes())?;
    append(&mut tar, "etc/group", tar::EntryType::Regular, 0o644, GROUP.as_bytes())?;
    for applet in String::from_utf8_lossy(&list.stdout).lines().filter(|name| *name != "busybox") {
        let mut header = header(tar::EntryType::Symlink, 0o777, 0);
        tar.append_link(&mut header, format!("bin/{applet}"), "busybox")?;
    }
    Ok(tar.into_inner()?)
}

fn header(kind: tar::EntryType, mode: u32, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_mtime(1_700_000_000);
    header
}

fn append<W: Write>(
    tar: &mut tar::Builder<W>,
    path: &str,
    kind: tar::EntryType,
    mode: u32,
    data: &[u8],
) -> TestResult {
    let mut header = header(kind, mode, data.len() as u64);
    tar.append_data(&mut header, path, data)?;
    Ok(())
}

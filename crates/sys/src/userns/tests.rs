//! Need root.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};

const MAP: &str = "0 300000 1000\n";

fn identity(fd: &OwnedFd) -> (u64, u64) {
    let stat = rustix::fs::fstat(fd).unwrap();
    (stat.st_dev, stat.st_ino)
}

/// Asks the kernel who owns a namespace.
fn owner(fd: &OwnedFd) -> (u64, u64) {
    const NS_GET_USERNS: libc::c_ulong = 0xb701;
    // SAFETY: the call takes no argument and returns a new descriptor.
    let owner = unsafe { libc::ioctl(fd.as_raw_fd(), NS_GET_USERNS as _) };
    assert!(owner >= 0, "{}", std::io::Error::last_os_error());
    // SAFETY: nobody else owns it.
    identity(&unsafe { <OwnedFd as std::os::fd::FromRawFd>::from_raw_fd(owner) })
}

#[test]
fn a_network_belongs_to_its_user_namespace() {
    let (user, network) = super::make_with_network(MAP, MAP).unwrap();
    assert_eq!(owner(&network), identity(&user));
    let another = super::network_of(user.as_fd()).unwrap();
    assert_eq!(owner(&another), identity(&user));
    assert_ne!(identity(&another), identity(&network));
    let lone = super::make(MAP, MAP).unwrap();
    assert_ne!(identity(&lone), identity(&user));
}

#[test]
fn wrong_maps_are_told_and_nobody_stays() {
    let before = children();
    assert!(super::make("nonsense", MAP).is_err());
    assert!(super::network_of(std::fs::File::open("/dev/null").unwrap().as_fd()).is_err());
    assert_eq!(children(), before);
}

/// Processes that this thread has made and not reaped.
fn children() -> String {
    std::fs::read_to_string("/proc/thread-self/children").unwrap_or_default()
}

#[test]
fn the_own_namespace_is_nobody_elses() {
    let own = i32::try_from(std::process::id()).unwrap();
    assert!(super::of_process(own).unwrap().is_none());
}

#[test]
fn files_of_another_user() {
    let folder = std::env::temp_dir().join(format!("rorqual-userns-{}", std::process::id()));
    std::fs::create_dir(&folder).unwrap();
    let path = folder.join("file");
    let (made, others) = (path.clone(), folder.clone());
    let work = std::thread::spawn(move || {
        super::access_files_as(300_000, 300_001).unwrap();
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create_new(true).mode(0o600).open(&made).unwrap();
        // Capabilities are still in force: the directory is somebody else's.
        std::os::unix::fs::chown(&others, Some(0), Some(0)).unwrap();
    });
    work.join().unwrap();
    let meta = std::fs::metadata(&path).unwrap();
    assert_eq!((meta.uid(), meta.gid()), (300_000, 300_001));
    // This thread is who it was.
    std::fs::write(folder.join("own"), "").unwrap();
    assert_eq!(std::fs::metadata(folder.join("own")).unwrap().uid(), 0);
    std::fs::remove_dir_all(&folder).unwrap();
}

//! A data root of its own for each test, and layers made of lists.

use std::io::Cursor;
use std::path::Path;

use rorqual_core::{ContainerId, DiffId};
use rorqual_snapshot::tar::{Entry, Kind, Writer};
use rorqual_snapshot::{
    Error, LayerInfo, LayerSource, Options, Overlay, SnapshotRequest, Snapshotter,
};

pub(crate) struct World {
    pub(crate) temp: tempfile::TempDir,
    pub(crate) overlay: Overlay,
}

pub(crate) fn options() -> Options {
    Options { durable: false, ..Options::default() }
}

impl World {
    pub(crate) fn new() -> Self {
        // The working directory lies on a file system that overlay takes; /tmp may be an overlay or have no attributes.
        let temp = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let overlay = Overlay::open(temp.path(), options()).unwrap();
        Self { temp, overlay }
    }

    pub(crate) async fn apply(&self, tar: Vec<u8>) -> Result<LayerInfo, Error> {
        self.overlay.apply(LayerSource { blob: Box::new(Cursor::new(tar)), expected: None }).await
    }

    pub(crate) async fn layer(&self, files: &[(&str, &str)]) -> DiffId {
        self.apply(tar(files)).await.unwrap().diff_id
    }

    pub(crate) fn tree(&self, id: &DiffId) -> std::path::PathBuf {
        self.temp.path().join("layers").join(id.0.hex()).join("fs")
    }

    pub(crate) async fn container(&self, number: u8, layers: &[DiffId]) -> ContainerId {
        let container = ContainerId::from_random([number; 32]);
        let layers = layers.to_vec();
        self.overlay.prepare(SnapshotRequest { container, layers, size: None }).await.unwrap();
        container
    }
}

/// Makes a tar: a path ending in `/` is a directory, content `-> x` a symbolic link, `=> x` a hard link.
pub(crate) fn tar(files: &[(&str, &str)]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for (path, content) in files {
        if let Some(target) = content.strip_prefix("-> ") {
            let mut entry = Entry::new(*path, Kind::Symlink, 0o777);
            entry.link = target.into();
            writer.header(&entry).unwrap();
        } else if let Some(target) = content.strip_prefix("=> ") {
            let mut entry = Entry::new(*path, Kind::HardLink, 0o644);
            entry.link = target.into();
            writer.header(&entry).unwrap();
        } else if path.ends_with('/') {
            writer.header(&Entry::new(*path, Kind::Directory, 0o755)).unwrap();
        } else {
            writer.file(Entry::new(*path, Kind::File, 0o644), content.as_bytes()).unwrap();
        }
    }
    writer.finish().unwrap()
}

/// Mounts a container's plan for the length of `work`, in a mount namespace of a thread.
pub(crate) fn mounted(plan: &rorqual_core::mount::OverlayPlan, work: impl FnOnce(&Path) + Send) {
    use std::fmt::Write;
    let lower = plan.lower.iter().map(|path| path.display().to_string()).collect::<Vec<_>>();
    let upper = plan.upper.as_ref().unwrap();
    let mut options = format!("lowerdir={}", lower.join(":"));
    write!(options, ",upperdir={},workdir={}", upper.upper.display(), upper.work.display())
        .unwrap();
    for option in &plan.options {
        write!(options, ",{option}").unwrap();
    }
    let target = upper.work.with_file_name("mnt");
    std::fs::create_dir_all(&target).unwrap();
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            use rustix::mount::{MountFlags, MountPropagationFlags};
            let flags = rustix::thread::UnshareFlags::FS | rustix::thread::UnshareFlags::NEWNS;
            #[expect(deprecated, reason = "a thread of its own")]
            rustix::thread::unshare(flags).unwrap();
            let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
            rustix::mount::mount_change("/", private).unwrap();
            let data = std::ffi::CString::new(options).unwrap();
            rustix::mount::mount("overlay", &target, "overlay", MountFlags::empty(), &*data)
                .unwrap();
            work(&target);
        });
        thread.join().unwrap();
    });
}

use super::*;

fn world() -> (tempfile::TempDir, Root) {
    let temp = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(temp.path().join("root/a/b")).unwrap();
    std::fs::write(temp.path().join("outside"), "secret").unwrap();
    std::fs::write(temp.path().join("root/a/file"), "inside").unwrap();
    let root = Root::open(&temp.path().join("root")).unwrap();
    (temp, root)
}

#[test]
fn links_and_dots_stay_inside() {
    let (temp, root) = world();
    let base = temp.path().join("root");
    std::os::unix::fs::symlink("../../../outside", base.join("up")).unwrap();
    std::os::unix::fs::symlink("/a", base.join("abs")).unwrap();
    std::os::unix::fs::symlink("/proc/self/root", base.join("magic")).unwrap();
    for hostile in ["../outside", "/../../outside", "up", "a/../../outside", "magic/etc"] {
        let error = root.open_file(Path::new(hostile)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound, "{hostile}");
    }
    let text = std::io::read_to_string(root.open_file(Path::new("abs/file")).unwrap()).unwrap();
    assert_eq!(text, "inside");
}

#[test]
fn pipes_and_directories_are_no_files() {
    let (_temp, root) = world();
    let pipe = Special { kind: FileType::Fifo, mode: 0o644, device: (0, 0) };
    root.dir().mknod(OsStr::new("pipe"), pipe).unwrap();
    assert!(root.open_file(Path::new("pipe")).is_err());
    assert!(root.open_file(Path::new("a")).is_err());
}

#[test]
fn mkdirs_follows_links_inside_and_ignores_the_umask() {
    let (temp, root) = world();
    std::os::unix::fs::symlink("/a", temp.path().join("root/link")).unwrap();
    root.mkdirs(Path::new("/link/x/y"), 0o777).unwrap();
    let stat = root.stat(Path::new("a/x/y"), Follow::No).unwrap();
    assert_eq!(stat.st_mode & 0o7777, 0o777);
}

#[test]
fn names_are_single_elements() {
    let (_temp, root) = world();
    for name in ["", ".", "..", "a/b", "/"] {
        assert!(root.dir().child(OsStr::new(name)).is_err(), "{name}");
    }
    assert!(split(Path::new("a/..")).is_err());
    assert_eq!(split(Path::new("/a/b/")).unwrap(), (Path::new("/a/"), OsStr::new("b")));
}

#[test]
fn removes_trees_deeper_than_descriptors_allow() {
    let (_temp, root) = world();
    let mut dir = root.dir().try_clone().unwrap();
    for _ in 0..600 {
        dir.mkdir(OsStr::new("d"), 0o755).unwrap();
        dir = dir.child(OsStr::new("d")).unwrap();
    }
    root.dir().remove_tree(OsStr::new("d")).unwrap();
    assert_eq!(root.dir().entries().unwrap().len(), 1);
    root.dir().remove_tree(OsStr::new("d")).unwrap();
}

#[test]
fn attributes_of_links_and_files() {
    let (_temp, root) = world();
    root.dir().symlink(OsStr::new("l"), OsStr::new("nowhere")).unwrap();
    let handle = root.dir().handle(OsStr::new("l")).unwrap();
    let name = OsStr::new("trusted.test");
    if crate::xattr::set(&handle, name, b"v").is_err() {
        return; // A file system without attributes, or not root.
    }
    assert_eq!(crate::xattr::get(&handle, name).unwrap().unwrap(), b"v");
    assert_eq!(crate::xattr::names(&handle).unwrap(), [name]);
    crate::xattr::remove(&handle, name).unwrap();
    assert_eq!(crate::xattr::get(&handle, name).unwrap(), None);
}

#[test]
fn a_walk_by_names_finds_what_the_kernel_finds() {
    let (temp, root) = world();
    let base = temp.path().join("root");
    for (name, target) in [
        ("up", "../../../outside"),
        ("abs", "/a"),
        ("back", "a/b/../file"),
        ("loop", "loop"),
        ("deep", "abs/b/../../back"),
        ("slash", "a/file/"),
        ("nowhere", "gone"),
    ] {
        std::os::unix::fs::symlink(target, base.join(name)).unwrap();
    }
    let paths = [
        ".",
        "/",
        "..",
        "a",
        "a/",
        "a/b/..",
        "a/file",
        "a/file/",
        "a/file/..",
        "a/file/.",
        "abs",
        "abs/",
        "abs/file",
        "up",
        "../outside",
        "/../../outside",
        "back",
        "loop",
        "deep",
        "slash",
        "nowhere",
        "a/./b",
        "a//b",
        "gone/..",
    ];
    let identity = |found: io::Result<OwnedFd>| match found {
        Ok(fd) => {
            let stat = rustix::fs::fstat(fd).unwrap();
            Ok((stat.st_dev, stat.st_ino))
        }
        Err(error) => Err(error.raw_os_error()),
    };
    for path in paths.map(Path::new) {
        for flags in [OFlags::PATH, OFlags::PATH | OFlags::NOFOLLOW, OFlags::DIRECTORY] {
            let by_kernel = identity(root.resolve(path, flags));
            let by_walk = identity(walk::resolve(root.as_fd(), path, flags));
            assert_eq!(by_walk, by_kernel, "{} {flags:?}", path.display());
        }
    }
}

#[test]
fn dots_resolve_while_the_host_renames_all_the_time() {
    let (temp, root) = world();
    let (one, two) = (temp.path().join("one"), temp.path().join("two"));
    std::fs::create_dir(&one).unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    let _ = std::fs::rename(&one, &two);
                    let _ = std::fs::rename(&two, &one);
                }
            });
        }
        let path = PathBuf::from(format!("{}a/file", "a/b/../../".repeat(200)));
        for _ in 0..200 {
            assert!(root.open_file(&path).is_ok());
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

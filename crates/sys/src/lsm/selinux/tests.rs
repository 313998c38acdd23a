use std::fs;
use std::os::unix::fs::symlink;

use super::*;

#[test]
fn the_policy_that_is_in_use_counts() {
    let root = tempfile::tempdir().unwrap();
    let put = |path: &str, text: &str| {
        let path = root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    assert!(contexts_in(root.path()).is_none());
    let of =
        |kind: &str| format!("process = \"u:r:{kind}_t:s0\"\nfile = \"u:o:{kind}_file_t:s0\"\n");
    put("etc/selinux/config", "# comment\nSELINUX=enforcing\nSELINUXTYPE=mls\n");
    put("etc/selinux/targeted/contexts/lxc_contexts", &of("targeted"));
    assert!(contexts_in(root.path()).is_none(), "of another policy");
    put("etc/selinux/mls/contexts/lxc_contexts", &of("mls"));
    assert_eq!(contexts_in(root.path()), Contexts::parse(&of("mls")));
    put("usr/share/containers/selinux/contexts", &of("own"));
    assert_eq!(contexts_in(root.path()), Contexts::parse(&of("own")));
    fs::remove_file(root.path().join("usr/share/containers/selinux/contexts")).unwrap();
    put("etc/selinux/config", "SELINUXTYPE=../targeted\n");
    assert!(contexts_in(root.path()).is_none());
}

#[test]
fn a_tree_is_labelled_whole_and_alone() {
    let folder = tempfile::tempdir().unwrap();
    let outside = folder.path().join("outside");
    fs::create_dir_all(&outside).unwrap();
    fs::write(outside.join("secret"), "").unwrap();
    let tree = folder.path().join("tree");
    fs::create_dir_all(tree.join("a/b/c")).unwrap();
    fs::write(tree.join("a/b/f"), "").unwrap();
    symlink(&outside, tree.join("a/out")).unwrap();
    symlink("../../../outside/secret", tree.join("a/b/file")).unwrap();
    let handle =
        rustix::fs::open(&tree, OFlags::PATH | OFlags::CLOEXEC, rustix::fs::Mode::empty()).unwrap();
    let mut seen = Vec::new();
    walk(handle.as_fd(), &mut |fd| {
        let path =
            fs::read_link(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&fd)))?;
        seen.push(path.strip_prefix(&tree).unwrap().to_string_lossy().into_owned());
        Ok(())
    })
    .unwrap();
    assert_eq!(seen.pop().as_deref(), Some(""), "the top comes last");
    seen.sort();
    assert_eq!(seen, ["a", "a/b", "a/b/c", "a/b/f", "a/b/file", "a/out"]);
}

#[test]
fn the_hosts_own_directories_keep_their_labels() {
    for path in ["/", "/usr", "/etc/../etc", "/usr/"] {
        let error = relabel(Path::new(path), "u:r:t:s0", false).unwrap_err();
        assert!(matches!(error, Error::Label(_)), "{path}");
    }
    let missing = relabel(Path::new("/nosuch/x"), "u:r:t:s0", false).unwrap_err();
    assert!(missing.to_string().contains("relabel /nosuch/x"), "{missing}");
}

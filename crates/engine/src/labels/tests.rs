use std::collections::HashSet;

use rorqual_core::mount::OverlayPlan;

use super::*;

fn id(byte: u8) -> ContainerId {
    ContainerId::from_random([byte; 32])
}

fn labels(level: &str) -> Labels {
    Labels {
        process: format!("system_u:system_r:container_t:{level}"),
        mount: format!("system_u:object_r:container_file_t:{level}"),
    }
}

#[test]
fn no_two_containers_have_a_level() {
    let levels = Levels::default();
    let first = levels.reserve(id(7));
    levels.release(&id(7));
    assert_eq!(levels.reserve(id(7)), first, "by its id");
    // Another with the same beginning.
    let mut twin = [7; 32];
    twin[31] = 8;
    assert_ne!(levels.reserve(ContainerId::from_random(twin)), first);
    let many: HashSet<String> = (0..200).map(|byte| levels.reserve(id(byte))).collect();
    assert_eq!(many.len(), 200);
    // What an earlier daemon gave is taken, too.
    let next = Levels::default();
    next.note(id(1), &labels(&first));
    assert_ne!(next.reserve(id(7)), first);
    let given = next.reserve(id(9));
    drop(Reservation(Some((&next, id(9)))));
    assert_eq!(next.reserve(id(9)), given, "given back");
}

#[test]
fn who_shares_with_the_host_or_another_is_labelled_so() {
    let other = labels("s0:c1,c2");
    let of = |name: &str| match name {
        "confined" => Ok(other.clone()),
        _ => Ok(Labels::default()),
    };
    let disabled = vec!["disable".to_owned()];
    let mut spec = ContainerSpec::default();
    assert!(implied(&spec, of).unwrap().is_empty());
    spec.namespaces.pid = PidMode::Container("confined".to_owned());
    assert_eq!(implied(&spec, of).unwrap(), other.options());
    spec.namespaces.ipc = IpcMode::Container("confined".to_owned());
    assert_eq!(implied(&spec, of).unwrap(), other.options());
    spec.namespaces.ipc = IpcMode::Container("unconfined".to_owned());
    let text = implied(&spec, of).unwrap_err().to_string();
    assert!(text.contains("--ipc and --pid containers SELinux labels aren't the same"), "{text}");
    spec.namespaces.pid = PidMode::Private;
    assert_eq!(implied(&spec, of).unwrap(), disabled);
    spec.namespaces.ipc = IpcMode::Host;
    assert_eq!(implied(&spec, of).unwrap(), disabled);
    spec = ContainerSpec::default();
    spec.security.privileged = true;
    assert_eq!(implied(&spec, of).unwrap(), disabled);
    spec.security.options =
        ["label=type:x_t", "seccomp=unconfined", "label:level:s0"].map(str::to_owned).to_vec();
    assert_eq!(asked(&spec), ["type:x_t", "level:s0"]);
}

#[test]
fn files_are_labelled_as_asked() {
    let point = |kind, mode: &str| MountPoint {
        kind,
        name: None,
        source: PathBuf::from(format!("/{mode}")),
        target: "/t".to_owned(),
        driver: String::new(),
        mode: mode.to_owned(),
        writable: true,
        propagation: None,
        anonymous: false,
        subpath: None,
        layers: Vec::new(),
        image: String::new(),
        idmap: None,
    };
    let mounts = [
        point(MountPointKind::Bind, ""),
        point(MountPointKind::Bind, "ro,z"),
        point(MountPointKind::Bind, "Z"),
        point(MountPointKind::Volume, "z"),
        point(MountPointKind::Volume, "Z"),
        point(MountPointKind::Volume, ""),
        point(MountPointKind::Tmpfs, "z"),
    ];
    let files = HostFiles {
        hosts: PathBuf::from("/c/hosts"),
        hostname: PathBuf::new(),
        resolv_conf: PathBuf::from("/c/resolv.conf"),
    };
    let labels = labels("s0:c1,c2");
    let (own, shared) = (labels.mount.as_str(), labels.shared());
    let found = tasks(&labels, &mounts, &files);
    let found: Vec<_> = found
        .iter()
        .map(|task| (task.path.to_str().unwrap(), task.label.as_str(), task.unless_done))
        .collect();
    assert_eq!(
        found,
        [
            ("/c/hosts", own, false),
            ("/c/resolv.conf", own, false),
            ("/ro,z", shared.as_str(), false),
            ("/Z", own, false),
            ("/z", shared.as_str(), true),
            ("/Z", own, true),
            ("/", shared.as_str(), true),
        ]
    );
}

#[test]
fn a_root_shows_its_containers_label() {
    let plan = RootfsPlan::Overlay(OverlayPlan {
        lower: vec!["/a".into()],
        upper: None,
        options: vec!["metacopy=off".to_owned()],
    });
    assert_eq!(label_root(plan.clone(), &Labels::default()), plan);
    let RootfsPlan::Overlay(labelled) = label_root(plan, &labels("s0:c1,c2")) else { panic!() };
    assert_eq!(
        labelled.options,
        ["metacopy=off", "context=system_u:object_r:container_file_t:s0:c1,c2"]
    );
}

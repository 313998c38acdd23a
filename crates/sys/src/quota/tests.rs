use super::*;

#[test]
fn structures_are_as_large_as_the_kernels() {
    assert_eq!(size_of::<FileAttributes>(), 28);
    assert_eq!(size_of::<DiskQuota>(), 112);
}

#[test]
fn memory_keeps_no_project_quotas() {
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    assert!(ProjectQuotas::of(folder.path()).unwrap().is_none());
    assert_eq!(project_of(std::fs::File::open(folder.path()).unwrap()).unwrap(), 0);
}

//! Runs a bundle with the library alone: `smoke BUNDLE`.
use std::os::fd::AsFd;
use rorqual_runtime::*;
fn main() {
    let bundle = std::path::PathBuf::from(std::env::args().nth(1).unwrap());
    let spec = oci_spec::runtime::Spec::load(bundle.join("config.json")).unwrap();
    let path = bundle.join(spec.root().as_ref().unwrap().path());
    let mut created = match create(ContainerRequest {
        id: "smoke".into(), bundle, spec,
        rootfs: rorqual_core::mount::RootfsPlan::Directory { path },
        joined: vec![], stdio: Stdio::Inherit, user: ProcessUser::Spec, barrier: Barrier::Wait }) {
        Ok(c) => c, Err(e) => { println!("{}", rorqual_core::full_message(&e)); std::process::exit(1) } };
    println!("created {} {:?}", created.pid, created.warnings);
    if let Err(e) = created.start() { println!("{}", rorqual_core::full_message(&e)); std::process::exit(1) }
    println!("{:?}", rorqual_sys::process::wait_pidfd(created.pidfd.as_fd()));
}

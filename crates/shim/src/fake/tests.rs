use oci_spec::runtime::{ProcessBuilder, SpecBuilder};
use rorqual_core::mount::RootfsPlan;

use super::*;

fn launch(args: &[&str]) -> Launch {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let mut bits = [0; 32];
    bits[..8].copy_from_slice(&NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes());
    let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
    let process = ProcessBuilder::default().args(args).build().unwrap();
    Launch {
        container: ContainerId::from_random(bits),
        task: TaskId(1),
        spec: SpecBuilder::default().process(process).build().unwrap(),
        seccomp: None,
        rootfs: RootfsPlan::Directory { path: "/".into() },
        user: String::new(),
        groups: Vec::new(),
        namespaces: Vec::new(),
        open_stdin: false,
        stdin_once: false,
        window: WindowSize::default(),
        log: LogTarget::None,
        attachments: Vec::new(),
    }
}

#[tokio::test]
async fn the_fake_keeps_the_contract() {
    crate::suite::run(FakeTasks::new(), Arc::new(launch)).await;
}

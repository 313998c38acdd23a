use proptest::prelude::*;
use rorqual_core::capability::{Capabilities, Capability};
use rorqual_core::seccomp::Environment;

use super::compile::action_value;
use super::oracle::{Call, Oracle, run};
use super::{
    Action, Arch, Arg, CompileError, Flag, Machine, Op, Profile, Program, Rule, compile, install,
};

const AUDITS: [u32; 5] = [0xc000_003e, 0x4000_0003, 0xc000_00b7, 0x4000_0028, 0x8000_0016];

/// Every number any table has, their neighbours, and the ends of all ranges.
fn numbers() -> Vec<u32> {
    let mut all: Vec<u32> = (0..700).collect();
    all.extend((0..700).map(|number| number | 0x4000_0000));
    all.extend(0xf_0000..0xf_0010);
    all.extend([
        0x3fff_ffff,
        0x7fff_ffff,
        0x8000_0000,
        0xbfff_ffff,
        0xc000_0000,
        u32::MAX - 1,
        u32::MAX,
    ]);
    all
}

/// Values around everything a rule of `profile` compares with.
fn corners(profile: &Profile) -> Vec<u64> {
    let mut all = vec![0, 1, 0xffff_ffff, 0x1_0000_0000, u64::MAX];
    for arg in profile.rules.iter().flat_map(|rule| &rule.args) {
        for value in [arg.value, arg.value_two] {
            all.extend([value, value.wrapping_add(1), value.wrapping_sub(1), !value]);
            all.extend([value ^ (1 << 32), value ^ (1 << 63), value & 0xffff_ffff, value >> 32]);
        }
    }
    all.sort_unstable();
    all.dedup();
    all
}

fn check(oracle: &Oracle<'_>, program: &Program, call: &Call) {
    let got = run(program.instructions(), call);
    assert_eq!(got, action_value(oracle.wanted(call)), "{call:x?}");
}

/// Compares program and profile over all numbers, machines and corner values.
fn compare(profile: &Profile, native: Machine) {
    let program = compile(profile, native).expect("compiles");
    let oracle = Oracle::new(profile, native);
    let corners = corners(profile);
    // Only calls with conditions look at arguments.
    let filtered: Vec<u32> =
        [Machine::X86_64, Machine::X86, Machine::X32, Machine::Aarch64, Machine::Arm]
            .iter()
            .flat_map(|machine| {
                let rules = profile.rules.iter().filter(|rule| !rule.args.is_empty());
                rules.flat_map(|rule| &rule.names).filter_map(|name| machine.number(name))
            })
            .collect::<std::collections::BTreeSet<_>>()
            .into_iter()
            .collect();
    for audit in AUDITS {
        for number in numbers() {
            check(&oracle, &program, &Call { number, audit, args: [0; 6] });
        }
        let narrow = audit & 0x8000_0000 == 0;
        for &number in &filtered {
            for &corner in &corners {
                let corner = if narrow { corner & 0xffff_ffff } else { corner };
                for index in 0..6 {
                    let mut args = [0; 6];
                    args[index] = corner;
                    check(&oracle, &program, &Call { number, audit, args });
                }
                check(&oracle, &program, &Call { number, audit, args: [corner; 6] });
            }
        }
    }
}

fn default_profile(capabilities: Capabilities, architecture: &str) -> Profile {
    Profile::docker_default(&Environment {
        capabilities,
        architecture: architecture.to_owned(),
        kernel: "6.1".parse().expect("a version"),
    })
}

#[test]
fn the_default_profile_does_what_it_says() {
    for (native, architecture) in [(Machine::X86_64, "amd64"), (Machine::Aarch64, "arm64")] {
        for capabilities in [
            Capabilities::DOCKER_DEFAULT,
            Capabilities::DOCKER_DEFAULT.with(Capability::SYS_ADMIN),
            Capabilities::EMPTY,
        ] {
            compare(&default_profile(capabilities, architecture), native);
        }
    }
}

#[test]
fn the_default_profile_in_plain_words() {
    let profile = default_profile(Capabilities::DOCKER_DEFAULT, "amd64");
    let program = compile(&profile, Machine::X86_64).expect("compiles");
    let (allow, eperm, enosys) = (0x7fff_0000, 0x0005_0001, 0x0005_0026);
    let (x86_64, x86) = (0xc000_003e, 0x4000_0003);
    for (audit, number, arg, expected) in [
        (x86_64, 0, 0, allow),                      // read
        (x86_64, 165, 0, eperm),                    // mount
        (x86_64, 435, 0, enosys),                   // clone3
        (x86_64, 56, 0x11, allow),                  // clone for fork
        (x86_64, 56, 0x1000_0000, eperm),           // clone into a new user namespace
        (x86_64, 56, 0xdead_0000_0000_0000, allow), // the kernel ignores the upper half too
        (x86_64, 41, 2, allow),                     // socket(AF_INET)
        (x86_64, 41, 38, eperm),                    // socket(AF_ALG)
        (x86_64, 41, 40, eperm),                    // socket(AF_VSOCK)
        (x86_64, 135, 0xffff_ffff, allow),          // personality(query)
        (x86_64, 135, 0x004_0000, eperm),           // personality(ADDR_NO_RANDOMIZE)
        (x86_64, 600, 0, enosys),                   // not invented yet
        (x86_64, 0x4000_0000 + 520, 0, allow),      // execve of x32
        (x86_64, 0x4000_0000 + 59, 0, eperm),       // a number x32 gave up
        (x86_64, u32::MAX, 0, enosys),              // a tracer's "no call"
        (x86, 11, 0, allow),                        // execve
        (x86, 102, 0, allow),                       // socketcall
        (x86, 21, 0, eperm),                        // mount
        (0xc000_00b7, 0, 0, 0x8000_0000),           // a machine that cannot be
    ] {
        let call = Call { number, audit, args: [arg, 0, 0, 0, 0, 0] };
        assert_eq!(run(program.instructions(), &call), expected, "{call:x?}");
    }
}

fn rule(names: &[&str], action: Action, args: &[Arg]) -> Rule {
    Rule { names: names.iter().map(|&n| n.to_owned()).collect(), action, args: args.to_vec() }
}

fn profile(default_action: Action, rules: Vec<Rule>) -> Profile {
    Profile {
        default_action,
        architectures: vec![Arch::X86_64, Arch::X86, Arch::X32, Arch::Arm, Arch::Mips],
        flags: None,
        listener_path: String::new(),
        listener_metadata: String::new(),
        rules,
    }
}

fn any_action() -> impl Strategy<Value = Action> {
    prop_oneof![
        Just(Action::Allow),
        Just(Action::Log),
        Just(Action::KillProcess),
        Just(Action::KillThread),
        Just(Action::Trap),
        (0_u16..=4095).prop_map(Action::Errno),
        any::<u16>().prop_map(Action::Trace),
    ]
}

fn any_arg() -> impl Strategy<Value = Arg> {
    let op = prop_oneof![
        Just(Op::Ne),
        Just(Op::Lt),
        Just(Op::Le),
        Just(Op::Eq),
        Just(Op::Ge),
        Just(Op::Gt),
        Just(Op::MaskedEq),
    ];
    let value = prop_oneof![
        0_u64..4,
        Just(0xffff_ffff),
        Just(0x1_0000_0000),
        Just(u64::MAX),
        any::<u64>(),
        (0_u32..64).prop_map(|bit| 1 << bit),
    ];
    (0_u8..6, value.clone(), value, op).prop_map(|(index, value, value_two, op)| Arg {
        index,
        value,
        value_two,
        op,
    })
}

fn any_rule() -> impl Strategy<Value = Rule> {
    const NAMES: [&str; 14] = [
        "read",
        "write",
        "openat2",
        "socket",
        "execve",
        "clone",
        "rt_sigaction",
        "set_tls",
        "statx",
        "uselib",
        "mseal",
        "sync_file_range2",
        "no_such_call",
        "ioctl",
    ];
    let names = prop::collection::vec(prop::sample::select(&NAMES[..]), 1..6);
    let args = prop::collection::vec(any_arg(), 0..4);
    (names, any_action(), args).prop_map(|(names, action, args)| rule(&names, action, &args))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn any_profile_does_what_it_says(
        default_action in any_action(),
        rules in prop::collection::vec(any_rule(), 0..6),
    ) {
        let profile = profile(default_action, rules);
        compare(&profile, Machine::X86_64);
        compare(&profile, Machine::Aarch64);
    }
}

#[test]
fn long_programs_jump_far() {
    // Many rules on one call put the ends of its chain far from its beginning.
    let case = |value| {
        let arg = Arg { index: 3, value, value_two: 0, op: Op::Eq };
        rule(&["ioctl"], Action::Errno((value % 7 + 2) as u16), &[arg])
    };
    let profile = profile(Action::Allow, (0..300).map(|n| case(n * 0x1_0000_0001)).collect());
    let program = compile(&profile, Machine::X86_64).expect("compiles");
    let oracle = Oracle::new(&profile, Machine::X86_64);
    for value in (0..305).map(|n| n * 0x1_0000_0001) {
        let args = [0, 0, 0, value, 0, 0];
        check(&oracle, &program, &Call { number: 16, audit: AUDITS[0], args });
    }
}

#[test]
fn too_much_is_refused() {
    let case = |value| {
        let arg = Arg { index: 0, value, value_two: 0, op: Op::Eq };
        rule(&["ioctl"], Action::Allow, &[arg])
    };
    let profile = profile(Action::Errno(1), (0..3000).map(case).collect());
    assert!(matches!(compile(&profile, Machine::X86_64), Err(CompileError::TooLarge(_))));
}

#[test]
fn a_listener_has_conditions() {
    let mut listened = profile(Action::Allow, vec![rule(&["mount"], Action::Notify, &[])]);
    assert_eq!(compile(&listened, Machine::X86_64), Err(CompileError::NoListener));
    listened.listener_path = "/run/listener".to_owned();
    listened.flags = Some(vec![Flag::Tsync]);
    let program = compile(&listened, Machine::X86_64).expect("compiles");
    assert!(program.has_listener());
    listened.rules.push(rule(&["write"], Action::Notify, &[]));
    assert_eq!(compile(&listened, Machine::X86_64), Err(CompileError::NotifyEverything));
}

#[test]
fn bytes_survive_a_round_trip() {
    let profile = default_profile(Capabilities::DOCKER_DEFAULT, "amd64");
    let program = compile(&profile, Machine::X86_64).expect("compiles");
    let bytes = program.to_bytes();
    assert_eq!(Program::from_bytes(&bytes).as_ref(), Some(&program));
    assert_eq!(Program::from_bytes(&bytes[..bytes.len() - 1]), None);
    assert_eq!(Program::from_bytes(&[]), None);
}

/// Runs `body` in a forked child with the filter and returns its exit code, 128 more for a signal.
fn filtered(program: &Program, body: fn() -> i32) -> i32 {
    // SAFETY: the child only makes system calls and leaves without running destructors.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        // SAFETY: as above.
        unsafe {
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
            let code = if install(program).is_ok() { body() } else { 99 };
            libc::_exit(code);
        }
    }
    let mut status = 0;
    // SAFETY: waits for the child made above.
    assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
    if libc::WIFSIGNALED(status) { 128 + libc::WTERMSIG(status) } else { libc::WEXITSTATUS(status) }
}

fn errno() -> i32 {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

#[test]
fn the_kernel_takes_the_default_filter() {
    let profile = default_profile(Capabilities::DOCKER_DEFAULT, "amd64");
    let program = compile(&profile, Machine::NATIVE).expect("compiles");
    let code = filtered(&program, || {
        // SAFETY: system calls that the filter refuses before they look at anything.
        unsafe {
            let keyctl = libc::syscall(libc::SYS_keyctl, 0, 0, 0);
            if (keyctl, errno()) != (-1, libc::EPERM) {
                return 1;
            }
            let clone3 = libc::syscall(libc::SYS_clone3, 0, 0);
            if (clone3, errno()) != (-1, libc::ENOSYS) {
                return 2;
            }
            if libc::socket(libc::AF_ALG, libc::SOCK_SEQPACKET, 0) != -1 || errno() != libc::EPERM {
                return 3;
            }
            let unix = libc::socket(libc::AF_UNIX, libc::SOCK_STREAM, 0);
            i32::from(unix < 0) * 4
        }
    });
    assert_eq!(code, 0);
}

#[test]
fn the_kernel_kills() {
    let killed = profile(Action::Allow, vec![rule(&["getppid"], Action::KillProcess, &[])]);
    let program = compile(&killed, Machine::NATIVE).expect("compiles");
    let code = filtered(&program, || {
        // SAFETY: has no arguments.
        unsafe { libc::getppid() };
        0
    });
    assert_eq!(code, 128 + libc::SIGSYS);
}

/// Prints how long compiling takes; the budget is for optimised builds.
#[test]
#[ignore = "a measurement"]
#[expect(clippy::print_stdout, reason = "a measurement")]
fn compiling_is_fast() {
    let profile = default_profile(Capabilities::DOCKER_DEFAULT, "amd64");
    let first = std::time::Instant::now();
    let program = compile(&profile, Machine::X86_64).expect("compiles");
    println!("{} instructions, first {:?}", program.instructions().len(), first.elapsed());
    let many = std::time::Instant::now();
    for _ in 0..100 {
        std::hint::black_box(compile(&profile, Machine::X86_64).expect("compiles"));
    }
    println!("then {:?} each", many.elapsed() / 100);
    let many = std::time::Instant::now();
    for _ in 0..100 {
        std::hint::black_box(default_profile(Capabilities::DOCKER_DEFAULT, "amd64"));
    }
    println!("resolving {:?} each", many.elapsed() / 100);
}

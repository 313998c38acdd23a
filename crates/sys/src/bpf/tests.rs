use proptest::prelude::*;

use super::{Instruction, assemble, load_program};
use crate::cgroup::{Access, DeviceKind, DeviceRule};

/// A use of a device: kind and access as bits of the kernel.
#[derive(Clone, Copy, Debug)]
struct Use {
    kind: u32,
    access: u32,
    major: u32,
    minor: u32,
}

/// Says by the rules' own words: for each way of access the last rule that speaks about it decides.
fn wanted(rules: &[DeviceRule], using: Use) -> bool {
    let speaks = |rule: &DeviceRule, bit: u32| {
        let kind = match rule.kind {
            DeviceKind::All => true,
            DeviceKind::Block => using.kind == 1,
            DeviceKind::Char => using.kind == 2,
        };
        let access = match bit {
            1 => rule.access.mknod,
            2 => rule.access.read,
            _ => rule.access.write,
        };
        kind && access
            && rule.major.is_none_or(|major| major == using.major)
            && rule.minor.is_none_or(|minor| minor == using.minor)
    };
    [1, 2, 4]
        .into_iter()
        .filter(|bit| using.access & bit != 0)
        .all(|bit| rules.iter().rev().find(|rule| speaks(rule, bit)).is_some_and(|rule| rule.allow))
}

/// Runs a program on a use of a device as the kernel does.
fn run(program: &[Instruction], using: Use) -> bool {
    let mut registers = [0_u32; 16];
    let mut at = 0_usize;
    loop {
        let Instruction { code, registers: pair, offset, immediate } = program[at];
        at += 1;
        let (to, from) = (usize::from(pair & 15), usize::from(pair >> 4));
        let value = immediate.cast_unsigned();
        let jumps = match code {
            0x61 => {
                assert_eq!(from, 1);
                registers[to] = match offset {
                    0 => using.access << 16 | using.kind,
                    4 => using.major,
                    8 => using.minor,
                    other => panic!("no field at {other}"),
                };
                false
            }
            0xbc => {
                registers[to] = registers[from];
                false
            }
            0xb4 => {
                registers[to] = value;
                false
            }
            0x54 => {
                registers[to] &= value;
                false
            }
            0x74 => {
                registers[to] >>= value;
                false
            }
            0x16 => registers[to] == value,
            0x56 => registers[to] != value,
            0x95 => return registers[0] == 1,
            other => panic!("unknown instruction {other:#x}"),
        };
        if jumps {
            at += usize::try_from(offset).expect("only forward");
        }
    }
}

fn uses() -> Vec<Use> {
    let mut all = Vec::new();
    for kind in [1, 2] {
        for access in 1..8 {
            for major in [0, 1, 2, 10, u32::MAX] {
                for minor in [0, 1, 3, 229, u32::MAX] {
                    all.push(Use { kind, access, major, minor });
                }
            }
        }
    }
    all
}

fn check(rules: &[DeviceRule]) {
    let program = assemble(rules);
    for using in uses() {
        assert_eq!(run(&program, using), wanted(rules, using), "{using:?} {rules:?}");
    }
}

fn rule(
    allow: bool,
    kind: DeviceKind,
    device: (Option<u32>, Option<u32>),
    letters: &str,
) -> DeviceRule {
    let access = Access::parse(letters).expect("letters");
    DeviceRule { allow, kind, major: device.0, minor: device.1, access }
}

fn docker() -> Vec<DeviceRule> {
    use DeviceKind::{All, Char};
    vec![
        rule(false, All, (None, None), ""),
        rule(true, Char, (Some(1), Some(3)), "rwm"),
        rule(true, Char, (Some(1), Some(5)), "rwm"),
        rule(true, Char, (None, None), "m"),
        rule(true, DeviceKind::Block, (None, None), "m"),
        rule(false, Char, (Some(10), Some(229)), "rwm"),
    ]
}

#[test]
fn tables() {
    check(&[]);
    check(&docker());
    check(&[rule(true, DeviceKind::All, (None, None), "")]);
    let mut widened = docker();
    widened.push(rule(true, DeviceKind::Char, (Some(10), None), "r"));
    check(&widened);
}

fn any_rule() -> impl Strategy<Value = DeviceRule> {
    let kind = prop_oneof![Just(DeviceKind::All), Just(DeviceKind::Block), Just(DeviceKind::Char)];
    let major = prop::option::of(prop::sample::select(vec![0_u32, 1, 2, 10, u32::MAX]));
    let minor = prop::option::of(prop::sample::select(vec![0_u32, 1, 3, 229, u32::MAX]));
    (any::<bool>(), kind, major, minor, 0..8_u8).prop_map(|(allow, kind, major, minor, bits)| {
        let access = Access { read: bits & 1 != 0, write: bits & 2 != 0, mknod: bits & 4 != 0 };
        DeviceRule { allow, kind, major, minor, access }
    })
}

proptest! {
    #[test]
    fn any_rules_do_what_they_say(rules in prop::collection::vec(any_rule(), 0..12)) {
        check(&rules);
    }
}

#[test]
fn the_verifier_takes_the_programs() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let mut all = vec![vec![], docker(), vec![rule(true, DeviceKind::All, (None, None), "")]];
    let numbered = |n| {
        rule(n % 3 == 0, DeviceKind::Char, (Some(n), Some(n)), ["r", "rw", "rwm"][n as usize % 3])
    };
    all.push((0..200).map(numbered).collect());
    all.push(vec![rule(true, DeviceKind::All, (None, None), "r"); 3]);
    for rules in all {
        let loaded = load_program(&assemble(&rules));
        assert!(loaded.is_ok(), "{loaded:?}: {rules:?}");
    }
}

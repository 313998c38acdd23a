//! From a profile to a program: a table of numbers per machine, searched by halves. Semantics are
//! those of the filters runc makes through libseccomp; deviations are marked.

use std::collections::BTreeMap;

use super::assembler::{AND, Assembler, EQUAL, GREATER, GREATER_EQUAL, LOAD, Label};
use super::numbers::{ARM_PRIVATE, Machine, X32_BIT};
use super::{Action, Arg, Flag, Op, Profile, Program, Rule};

/// LIMIT: the kernel's `BPF_MAXINSNS`.
pub(super) const MAX_LEN: usize = 4096;

/// Offsets in `struct seccomp_data`.
const NUMBER: u32 = 0;
const AUDIT: u32 = 4;
const ARGUMENTS: u32 = 16;

const ENOSYS: u16 = 38;

/// A profile no filter can be made of.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    /// More than the kernel takes.
    #[error("seccomp profile is too large: {0} instructions, the kernel takes 4096")]
    TooLarge(usize),
    /// The listener itself could not answer.
    #[error("seccomp action SCMP_ACT_NOTIFY cannot be the default or apply to write")]
    NotifyEverything,
    /// No socket to send the listener to.
    #[error("seccomp action SCMP_ACT_NOTIFY needs a listenerPath")]
    NoListener,
}

/// What happens to one system call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Always(Action),
    /// The first set of conditions that holds decides, else the default.
    If(Vec<(Vec<Arg>, Action)>),
}

/// The calls of one machine.
pub(super) struct Table {
    pub(super) machine: Machine,
    pub(super) verdicts: BTreeMap<u32, Verdict>,
    /// Calls past this one are younger than the profile; the highest number of all when it names none.
    pub(super) newest: u32,
}

/// Compiles `profile` for a kernel of machine `native`.
///
/// Names without a number are passed over. Calls younger than every call the profile names fail with
/// `ENOSYS` where the default would refuse them, so that programs fall back to older calls.
pub fn compile(profile: &Profile, native: Machine) -> Result<Program, CompileError> {
    check_listener(profile)?;
    let tables = tables(profile, native);
    let mut code = Assembler::default();
    // ORDER: written from the end, so the last machine tested comes first. A machine the profile does
    // not list never gets in.
    let mut next = code.ending(action_value(Action::KillProcess));
    for machine in [Machine::Arm, Machine::X86, Machine::Aarch64, Machine::X86_64] {
        let table = tables.iter().find(|table| table.machine == machine);
        if let Some(table) = table {
            let x32 = tables.iter().find(|table| table.machine == Machine::X32);
            let entry = write_machine(&mut code, profile, table, x32);
            next = code.branch(EQUAL, machine.audit(), entry, next);
        }
    }
    code.at(next);
    code.step(LOAD, AUDIT);
    if code.len() > MAX_LEN {
        return Err(CompileError::TooLarge(code.len()));
    }
    Ok(Program { instructions: code.finish(), flags: flags(profile) })
}

fn check_listener(profile: &Profile) -> Result<(), CompileError> {
    let mut notifying = profile.rules.iter().filter(|rule| rule.action == Action::Notify);
    let on_write = |rule: &Rule| rule.names.iter().any(|name| name == "write");
    if profile.default_action == Action::Notify || notifying.clone().any(on_write) {
        return Err(CompileError::NotifyEverything);
    }
    if notifying.next().is_some() && profile.listener_path.is_empty() {
        return Err(CompileError::NoListener);
    }
    Ok(())
}

fn flags(profile: &Profile) -> u32 {
    // COMPAT: runc turns speculation on where the document names no flags at all.
    let asked = profile.flags.as_deref().unwrap_or(&[Flag::SpecAllow]);
    let mut flags = 0;
    for flag in asked {
        flags |= match flag {
            Flag::Tsync => libc::SECCOMP_FILTER_FLAG_TSYNC,
            Flag::Log => libc::SECCOMP_FILTER_FLAG_LOG,
            Flag::SpecAllow => libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW,
            Flag::WaitKillableRecv => libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV,
        } as u32;
    }
    if profile.rules.iter().any(|rule| rule.action == Action::Notify) {
        flags |= libc::SECCOMP_FILTER_FLAG_NEW_LISTENER as u32;
        if flags & libc::SECCOMP_FILTER_FLAG_TSYNC as u32 != 0 {
            flags |= libc::SECCOMP_FILTER_FLAG_TSYNC_ESRCH as u32;
        }
    }
    flags
}

/// Returns the tables of the native machine and of those the profile adds.
pub(super) fn tables(profile: &Profile, native: Machine) -> Vec<Table> {
    let listed: Vec<_> =
        profile.architectures.iter().filter_map(|arch| Machine::of(*arch)).collect();
    let family = native.family().iter().copied();
    family
        .filter(|machine| *machine == native || listed.contains(machine))
        .map(|machine| table(profile, machine))
        .collect()
}

fn table(profile: &Profile, machine: Machine) -> Table {
    let mut verdicts = BTreeMap::new();
    let mut newest = None;
    for rule in &profile.rules {
        for name in &rule.names {
            let Some(number) = machine.number(name) else { continue };
            if machine != Machine::Arm || number < ARM_PRIVATE {
                newest = newest.max(Some(number));
            }
            // COMPAT: a rule that only repeats the default has no effect, it does not even hide others.
            if rule.action != profile.default_action {
                add(&mut verdicts, number, rule);
            }
        }
    }
    Table { machine, verdicts, newest: newest.unwrap_or(u32::MAX) }
}

fn add(verdicts: &mut BTreeMap<u32, Verdict>, number: u32, rule: &Rule) {
    let verdict = verdicts.entry(number).or_insert_with(|| Verdict::If(Vec::new()));
    let Verdict::If(cases) = verdict else { return };
    if rule.args.is_empty() {
        // COMPAT: as in libseccomp the widest rule wins wherever it stands.
        *verdict = Verdict::Always(rule.action);
    } else if has_repeated_argument(&rule.args) {
        // COMPAT: runc takes several conditions on one argument as alternatives.
        cases.extend(rule.args.iter().map(|arg| (vec![*arg], rule.action)));
    } else {
        cases.push((rule.args.clone(), rule.action));
    }
}

fn has_repeated_argument(args: &[Arg]) -> bool {
    args.iter().enumerate().any(|(at, arg)| args[..at].iter().any(|other| other.index == arg.index))
}

/// Returns the value a filter answers with for `action`.
pub(super) fn action_value(action: Action) -> u32 {
    match action {
        Action::KillProcess => 0x8000_0000,
        Action::KillThread => 0,
        Action::Trap => 0x0003_0000,
        Action::Errno(number) => 0x0005_0000 | u32::from(number),
        Action::Notify => 0x7fc0_0000,
        Action::Trace(number) => 0x7ff0_0000 | u32::from(number),
        Action::Log => 0x7ffc_0000,
        Action::Allow => 0x7fff_0000,
    }
}

/// What happens to calls younger than the profile.
pub(super) fn young_action(profile: &Profile) -> Action {
    match profile.default_action {
        // A profile that lets unknown calls through means it, and a tracer decides for itself.
        open @ (Action::Allow | Action::Log | Action::Trace(_)) => open,
        _ => Action::Errno(ENOSYS),
    }
}

/// What happens to x32 calls when the profile does not list x32.
pub(super) fn unlisted_x32_action(profile: &Profile) -> Action {
    match young_action(profile) {
        Action::Errno(ENOSYS) => Action::Errno(ENOSYS),
        _ => Action::KillProcess,
    }
}

fn write_machine(
    code: &mut Assembler,
    profile: &Profile,
    table: &Table,
    x32: Option<&Table>,
) -> Label {
    let tree = if table.machine == Machine::X86_64 {
        let other = match x32 {
            Some(x32) => write_tree(code, profile, x32),
            None => code.ending(action_value(unlisted_x32_action(profile))),
        };
        let own = write_tree(code, profile, table);
        code.branch(GREATER_EQUAL, X32_BIT, other, own)
    } else {
        write_tree(code, profile, table)
    };
    code.at(tree);
    code.step(LOAD, NUMBER)
}

/// Calls with neighbouring numbers that share a verdict.
struct Range<'a> {
    first: u32,
    verdict: Option<&'a Verdict>,
    action: Action,
}

fn ranges<'a>(profile: &Profile, table: &'a Table) -> Vec<Range<'a>> {
    let mut ranges: Vec<Range<'a>> = Vec::with_capacity(table.verdicts.len() / 2);
    let mut push = |first: u32, verdict: Option<&'a Verdict>, action: Action| {
        let merges = ranges.last().is_some_and(|last| {
            last.verdict.is_none() && verdict.is_none() && last.action == action
        });
        if !merges {
            ranges.push(Range { first, verdict, action });
        }
    };
    let young = young_action(profile);
    let gap = |number: u32| if number > table.newest { young } else { profile.default_action };
    let mut next = 0;
    for (&number, verdict) in &table.verdicts {
        if next < number {
            push(next, None, gap(next));
            // A gap that begins before and ends after the newest call has two halves.
            if next <= table.newest && number - 1 > table.newest {
                push(table.newest + 1, None, young);
            }
        }
        match verdict {
            Verdict::Always(action) => push(number, None, *action),
            Verdict::If(_) => push(number, Some(verdict), profile.default_action),
        }
        next = number + 1;
    }
    push(next, None, gap(next));
    if next <= table.newest && table.newest < u32::MAX {
        push(table.newest + 1, None, young);
    }
    ranges
}

fn write_tree(code: &mut Assembler, profile: &Profile, table: &Table) -> Label {
    let ranges = ranges(profile, table);
    write_half(code, profile, table.machine, &ranges)
}

fn write_half(
    code: &mut Assembler,
    profile: &Profile,
    machine: Machine,
    ranges: &[Range<'_>],
) -> Label {
    if let [only] = ranges {
        return match only.verdict {
            Some(Verdict::If(cases)) => write_cases(code, profile, machine, cases),
            _ => code.ending(action_value(only.action)),
        };
    }
    let (low, high) = ranges.split_at(ranges.len() / 2);
    let above = write_half(code, profile, machine, high);
    let below = write_half(code, profile, machine, low);
    code.branch(GREATER_EQUAL, high[0].first, above, below)
}

fn write_cases(
    code: &mut Assembler,
    profile: &Profile,
    machine: Machine,
    cases: &[(Vec<Arg>, Action)],
) -> Label {
    let mut otherwise = code.ending(action_value(profile.default_action));
    for (args, action) in cases.iter().rev() {
        let mut then = code.ending(action_value(*action));
        for arg in args.iter().rev() {
            then = write_condition(code, *arg, machine, (then, otherwise));
        }
        otherwise = then;
    }
    otherwise
}

/// Writes one condition; `exits` are where to go if it holds and if not.
fn write_condition(
    code: &mut Assembler,
    arg: Arg,
    machine: Machine,
    exits: (Label, Label),
) -> Label {
    let (yes, no) = exits;
    match arg.op {
        Op::Eq => write_equal(code, machine, (arg.index, u64::MAX, arg.value), (yes, no)),
        Op::Ne => write_equal(code, machine, (arg.index, u64::MAX, arg.value), (no, yes)),
        Op::MaskedEq => {
            write_equal(code, machine, (arg.index, arg.value, arg.value_two), (yes, no))
        }
        Op::Gt => write_order(code, GREATER, arg, (yes, no)),
        Op::Ge => write_order(code, GREATER_EQUAL, arg, (yes, no)),
        Op::Lt => write_order(code, GREATER_EQUAL, arg, (no, yes)),
        Op::Le => write_order(code, GREATER, arg, (no, yes)),
    }
}

fn write_equal(
    code: &mut Assembler,
    machine: Machine,
    (index, mask, value): (u8, u64, u64),
    (yes, no): (Label, Label),
) -> Label {
    let low = write_equal_word(code, low_word(index), (mask as u32, value as u32), (yes, no));
    // On a 32-bit machine the upper half is always zero; a profile's -1 means 32 ones there.
    if machine.is_32_bit() {
        return low;
    }
    let (mask, value) = ((mask >> 32) as u32, (value >> 32) as u32);
    write_equal_word(code, high_word(index), (mask, value), (low, no))
}

fn write_equal_word(
    code: &mut Assembler,
    offset: u32,
    (mask, value): (u32, u32),
    (yes, no): (Label, Label),
) -> Label {
    if mask == 0 {
        return if value == 0 { yes } else { no };
    }
    code.branch(EQUAL, value, yes, no);
    if mask != u32::MAX {
        code.step(AND, mask);
    }
    code.step(LOAD, offset)
}

fn write_order(code: &mut Assembler, compare: u16, arg: Arg, (yes, no): (Label, Label)) -> Label {
    code.branch(compare, arg.value as u32, yes, no);
    let low = code.step(LOAD, low_word(arg.index));
    let high = (arg.value >> 32) as u32;
    let not_greater = code.branch(EQUAL, high, low, no);
    code.branch(GREATER, high, yes, not_greater);
    code.step(LOAD, high_word(arg.index))
}

/// Both supported machines are little-endian.
fn low_word(index: u8) -> u32 {
    ARGUMENTS + u32::from(index) * 8
}

fn high_word(index: u8) -> u32 {
    low_word(index) + 4
}

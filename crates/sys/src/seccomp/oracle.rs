//! The two sides of the differential tests: what a profile means, and what a program does. Neither
//! shares code with the compiler beyond the tables of numbers.

use std::collections::HashMap;

use super::numbers::{ARM_PRIVATE, X32_BIT};
use super::{Action, Arg, Instruction, Machine, Op, Profile, Rule};

/// What a filter sees of a call.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call {
    pub(super) number: u32,
    pub(super) audit: u32,
    pub(super) args: [u64; 6],
}

impl Call {
    fn word(&self, offset: u32) -> u32 {
        match offset {
            0 => self.number,
            4 => self.audit,
            16..64 => {
                let arg = self.args[(offset as usize - 16) / 8];
                if offset.is_multiple_of(8) { arg as u32 } else { (arg >> 32) as u32 }
            }
            _ => panic!("no such word: {offset}"),
        }
    }
}

/// Runs a program as the kernel does.
pub(super) fn run(program: &[Instruction], call: &Call) -> u32 {
    let mut at = 0;
    let mut accumulator = 0_u32;
    loop {
        let Instruction { code, jt, jf, k } = program[at];
        at += 1;
        let holds = match code {
            0x20 => {
                accumulator = call.word(k);
                continue;
            }
            0x54 => {
                accumulator &= k;
                continue;
            }
            0x05 => {
                at += k as usize;
                continue;
            }
            0x06 => return k,
            0x15 => accumulator == k,
            0x25 => accumulator > k,
            0x35 => accumulator >= k,
            _ => panic!("unknown instruction {code:#x}"),
        };
        at += usize::from(if holds { jt } else { jf });
    }
}

/// Says what a profile wants, straight from its text.
pub(super) struct Oracle<'a> {
    profile: &'a Profile,
    native: Machine,
    /// The numbers of each rule, by machine.
    numbers: HashMap<Machine, Vec<Vec<u32>>>,
}

impl<'a> Oracle<'a> {
    pub(super) fn new(profile: &'a Profile, native: Machine) -> Self {
        let machines =
            [Machine::X86_64, Machine::X86, Machine::X32, Machine::Aarch64, Machine::Arm];
        let of_rule = |machine: Machine, rule: &Rule| -> Vec<u32> {
            rule.names.iter().filter_map(|name| machine.number(name)).collect()
        };
        let of_machine =
            |machine| profile.rules.iter().map(|rule| of_rule(machine, rule)).collect();
        let numbers = machines.map(|machine| (machine, of_machine(machine)));
        Self { profile, native, numbers: HashMap::from(numbers) }
    }

    fn machine(&self, call: &Call) -> Result<Machine, Action> {
        let listed = |machine: Machine| {
            let mut all = self.profile.architectures.iter();
            machine == self.native || all.any(|arch| Machine::of(*arch) == Some(machine))
        };
        Ok(match (call.audit, self.native) {
            (0xc000_003e, Machine::X86_64) if call.number < X32_BIT => Machine::X86_64,
            (0xc000_003e, Machine::X86_64) if listed(Machine::X32) => Machine::X32,
            (0xc000_003e, Machine::X86_64) if self.refuses() => return Err(Action::Errno(38)),
            (0x4000_0003, Machine::X86_64) if listed(Machine::X86) => Machine::X86,
            (0xc000_00b7, Machine::Aarch64) => Machine::Aarch64,
            (0x4000_0028, Machine::Aarch64) if listed(Machine::Arm) => Machine::Arm,
            _ => return Err(Action::KillProcess),
        })
    }

    fn refuses(&self) -> bool {
        !matches!(self.profile.default_action, Action::Allow | Action::Log | Action::Trace(_))
    }

    pub(super) fn wanted(&self, call: &Call) -> Action {
        let machine = match self.machine(call) {
            Ok(machine) => machine,
            Err(action) => return action,
        };
        let numbers = &self.numbers[&machine];
        let rules = || self.profile.rules.iter().zip(numbers);
        let speaking = || rules().filter(|(_, numbers)| numbers.contains(&call.number));
        let effective =
            || speaking().filter(|(rule, _)| rule.action != self.profile.default_action);
        // The first rule without conditions settles it, wherever it stands.
        if let Some((rule, _)) = effective().find(|(rule, _)| rule.args.is_empty()) {
            return rule.action;
        }
        if let Some((rule, _)) = effective().find(|(rule, _)| met(rule, machine, call)) {
            return rule.action;
        }
        let ordinary = |number: &u32| machine != Machine::Arm || *number < ARM_PRIVATE;
        let newest = numbers.iter().flatten().copied().filter(ordinary).max();
        let young = newest.is_some_and(|newest| call.number > newest);
        if young && self.refuses() && effective().next().is_none() {
            return Action::Errno(38);
        }
        self.profile.default_action
    }
}

fn met(rule: &Rule, machine: Machine, call: &Call) -> bool {
    let count = |index| rule.args.iter().filter(|arg| arg.index == index).count();
    let mut each = rule.args.iter().map(|arg| holds(*arg, machine, call));
    if (0..6).any(|index| count(index) > 1) { each.any(|one| one) } else { each.all(|one| one) }
}

fn holds(arg: Arg, machine: Machine, call: &Call) -> bool {
    let seen = call.args[usize::from(arg.index)];
    let narrow = matches!(machine, Machine::X86 | Machine::Arm);
    let cut = |value: u64| if narrow { value & 0xffff_ffff } else { value };
    match arg.op {
        Op::Eq => seen == cut(arg.value),
        Op::Ne => seen != cut(arg.value),
        Op::Lt => seen < arg.value,
        Op::Le => seen <= arg.value,
        Op::Gt => seen > arg.value,
        Op::Ge => seen >= arg.value,
        Op::MaskedEq => seen & cut(arg.value) == cut(arg.value_two),
    }
}

//! A small assembler for classic BPF. It writes from the end to the beginning, so that every jump
//! goes to something already written and its distance is known at once.

use super::Instruction;

pub(super) const LOAD: u16 = 0x20;
pub(super) const RETURN: u16 = 0x06;
pub(super) const AND: u16 = 0x54;
pub(super) const JUMP: u16 = 0x05;
pub(super) const EQUAL: u16 = 0x15;
pub(super) const GREATER: u16 = 0x25;
pub(super) const GREATER_EQUAL: u16 = 0x35;

/// How far a conditional jump reaches.
const REACH: usize = u8::MAX as usize;

/// A place in the program, counted from its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Label(usize);

/// The program so far, last instruction first.
#[derive(Default)]
pub(super) struct Assembler {
    reversed: Vec<Instruction>,
    /// The most recent return of each value.
    returns: Vec<(u32, Label)>,
}

impl Assembler {
    pub(super) fn len(&self) -> usize {
        self.reversed.len()
    }

    fn push(&mut self, code: u16, jt: u8, jf: u8, k: u32) -> Label {
        self.reversed.push(Instruction { code, jt, jf, k });
        Label(self.reversed.len() - 1)
    }

    /// Writes something that goes on with what was written before it.
    pub(super) fn step(&mut self, code: u16, k: u32) -> Label {
        self.push(code, 0, 0, k)
    }

    /// Returns a place that ends the program with `value`, near enough to jump to.
    pub(super) fn ending(&mut self, value: u32) -> Label {
        let near = self.reversed.len().saturating_sub(REACH / 2);
        let known = self.returns.iter().position(|(known, _)| *known == value);
        if let Some(at) = known
            && self.returns[at].1.0 >= near
        {
            return self.returns[at].1;
        }
        let label = self.push(RETURN, 0, 0, value);
        match known {
            Some(at) => self.returns[at].1 = label,
            None => self.returns.push((value, label)),
        }
        label
    }

    /// Writes a comparison of the accumulator that goes to `yes` or `no`.
    pub(super) fn branch(&mut self, code: u16, k: u32, yes: Label, no: Label) -> Label {
        if yes == no {
            return self.at(yes);
        }
        // Bringing one near may push the other out of reach by one instruction, so leave room.
        let yes = self.near(yes);
        let no = self.near(no);
        let jt = self.distance(yes);
        let jf = self.distance(no);
        self.push(code, jt, jf, k)
    }

    /// Makes the next instruction written continue at `target`.
    pub(super) fn at(&mut self, target: Label) -> Label {
        let distance = self.reversed.len() - 1 - target.0;
        if distance == 0 { target } else { self.push(JUMP, 0, 0, distance as u32) }
    }

    fn near(&mut self, target: Label) -> Label {
        if self.reversed.len() - 1 - target.0 < REACH - 1 { target } else { self.at(target) }
    }

    #[expect(clippy::expect_used, reason = "near() brought the target within reach")]
    fn distance(&self, target: Label) -> u8 {
        u8::try_from(self.reversed.len() - 1 - target.0).expect("near() brought it within reach")
    }

    /// Returns the finished program.
    pub(super) fn finish(mut self) -> Vec<Instruction> {
        self.reversed.reverse();
        self.reversed
    }
}

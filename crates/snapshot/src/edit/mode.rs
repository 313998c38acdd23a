//! Changes of permissions as chmod(1) writes them: octal, or symbolic. Touches no file system.

use crate::Error;

/// A change of permissions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// These and no others.
    Set(u32),
    /// Clause after clause.
    Clauses(Vec<Clause>),
}

/// `u+rw`: for whom, what happens, to which.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Clause {
    /// Of the nine bits and the three special ones, those that may change.
    who: u32,
    action: char,
    /// `r`, `w`, `x` as bits 4, 2, 1.
    bits: u32,
    /// `X`: execute where it is a directory or somebody may execute already.
    executable: bool,
    setid: bool,
    sticky: bool,
    /// `g=u`: copied from these.
    copied: Option<char>,
}

impl Change {
    pub(super) fn parse(text: &str) -> Result<Self, Error> {
        let invalid = || Error::InvalidArgument(format!("invalid chmod value {text:?}"));
        if text.starts_with(|c: char| c.is_ascii_digit()) {
            let mode = u32::from_str_radix(text, 8).map_err(|_| invalid())?;
            return if mode <= 0o7777 { Ok(Self::Set(mode)) } else { Err(invalid()) };
        }
        let mut clauses = Vec::new();
        for clause in text.split(',') {
            let start = clause.find(['+', '-', '=']).ok_or_else(invalid)?;
            let mut who = 0;
            for letter in clause[..start].chars() {
                who |= match letter {
                    'u' => 0o4700,
                    'g' => 0o2070,
                    'o' => 0o1007,
                    'a' => 0o7777,
                    _ => return Err(invalid()),
                };
            }
            let who = if who == 0 { 0o7777 } else { who };
            let mut rest = &clause[start..];
            while let Some(action) = rest.chars().next() {
                let end = rest[1..].find(['+', '-', '=']).map_or(rest.len(), |at| at + 1);
                clauses.push(Clause::parse(who, action, &rest[1..end]).ok_or_else(invalid)?);
                rest = &rest[end..];
            }
        }
        Ok(Self::Clauses(clauses))
    }

    pub(super) fn apply(&self, mode: u32, directory: bool) -> u32 {
        match self {
            Self::Set(mode) => *mode,
            Self::Clauses(clauses) => {
                clauses.iter().fold(mode, |mode, clause| clause.apply(mode, directory))
            }
        }
    }
}

impl Clause {
    fn parse(who: u32, action: char, letters: &str) -> Option<Self> {
        let mut clause = Self {
            who,
            action,
            bits: 0,
            executable: false,
            setid: false,
            sticky: false,
            copied: None,
        };
        for letter in letters.chars() {
            match letter {
                'r' => clause.bits |= 4,
                'w' => clause.bits |= 2,
                'x' => clause.bits |= 1,
                'X' => clause.executable = true,
                's' => clause.setid = true,
                't' => clause.sticky = true,
                'u' | 'g' | 'o' if letters.len() == 1 => clause.copied = Some(letter),
                _ => return None,
            }
        }
        Some(clause)
    }

    fn apply(&self, mode: u32, directory: bool) -> u32 {
        let mut bits = match self.copied {
            Some('u') => mode >> 6 & 7,
            Some('g') => mode >> 3 & 7,
            Some(_) => mode & 7,
            None => self.bits,
        };
        if self.executable && (directory || mode & 0o111 != 0) {
            bits |= 1;
        }
        let mut wanted = (bits << 6 | bits << 3 | bits) & self.who;
        if self.setid {
            wanted |= 0o6000 & self.who;
        }
        if self.sticky {
            wanted |= 0o1000;
        }
        match self.action {
            '+' => mode | wanted,
            '-' => mode & !wanted,
            _ => {
                mode & !(self.who & 0o777) & !(if self.setid { 0o6000 & self.who } else { 0 })
                    | wanted
            }
        }
    }
}

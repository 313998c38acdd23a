//! Decides, entry by entry of a walk, what of a directory is taken.

use super::{InvalidPattern, ParentMatches, PatternMatcher};

/// What includes and excludes say about an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It belongs to what is wanted.
    Take,
    /// A directory that is not wanted itself, but something below it may be: it is walked, and taken only when something
    /// below it is.
    Enter,
    /// Neither it nor anything below it is wanted.
    Skip,
}

/// What is known about a directory of a walk, for what is in it. [`Default`] is for the root.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DirState {
    include: Option<ParentMatches>,
    exclude: Option<ParentMatches>,
}

/// Includes and excludes of a walk.
#[derive(Clone, Debug)]
pub struct TreeFilter {
    include: Option<PatternMatcher>,
    exclude: PatternMatcher,
}

impl TreeFilter {
    /// Compiles both lists; no include means all.
    pub fn new(include: &[String], exclude: &[String]) -> Result<Self, InvalidPattern> {
        let include = PatternMatcher::new(include)?;
        let include = (!include.is_empty()).then_some(include);
        Ok(Self { include, exclude: PatternMatcher::new(exclude)? })
    }

    /// Decides about an entry by its path from the root of the walk (not the root itself), and returns what is to be handed
    /// on to what is in it.
    pub fn decide(&self, path: &str, is_dir: bool, parent: &DirState) -> (Verdict, DirState) {
        let mut state = DirState::default();
        let mut taken = true;
        if let Some(include) = &self.include {
            let (matched, below) = include.matches_below(path, parent.include.as_ref());
            state.include = Some(below);
            taken = matched;
            let may_enter = is_dir && include.may_match_below(path, false);
            if !(matched || may_enter) {
                return (Verdict::Skip, state);
            }
        }
        let (excluded, below) = self.exclude.matches_below(path, parent.exclude.as_ref());
        state.exclude = Some(below);
        if excluded {
            taken = false;
            if !(is_dir && self.exclude.may_match_below(path, true)) {
                return (Verdict::Skip, state);
            }
        }
        (if taken { Verdict::Take } else { Verdict::Enter }, state)
    }
}

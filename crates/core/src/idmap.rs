//! Maps of user and group ids between a user namespace and the one around it. Pure: who reads or writes `/proc` is others.

use serde::{Deserialize, Serialize};

/// LIMIT: what the kernel takes as one map.
const MAX_RANGES: usize = 340;

/// Ids that follow each other on both sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdRange {
    /// First id inside.
    pub inside: u32,
    /// First id outside.
    pub outside: u32,
    /// How many.
    pub count: u32,
}

/// A map of ids: ranges that overlap on neither side.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdMap(Vec<IdRange>);

/// Why ranges are no map.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidIdMap {
    /// There is nothing in it.
    #[error("an id map has no ranges")]
    Empty,
    /// The kernel takes no more.
    #[error("an id map has {0} ranges; the kernel takes 340")]
    TooMany(usize),
    /// A range is empty, ends beyond the last id, or shares ids with another.
    #[error(
        "the range {inside} {outside} {count} of an id map is empty, too long, or overlaps another one"
    )]
    Range {
        /// First id inside.
        inside: u32,
        /// First id outside.
        outside: u32,
        /// How many.
        count: u32,
    },
    /// A line is not three numbers.
    #[error("line {0:?} of an id map is not three numbers")]
    Line(String),
}

impl IdMap {
    /// Makes a map out of ranges.
    ///
    /// # Errors
    ///
    /// When the kernel would not take it.
    pub fn new(ranges: Vec<IdRange>) -> Result<Self, InvalidIdMap> {
        if ranges.is_empty() {
            return Err(InvalidIdMap::Empty);
        }
        if ranges.len() > MAX_RANGES {
            return Err(InvalidIdMap::TooMany(ranges.len()));
        }
        for (at, range) in ranges.iter().enumerate() {
            let clash = ranges[..at].iter().any(|other| {
                meet((other.inside, other.count), (range.inside, range.count))
                    || meet((other.outside, other.count), (range.outside, range.count))
            });
            // LIMIT: the last id of all means "none".
            let fits = |first: u32| first.checked_add(range.count).is_some();
            if range.count == 0 || clash || !fits(range.inside) || !fits(range.outside) {
                let IdRange { inside, outside, count } = *range;
                return Err(InvalidIdMap::Range { inside, outside, count });
            }
        }
        Ok(Self(ranges))
    }

    /// Reads a map as `/proc/PID/uid_map` shows it.
    ///
    /// # Errors
    ///
    /// When it is not one.
    pub fn parse(text: &str) -> Result<Self, InvalidIdMap> {
        let range = |line: &str| {
            let mut numbers = line.split_whitespace().map(str::parse::<u32>);
            match (numbers.next(), numbers.next(), numbers.next(), numbers.next()) {
                (Some(Ok(inside)), Some(Ok(outside)), Some(Ok(count)), None) => {
                    Ok(IdRange { inside, outside, count })
                }
                _ => Err(InvalidIdMap::Line(line.to_owned())),
            }
        };
        Self::new(text.lines().map(range).collect::<Result<_, _>>()?)
    }

    /// Returns the ranges.
    pub fn ranges(&self) -> &[IdRange] {
        &self.0
    }

    /// Tells whether every id is the same on both sides.
    pub fn is_identity(&self) -> bool {
        self.0.iter().all(|range| range.inside == range.outside)
    }

    /// Returns who an id inside is outside.
    pub fn outside(&self, inside: u32) -> Option<u32> {
        self.find(inside, |range| (range.inside, range.outside))
    }

    /// Returns who an id outside is inside.
    pub fn inside(&self, outside: u32) -> Option<u32> {
        self.find(outside, |range| (range.outside, range.inside))
    }

    fn find(&self, id: u32, sides: impl Fn(&IdRange) -> (u32, u32)) -> Option<u32> {
        self.0.iter().find_map(|range| {
            let (from, to) = sides(range);
            id.checked_sub(from).filter(|offset| *offset < range.count).map(|offset| to + offset)
        })
    }
}

fn meet((a, a_count): (u32, u32), (b, b_count): (u32, u32)) -> bool {
    let end = |first: u32, count: u32| u64::from(first) + u64::from(count);
    u64::from(a) < end(b, b_count) && u64::from(b) < end(a, a_count)
}

/// Writes the map as `/proc/PID/uid_map` takes it.
impl std::fmt::Display for IdMap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|IdRange { inside, outside, count }| {
            writeln!(f, "{inside} {outside} {count}")
        })
    }
}

/// The maps of a user namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdMaps {
    /// Of users.
    pub users: IdMap,
    /// Of groups.
    pub groups: IdMap,
}

impl IdMaps {
    /// Tells whether all ids are the same on both sides.
    pub fn is_identity(&self) -> bool {
        self.users.is_identity() && self.groups.is_identity()
    }

    /// Returns who user and group 0 inside are outside.
    pub fn root(&self) -> Option<(u32, u32)> {
        self.users.outside(0).zip(self.groups.outside(0))
    }
}

#[cfg(test)]
mod tests;

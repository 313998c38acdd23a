//! Limits per process as Docker's users write them: `nofile=1024:2048`.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

#[cfg(test)]
mod tests;

/// What setrlimit(2) knows without its `RLIMIT_`, as Docker names it.
const KNOWN: [&str; 15] = [
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

/// A limit that cannot be.
// COMPAT: Docker's texts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidUlimit {
    /// Not `name=soft[:hard]`.
    #[error("invalid ulimit argument: {0}")]
    Form(String),
    /// A name that the kernel does not have.
    #[error("invalid ulimit type: {0}")]
    Name(String),
    /// Not a number.
    #[error("strconv.ParseInt: parsing {0:?}: invalid syntax")]
    Number(String),
    /// More by default than may be had at all.
    #[error("ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}")]
    Order {
        /// The limit that holds at first.
        soft: i64,
        /// How far a process may raise it.
        hard: i64,
    },
}

/// A limit per process, see setrlimit(2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ulimit {
    /// As in `nofile`.
    pub name: String,
    /// Soft limit, -1 without bound.
    pub soft: i64,
    /// Hard limit, -1 without bound.
    pub hard: i64,
}

impl Ulimit {
    /// A limit whose soft value is not above its hard one; the name is not looked at.
    ///
    /// # Errors
    /// [`InvalidUlimit::Order`].
    pub fn new(name: String, soft: i64, hard: i64) -> Result<Self, InvalidUlimit> {
        match hard != -1 && (soft == -1 || soft > hard) {
            true => Err(InvalidUlimit::Order { soft, hard }),
            false => Ok(Self { name, soft, hard }),
        }
    }

    /// The resource as setrlimit(2) and the OCI runtime specification name it: `RLIMIT_NOFILE`.
    ///
    /// # Errors
    /// [`InvalidUlimit::Name`].
    pub fn resource(&self) -> Result<String, InvalidUlimit> {
        // The one that the kernel has and Docker's users cannot name: requests over the API may.
        if self.name != "as" {
            known(&self.name)?;
        }
        Ok(format!("RLIMIT_{}", self.name.to_ascii_uppercase()))
    }
}

fn known(name: &str) -> Result<(), InvalidUlimit> {
    match KNOWN.contains(&name) {
        true => Ok(()),
        false => Err(InvalidUlimit::Name(name.to_owned())),
    }
}

impl FromStr for Ulimit {
    type Err = InvalidUlimit;

    /// Reads `name=soft[:hard]`.
    fn from_str(text: &str) -> Result<Self, InvalidUlimit> {
        let (name, limits) =
            text.split_once('=').ok_or_else(|| InvalidUlimit::Form(text.to_owned()))?;
        known(name)?;
        let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
        let number =
            |text: &str| text.parse::<i64>().map_err(|_| InvalidUlimit::Number(text.to_owned()));
        Self::new(name.to_owned(), number(soft)?, number(hard)?)
    }
}

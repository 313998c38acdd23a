//! Rights per repository: a list of rules, any of which allows. What no rule allows is not allowed.

use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};

use serde::Deserialize;

use super::{Access, Actor};
use crate::config::fits;
use crate::error::{Error, Result};

/// One rule.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    /// User; `*`: every user; `anonymous`: everybody.
    user: String,
    /// A repository's name, in which `*` stands for anything.
    repository: String,
    actions: Vec<Action>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Action {
    Pull,
    Push,
    Delete,
    /// All of these, and the catalog where the repository is `*`.
    Admin,
}

/// The rules of one file.
pub(crate) struct Policy {
    path: PathBuf,
    rules: RwLock<Vec<Rule>>,
}

impl Policy {
    /// Reads the file; blocking.
    pub(crate) fn load(path: &Path) -> Result<Self> {
        Ok(Self { path: path.to_owned(), rules: RwLock::new(read(path)?) })
    }

    /// Reads the file again; when it is wrong, the rules stay. Blocking.
    pub(crate) fn reload(&self) {
        match read(&self.path) {
            Ok(fresh) => *self.rules.write().unwrap_or_else(PoisonError::into_inner) = fresh,
            Err(error) => tracing::warn!(%error, "the policy stays as it was"),
        }
    }

    /// Tells whether somebody may do all of an access.
    pub(crate) fn allows(&self, actor: &Actor, access: &Access) -> bool {
        access.actions.iter().all(|action| self.allows_one(actor, access, action))
    }

    /// Returns the part of an access that somebody may have.
    pub(crate) fn granted(&self, actor: &Actor, access: &Access) -> Access {
        let mut granted = access.clone();
        granted.actions.retain(|action| self.allows_one(actor, access, action));
        granted
    }

    fn allows_one(&self, actor: &Actor, access: &Access, action: &str) -> bool {
        let wanted = match action {
            "pull" => Action::Pull,
            "push" => Action::Push,
            "delete" => Action::Delete,
            _ => Action::Admin,
        };
        let rules = self.rules.read().unwrap_or_else(PoisonError::into_inner);
        rules.iter().any(|rule| {
            let is_for = match (&*rule.user, actor) {
                ("anonymous", _) | ("*", Actor::User(_)) => true,
                (user, Actor::User(name)) => user == name,
                (_, Actor::Anonymous) => false,
            };
            let fits = match &*access.kind {
                "repository" => fits(&rule.repository, &access.name),
                _ => rule.repository == "*",
            };
            is_for && fits && rule.actions.iter().any(|own| *own == wanted || *own == Action::Admin)
        })
    }
}

fn read(path: &Path) -> Result<Vec<Rule>> {
    let failed = |error: &dyn std::fmt::Display| {
        Error::Config(format!("cannot use the policy {}: {error}", path.display()))
    };
    let text = std::fs::read(path).map_err(|error| failed(&error))?;
    serde_json::from_slice(&text).map_err(|error| failed(&error))
}

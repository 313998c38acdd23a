//! What files offer: targets, groups and variables, as lists for people and programs.

use hcl::expr::{Expression, FuncCall};
use serde::Serialize;
use serde_json::Value;

use super::{Defined, Request, with_definitions};
use crate::document::Variable;
use crate::eval::{Evaluator, Locals, text};
use crate::{Error, File};

/// A target or a group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ListedTarget {
    /// Name.
    pub name: String,
    /// What it is, for people; of a group also what it consists of.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// It is a group.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub group: bool,
}

/// A variable.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ListedVariable {
    /// Name.
    pub name: String,
    /// What it is, for people.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// The type that it says it has, in words.
    #[serde(rename = "type", skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// Its value, a list or map as JSON; `None` when it must get one from outside.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
}

/// Lists targets and groups by name. Names that begin with `_` are private to their files.
pub fn list_targets(files: &[File], request: &Request) -> Result<Vec<ListedTarget>, Error> {
    with_definitions(files, request, |defined, _, _| Ok(targets(defined)))
}

fn targets(defined: &Defined) -> Vec<ListedTarget> {
    let targets = defined.targets.iter().map(|(name, (target, _))| ListedTarget {
        name: name.clone(),
        description: target.text("description").unwrap_or_default().to_owned(),
        group: false,
    });
    let groups = defined.groups.iter().map(|(name, group)| {
        let mut members = group.targets.clone();
        members.sort();
        let members = members.join(", ");
        let description = match (group.description.as_str(), members.is_empty()) {
            (said, true) => said.to_owned(),
            ("", false) => members,
            (said, false) => format!("{said} ({members})"),
        };
        ListedTarget { name: name.clone(), description, group: true }
    });
    let mut all: Vec<ListedTarget> =
        targets.chain(groups).filter(|listed| !listed.name.starts_with('_')).collect();
    all.sort_by(|one, other| one.name.cmp(&other.name));
    all
}

/// Lists variables by name, with the values that they have now.
pub fn list_variables(files: &[File], request: &Request) -> Result<Vec<ListedVariable>, Error> {
    with_definitions(files, request, |_, document, evaluator| {
        let all = document.variables.iter();
        all.map(|(name, variable)| listed(name, variable, evaluator)).collect()
    })
}

fn listed(
    name: &str,
    variable: &Variable,
    evaluator: &Evaluator<'_>,
) -> Result<ListedVariable, Error> {
    let eval = |expression: &Expression| {
        let value = evaluator.eval(expression, &Locals::new());
        value.map_err(|why| Error::invalid(format!("variable {name:?}: {why}")))
    };
    let description = variable.description.as_ref().map(&eval).transpose()?;
    let description = description.and_then(|value| text(&value).ok()).unwrap_or_default();
    let kind = variable.kind.as_ref().map(type_name).unwrap_or_default();
    let own = hcl::expr::Variable::new(name)
        .map_err(|why| Error::invalid(format!("variable {name:?}: {why}")))?;
    let value = match eval(&Expression::Variable(own))? {
        // COMPAT: without a type an absent value is an empty text.
        Value::Null if kind.is_empty() => Some(String::new()),
        Value::Null => None,
        Value::String(text) => Some(text),
        other => Some(other.to_string()),
    };
    Ok(ListedVariable { name: name.to_owned(), description, kind, value })
}

/// A type in words: `list of string`.
fn type_name(expression: &Expression) -> String {
    match expression {
        // COMPAT: how buildx calls the type that every value has.
        Expression::Variable(name) if name.as_str() == "any" => "dynamic".to_owned(),
        Expression::Variable(name) => name.to_string(),
        Expression::FuncCall(call) => call_name(call),
        other => other.to_string(),
    }
}

fn call_name(call: &FuncCall) -> String {
    let name = call.name.name.to_string();
    match (name.as_str(), call.args.first()) {
        ("list" | "set" | "map", Some(inner)) => format!("{name} of {}", type_name(inner)),
        ("optional", Some(inner)) => type_name(inner),
        _ => name,
    }
}

#[cfg(test)]
mod tests;

//! From files to a plan: which builds there are, what each inherits, and which of them were asked for.

mod listing;

use std::collections::{BTreeMap, BTreeSet};

use hcl::expr::Expression;
use serde_json::{Map, Value, json};

use crate::document::{Document, RawBlock, Variable};
use crate::eval::{Evaluator, Found, Locals, Names, UserFunction, pairs, text, truth};
use crate::target::{Override, Target};
use crate::{Error, File, compose};

pub use listing::{ListedTarget, ListedVariable, list_targets, list_variables};

/// Most targets that a matrix may make.
///
/// LIMIT: lists of a matrix multiply.
const MAX_MATRIX: usize = 1000;

/// What is asked for.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// Names of targets and groups, perhaps with wildcards; `default` when empty.
    pub targets: Vec<String>,
    /// Values of `--set`: `target.key=value`.
    pub overrides: Vec<String>,
    /// Variables from outside: the environment, and `--var`.
    pub environment: BTreeMap<String, String>,
    /// The builder's own platform, for `BAKE_LOCAL_PLATFORM`.
    pub local_platform: String,
    /// Seconds since the epoch, for `timestamp()`.
    pub now: u64,
}

/// What is to be built.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Groups that led to the targets, with what they name.
    pub groups: BTreeMap<String, Group>,
    /// Builds by name, those included that others need.
    pub targets: BTreeMap<String, Target>,
}

/// A name for several builds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Group {
    /// What it is, for people; may be empty.
    pub description: String,
    /// Targets and groups.
    pub targets: Vec<String>,
}

impl Group {
    fn document(&self) -> Value {
        let mut document = Map::new();
        if !self.description.is_empty() {
            document.insert("description".to_owned(), Value::from(&*self.description));
        }
        document.insert("targets".to_owned(), Value::from(&*self.targets));
        Value::Object(document)
    }
}

impl Plan {
    /// As `--print` shows it.
    pub fn json(&self) -> String {
        let groups: Map<String, Value> =
            self.groups.iter().map(|(name, group)| (name.clone(), group.document())).collect();
        let targets: Map<String, Value> =
            self.targets.iter().map(|(name, target)| (name.clone(), target.document())).collect();
        let mut document = Map::new();
        if !groups.is_empty() {
            document.insert("group".to_owned(), Value::Object(groups));
        }
        document.insert("target".to_owned(), Value::Object(targets));
        serde_json::to_string_pretty(&document).unwrap_or_default()
    }
}

/// Reads files, later ones adding to earlier ones, and works out what was asked for.
pub fn plan(files: &[File], request: &Request) -> Result<Plan, Error> {
    with_definitions(files, request, |defined, _, _| defined.choose(request))
}

/// Hands on what files define.
fn with_definitions<T>(
    files: &[File],
    request: &Request,
    then: impl FnOnce(&Defined, &Document, &Evaluator<'_>) -> Result<T, Error>,
) -> Result<T, Error> {
    let mut document = Document::default();
    let mut composed = Vec::new();
    for file in files {
        if compose::is_compose(file) {
            composed.push(compose::read(file, &request.environment)?);
        } else {
            document.add(file)?;
        }
    }
    let world = World { document: &document, request };
    let evaluator = Evaluator::new(&world);
    world.validate(&evaluator)?;
    let mut defined = Defined::default();
    for services in composed {
        defined.add_group("default", services.iter().map(|(name, _)| name.clone()).collect());
        for (name, target) in services {
            defined.add_target(name, (target, None));
        }
    }
    for block in &document.targets {
        defined.read_target(block, &evaluator)?;
    }
    for block in &document.groups {
        defined.read_group(block, &evaluator)?;
    }
    then(&defined, &document, &evaluator)
}

/// What names mean in the files.
struct World<'a> {
    document: &'a Document,
    request: &'a Request,
}

impl World<'_> {
    /// Checks values of variables against their conditions.
    fn validate(&self, evaluator: &Evaluator<'_>) -> Result<(), Error> {
        for (name, variable) in &self.document.variables {
            for (condition, message) in &variable.validations {
                let holds =
                    evaluator.eval(condition, &Locals::new()).and_then(|value| truth(&value));
                if !holds.map_err(Error::Invalid)? {
                    let said =
                        message.as_ref().map(|message| evaluator.eval(message, &Locals::new()));
                    let said = said.transpose().map_err(Error::Invalid)?;
                    let said = said.and_then(|value| text(&value).ok());
                    let said = said.unwrap_or_else(|| "the condition does not hold".to_owned());
                    return Err(Error::invalid(format!(
                        "variable {name:?}: Validation failed; {said}"
                    )));
                }
            }
        }
        Ok(())
    }
}

impl Names for World<'_> {
    fn find(&self, name: &str) -> Option<Found> {
        if let Some(variable) = self.document.variables.get(name) {
            if let Some(given) = self.request.environment.get(name) {
                return Some(given_value(variable, given));
            }
            let default = variable.default.clone().unwrap_or(Expression::Null);
            return Some(Found::Expression(default));
        }
        if let Some(global) = self.document.globals.get(name) {
            return Some(Found::Expression(global.clone()));
        }
        match name {
            "BAKE_CMD_CONTEXT" => Some(Found::Value(Value::from("cwd://"))),
            "BAKE_LOCAL_PLATFORM" => Some(Found::Value(Value::from(&*self.request.local_platform))),
            _ => None,
        }
    }

    fn target_attribute(&self, target: &str, attribute: &str) -> Option<Expression> {
        let mut named = self.document.targets.iter().rev().filter(|block| block.name == target);
        named.find_map(|block| block.attributes.get(attribute).cloned())
    }

    fn function(&self, name: &str) -> Option<&UserFunction> {
        self.document.functions.get(name)
    }

    fn now(&self) -> u64 {
        self.request.now
    }
}

/// The value of a variable from outside has the type of its default, or the one that it says.
fn given_value(variable: &Variable, given: &str) -> Found {
    let named = |name: &str| match &variable.kind {
        Some(Expression::Variable(kind)) => kind.as_str() == name,
        _ => false,
    };
    let is_list = matches!(
        (&variable.kind, &variable.default),
        (Some(Expression::FuncCall(_)), _)
            | (None, Some(Expression::Array(_) | Expression::Object(_)))
    );
    let default = variable.default.as_ref().filter(|_| variable.kind.is_none());
    let text = || Value::from(given);
    let value = if named("bool") || matches!(default, Some(Expression::Bool(_))) {
        match given {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Value::Bool(true),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Value::Bool(false),
            _ => text(),
        }
    } else if named("number") || matches!(default, Some(Expression::Number(_))) {
        given.parse::<f64>().map_or_else(|_| text(), crate::eval::number)
    } else if is_list {
        serde_json::from_str(given).unwrap_or_else(|_| given.split(',').collect())
    } else {
        text()
    };
    Found::Value(value)
}

/// All targets and groups, with values.
#[derive(Default)]
struct Defined {
    /// With the names that each inherits from.
    targets: BTreeMap<String, (Target, Option<Vec<String>>)>,
    order: Vec<String>,
    groups: BTreeMap<String, Group>,
}

impl Defined {
    fn add_group(&mut self, name: &str, targets: Vec<String>) {
        let group = self.groups.entry(name.to_owned()).or_default();
        for target in targets {
            if !group.targets.contains(&target) {
                group.targets.push(target);
            }
        }
    }

    fn add_target(&mut self, name: String, (target, inherits): (Target, Option<Vec<String>>)) {
        if let Some((known, known_inherits)) = self.targets.get_mut(&name) {
            known.merge(&target);
            *known_inherits = inherits.or_else(|| known_inherits.take());
        } else {
            self.order.push(name.clone());
            self.targets.insert(name, (target, inherits));
        }
    }

    fn read_target(&mut self, block: &RawBlock, evaluator: &Evaluator<'_>) -> Result<(), Error> {
        let fail = |why: String| Error::invalid(format!("target {:?}: {why}", block.name));
        let Some(matrix) = block.attributes.get("matrix") else {
            if block.attributes.contains_key("name") {
                return Err(fail("name requires matrix".to_owned()));
            }
            check_name(&block.name)?;
            let read = read_attributes(block, evaluator, &Locals::new()).map_err(fail)?;
            self.add_target(block.name.clone(), read);
            return Ok(());
        };
        let mut names = Vec::new();
        for locals in
            combinations(&evaluator.eval(matrix, &Locals::new()).map_err(fail)?).map_err(fail)?
        {
            let name = match block.attributes.get("name") {
                Some(name) => {
                    evaluator.eval(name, &locals).and_then(|name| text(&name)).map_err(fail)?
                }
                None => block.name.clone(),
            };
            check_name(&name)?;
            let read = read_attributes(block, evaluator, &locals).map_err(fail)?;
            if names.contains(&name) {
                return Err(fail(format!("duplicate target name {name:?} of its matrix")));
            }
            names.push(name.clone());
            self.add_target(name, read);
        }
        if names != [block.name.clone()] {
            self.add_group(&block.name, names);
        }
        Ok(())
    }

    fn read_group(&mut self, block: &RawBlock, evaluator: &Evaluator<'_>) -> Result<(), Error> {
        let fail = |why: String| Error::invalid(format!("group {:?}: {why}", block.name));
        check_name(&block.name)?;
        let (mut targets, mut description) = (Vec::new(), String::new());
        for (key, expression) in &block.attributes {
            match key.as_str() {
                "targets" => {
                    let value = evaluator.eval(expression, &Locals::new()).map_err(fail)?;
                    targets = text_list(&value).map_err(fail)?;
                }
                "description" => {
                    let value = evaluator.eval(expression, &Locals::new()).map_err(fail)?;
                    description = text(&value).map_err(fail)?;
                }
                other => return Err(fail(format!("it cannot have the attribute {other:?}"))),
            }
        }
        self.add_group(&block.name, targets);
        if let Some(group) = self.groups.get_mut(&block.name)
            && !description.is_empty()
        {
            group.description = description;
        }
        Ok(())
    }

    /// Names that a pattern means: a group, a target, or all targets that match.
    fn matching(&self, pattern: &str) -> Result<Vec<String>, Error> {
        let known = |name: &str| self.groups.contains_key(name) || self.targets.contains_key(name);
        if known(pattern) {
            return Ok(vec![pattern.to_owned()]);
        }
        let names = self.order.iter().chain(self.groups.keys());
        let found: Vec<String> = names.filter(|name| glob(pattern, name)).cloned().collect();
        match found.is_empty() {
            true => Err(Error::NotFound(format!("failed to find target {pattern}"))),
            false => Ok(found),
        }
    }

    fn choose(&self, request: &Request) -> Result<Plan, Error> {
        let overrides = self.overrides(request)?;
        let asked = if request.targets.is_empty() {
            vec!["default".to_owned()]
        } else {
            request.targets.clone()
        };
        let mut wanted: Vec<String> = Vec::new();
        for pattern in &asked {
            for name in self.matching(pattern)? {
                if !wanted.contains(&name) {
                    wanted.push(name);
                }
            }
        }
        let mut plan = Plan::default();
        for name in &wanted {
            let mut open = vec![name.clone()];
            let mut seen = BTreeSet::new();
            while let Some(name) = open.pop() {
                if !seen.insert(name.clone()) {
                    continue;
                }
                if let Some(group) = self.groups.get(&name) {
                    plan.groups.insert(name.clone(), group.clone());
                    let members = &group.targets;
                    // A group may be named like one of its targets.
                    open.extend(members.iter().filter(|member| **member != name).cloned());
                    if !members.contains(&name) {
                        continue;
                    }
                }
                let target = self.resolve(&name, &overrides)?;
                plan.targets.insert(name, target);
            }
        }
        let others =
            wanted.iter().filter(|name| *name != "default" || !plan.groups.contains_key("default"));
        let others: Vec<String> = others.cloned().collect();
        let default = plan.groups.entry("default".to_owned()).or_default();
        for name in others {
            if !default.targets.contains(&name) {
                default.targets.push(name);
            }
        }
        default.targets.sort();
        self.add_links(&mut plan, &overrides)?;
        Ok(plan)
    }

    /// Adds builds whose results others take as contexts.
    fn add_links(&self, plan: &mut Plan, overrides: &Overrides) -> Result<(), Error> {
        let mut open: Vec<(String, Vec<String>)> =
            plan.targets.keys().map(|name| (name.clone(), vec![name.clone()])).collect();
        while let Some((name, path)) = open.pop() {
            let links: Vec<String> = plan.targets[&name]
                .map("contexts")
                .into_iter()
                .filter_map(|(_, context)| context.strip_prefix("target:").map(str::to_owned))
                .collect();
            for link in links {
                if link == name {
                    return Err(Error::invalid(format!("target {name} cannot link to itself")));
                }
                if path.contains(&link) {
                    return Err(Error::invalid(format!("infinite loop from {name} to {link}")));
                }
                if !plan.targets.contains_key(&link) {
                    let mut target = self.resolve(&link, overrides)?;
                    target.replace("output", json!([{ "type": "cacheonly" }]));
                    plan.targets.insert(link.clone(), target);
                }
                let inherited =
                    plan.targets[&link].list("entitlements").into_iter().map(Value::from);
                let inherited: Vec<Value> = inherited.collect();
                if let Some(target) = plan.targets.get_mut(&name)
                    && !inherited.is_empty()
                {
                    target.grow("entitlements", inherited);
                    target.normalize();
                }
                let further = [path.as_slice(), std::slice::from_ref(&link)].concat();
                open.push((link, further));
            }
        }
        Ok(())
    }

    fn resolve(&self, name: &str, overrides: &Overrides) -> Result<Target, Error> {
        let mut target = self.inherited(name, overrides, &mut Vec::new())?;
        target.default_text("context", ".");
        target.default_text("dockerfile", "Dockerfile");
        Ok(target)
    }

    fn inherited(
        &self,
        name: &str,
        overrides: &Overrides,
        path: &mut Vec<String>,
    ) -> Result<Target, Error> {
        let Some((own, inherits)) = self.targets.get(name) else {
            return Err(Error::NotFound(format!("failed to find target {name}")));
        };
        path.push(name.to_owned());
        let mut target = Target::default();
        for parent in inherits.iter().flatten() {
            // What is already on the way adds nothing.
            if !path.contains(parent) {
                target.merge(&self.inherited(parent, overrides, path)?);
            }
        }
        path.pop();
        target.merge(own);
        for (key, change) in overrides.get(name).into_iter().flatten() {
            target.change(key, change)?;
        }
        target.normalize();
        Ok(target)
    }

    fn overrides(&self, request: &Request) -> Result<Overrides, Error> {
        let mut overrides = Overrides::new();
        for text in &request.overrides {
            let (key, value) = match text.split_once('=') {
                Some((key, value)) => (key, Some(value.to_owned())),
                None => (text.as_str(), None),
            };
            let (key, append) = key.strip_suffix('+').map_or((key, false), |key| (key, true));
            let Some((pattern, key)) = key.split_once('.') else {
                return Err(Error::invalid(format!(
                    "invalid override key {key}, expected target.name"
                )));
            };
            // `--set x.args.NAME` takes the value from the environment.
            let from_outside = key.strip_prefix("args.").filter(|_| value.is_none());
            let value = value
                .or_else(|| from_outside.and_then(|name| request.environment.get(name).cloned()));
            let Some(value) = value else {
                if from_outside.is_some() {
                    continue;
                }
                return Err(Error::invalid(format!(
                    "invalid override {text}, expected target.name=value"
                )));
            };
            let names: Vec<&String> = match self.targets.get_key_value(pattern) {
                Some((name, _)) => vec![name],
                None => self.order.iter().filter(|name| glob(pattern, name)).collect(),
            };
            if names.is_empty() {
                return Err(Error::NotFound(format!(
                    "could not find any target matching '{pattern}'"
                )));
            }
            for name in names {
                let of_target = overrides.entry(name.clone()).or_default();
                let one: &mut Override = of_target.entry(key.to_owned()).or_default();
                one.values.push(value.clone());
                one.append |= append;
            }
        }
        Ok(overrides)
    }
}

type Overrides = BTreeMap<String, BTreeMap<String, Override>>;

fn read_attributes(
    block: &RawBlock,
    evaluator: &Evaluator<'_>,
    locals: &Locals,
) -> Result<(Target, Option<Vec<String>>), String> {
    let mut target = Target::default();
    let mut inherits = None;
    for (key, expression) in &block.attributes {
        match key.as_str() {
            "name" | "matrix" => {}
            "inherits" => inherits = Some(text_list(&evaluator.eval(expression, locals)?)?),
            key => target.set(key, evaluator.eval(expression, locals)?)?,
        }
    }
    Ok((target, inherits))
}

fn text_list(value: &Value) -> Result<Vec<String>, String> {
    pairs(value)?.into_iter().map(|(_, item)| text(&item)).collect()
}

/// All combinations of the values of a matrix.
fn combinations(matrix: &Value) -> Result<Vec<Locals>, String> {
    let Value::Object(_) = matrix else { return Err("matrix must be a map".to_owned()) };
    let mut all = vec![Locals::new()];
    for (key, values) in pairs(matrix)? {
        let values = pairs(&values)?;
        if all.len().saturating_mul(values.len()) > MAX_MATRIX {
            return Err(format!("a matrix may make {MAX_MATRIX} targets"));
        }
        let key = text(&key)?;
        let with = |locals: &Locals| {
            let longer = values.iter().map(|(_, value)| {
                let mut locals = locals.clone();
                locals.insert(key.clone(), value.clone());
                locals
            });
            longer.collect::<Vec<_>>()
        };
        all = all.iter().flat_map(with).collect();
    }
    Ok(all)
}

fn check_name(name: &str) -> Result<(), Error> {
    let valid =
        !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
    match valid {
        true => Ok(()),
        false => {
            Err(Error::invalid(format!("invalid name {name:?}: only \"a-zA-Z0-9_-\" are allowed")))
        }
    }
}

/// `*` and `?` in names.
fn glob(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) =
        (pattern.chars().collect(), name.chars().collect());
    let mut reached = vec![false; name.len() + 1];
    reached[0] = true;
    for token in pattern {
        let mut next = vec![false; name.len() + 1];
        let mut running = false;
        for at in 0..=name.len() {
            match token {
                '*' => {
                    running |= reached[at];
                    next[at] = running;
                }
                token if reached[at] && at < name.len() && (token == '?' || token == name[at]) => {
                    next[at + 1] = true;
                }
                _ => {}
            }
        }
        reached = next;
    }
    reached[name.len()]
}

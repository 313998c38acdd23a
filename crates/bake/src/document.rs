//! Bake files as they are written: variables, functions, groups and targets, with expressions that have no value yet.

use std::collections::BTreeMap;

use hcl::expr::{Expression, ObjectKey, TemplateExpr};
use hcl::{Block, Body, Structure};
use serde_json::Value;

use crate::eval::UserFunction;
use crate::{Error, File};

/// All files together.
#[derive(Clone, Debug, Default)]
pub(crate) struct Document {
    pub(crate) variables: BTreeMap<String, Variable>,
    pub(crate) globals: BTreeMap<String, Expression>,
    pub(crate) functions: BTreeMap<String, UserFunction>,
    pub(crate) groups: Vec<RawBlock>,
    pub(crate) targets: Vec<RawBlock>,
}

/// A variable.
#[derive(Clone, Debug, Default)]
pub(crate) struct Variable {
    pub(crate) default: Option<Expression>,
    pub(crate) kind: Option<Expression>,
    pub(crate) description: Option<Expression>,
    /// Conditions that its value must fulfil, with what is said otherwise.
    pub(crate) validations: Vec<(Expression, Option<Expression>)>,
}

/// A group or a target.
#[derive(Clone, Debug)]
pub(crate) struct RawBlock {
    pub(crate) name: String,
    pub(crate) attributes: BTreeMap<String, Expression>,
}

impl Document {
    /// Adds an HCL or JSON file.
    pub(crate) fn add(&mut self, file: &File) -> Result<(), Error> {
        let fail = |message: String| Error::Syntax { file: file.name.clone(), message };
        if file.name.to_lowercase().strip_suffix(".json").is_some()
            || file.text.trim_start().starts_with('{')
        {
            let value: Value =
                serde_json::from_str(&file.text).map_err(|why| fail(why.to_string()))?;
            return self.add_json(&value).map_err(fail);
        }
        let body = hcl::parse(&file.text).map_err(|why| fail(why.to_string()))?;
        self.add_body(body).map_err(fail)
    }

    fn add_body(&mut self, body: Body) -> Result<(), String> {
        for structure in body {
            match structure {
                Structure::Attribute(attribute) => {
                    self.globals.insert(attribute.key.to_string(), attribute.expr);
                }
                Structure::Block(block) => self.add_block(block)?,
            }
        }
        Ok(())
    }

    fn add_block(&mut self, block: Block) -> Result<(), String> {
        let kind = block.identifier.to_string();
        let [label] = &block.labels[..] else {
            return Err(format!("a {kind} block has exactly one name"));
        };
        let name = label.as_str().to_owned();
        let mut validations = Vec::new();
        for inner in block.body.blocks() {
            if kind != "variable" || inner.identifier.as_str() != "validation" {
                return Err(format!(
                    "{kind} {name:?} cannot have a block {:?}",
                    inner.identifier.as_str()
                ));
            }
            let find = |key: &str| {
                let found = inner.body.attributes().find(|attribute| attribute.key.as_str() == key);
                found.map(|attribute| attribute.expr.clone())
            };
            let condition = find("condition").ok_or("a validation needs a condition")?;
            validations.push((condition, find("error_message")));
        }
        let attributes = block.body.into_attributes();
        let attributes =
            attributes.map(|attribute| (attribute.key.to_string(), attribute.expr)).collect();
        self.add_named(&kind, RawBlock { name, attributes }, validations)
    }

    fn add_named(
        &mut self,
        kind: &str,
        mut block: RawBlock,
        validations: Vec<(Expression, Option<Expression>)>,
    ) -> Result<(), String> {
        match kind {
            "group" => self.groups.push(block),
            "target" => self.targets.push(block),
            "variable" => {
                let default = block.attributes.remove("default");
                let kind = block.attributes.remove("type");
                let description = block.attributes.remove("description");
                refuse_rest("variable", &block)?;
                let variable = Variable { default, kind, description, validations };
                self.variables.insert(block.name, variable);
            }
            "function" => {
                let result = block.attributes.remove("result");
                let result =
                    result.ok_or_else(|| format!("function {:?} has no result", block.name))?;
                let params = block.attributes.remove("params");
                let params = params.map_or(Ok(Vec::new()), |params| names(&params))?;
                let variadic = match block.attributes.remove("variadic_params") {
                    Some(Expression::Array(list)) if list.len() == 1 => Some(name(&list[0])?),
                    Some(other) => Some(name(&other)?),
                    None => None,
                };
                refuse_rest("function", &block)?;
                self.functions.insert(block.name, UserFunction { params, variadic, result });
            }
            other => {
                return Err(format!(
                    "Unsupported block type; Blocks of type {other:?} are not expected here."
                ));
            }
        }
        Ok(())
    }

    fn add_json(&mut self, value: &Value) -> Result<(), String> {
        let Value::Object(document) = value else {
            return Err("a bake file is an object".to_owned());
        };
        for (kind, value) in document {
            let named = matches!(kind.as_str(), "group" | "target" | "variable" | "function");
            if !named {
                self.globals.insert(kind.clone(), json_expression(value));
                continue;
            }
            let Value::Object(blocks) = value else {
                return Err(format!("{kind:?} is an object of named blocks"));
            };
            for (name, block) in blocks {
                let Value::Object(attributes) = block else {
                    return Err(format!("{kind} {name:?} is an object"));
                };
                let attributes = attributes.iter();
                let attributes =
                    attributes.map(|(key, value)| (key.clone(), json_expression(value))).collect();
                let block = RawBlock { name: name.clone(), attributes };
                self.add_named(kind, block, Vec::new())?;
            }
        }
        Ok(())
    }
}

fn refuse_rest(kind: &str, block: &RawBlock) -> Result<(), String> {
    match block.attributes.keys().next() {
        Some(key) => Err(format!("{kind} {:?} cannot have the attribute {key:?}", block.name)),
        None => Ok(()),
    }
}

fn names(list: &Expression) -> Result<Vec<String>, String> {
    match list {
        Expression::Array(list) => list.iter().map(name).collect(),
        other => Err(format!("a list of names is required, not {other}")),
    }
}

fn name(expression: &Expression) -> Result<String, String> {
    match expression {
        Expression::Variable(name) => Ok(name.to_string()),
        Expression::String(name) => Ok(name.clone()),
        other => Err(format!("a name is required, not {other}")),
    }
}

/// Texts of JSON are templates.
fn json_expression(value: &Value) -> Expression {
    match value {
        Value::Null => Expression::Null,
        Value::Bool(value) => Expression::Bool(*value),
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(whole), _) => Expression::Number(whole.into()),
            (None, Some(float)) => {
                hcl::Number::from_f64(float).map_or(Expression::Null, Expression::Number)
            }
            (None, None) => Expression::Null,
        },
        Value::String(text) if text.contains("${") || text.contains("%{") => {
            Expression::TemplateExpr(Box::new(TemplateExpr::QuotedString(text.clone())))
        }
        Value::String(text) => Expression::String(text.clone()),
        Value::Array(items) => Expression::Array(items.iter().map(json_expression).collect()),
        Value::Object(map) => {
            let pairs = map.iter().map(|(key, value)| {
                let key = Expression::String(key.clone());
                (ObjectKey::Expression(key), json_expression(value))
            });
            Expression::Object(pairs.collect())
        }
    }
}

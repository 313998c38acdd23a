//! Expressions of HCL with the values they have in a bake file.
//!
//! Variables are evaluated when they are first used. Time and memory of an evaluation are bounded: a file may come from
//! anywhere.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use hcl::expr::{
    BinaryOp, BinaryOperator, Expression, ForExpr, ObjectKey, Operation, TemplateExpr, Traversal,
    TraversalOperator, UnaryOperator,
};
use hcl::template::{Directive, Element, Strip, Template};
use serde_json::{Map, Number, Value};

use crate::functions;

/// Most steps of an evaluation.
///
/// LIMIT: nested `for` over long lists would take forever.
const MAX_STEPS: u32 = 1_000_000;

/// Deepest nesting of expressions and calls.
///
/// LIMIT: each level takes stack; functions may call themselves.
const MAX_DEPTH: u32 = 100;

/// Longest text or list that an expression may make.
///
/// LIMIT: memory.
pub(crate) const MAX_SIZE: usize = 1 << 20;

/// A function of a bake file.
#[derive(Clone, Debug)]
pub(crate) struct UserFunction {
    pub(crate) params: Vec<String>,
    pub(crate) variadic: Option<String>,
    pub(crate) result: Expression,
}

/// What names mean.
pub(crate) trait Names {
    /// The expression of a variable or a global, or its value when it came from outside.
    fn find(&self, name: &str) -> Option<Found>;
    /// An attribute of a target.
    fn target_attribute(&self, target: &str, attribute: &str) -> Option<Expression>;
    /// A function of the file.
    fn function(&self, name: &str) -> Option<&UserFunction>;
    /// Seconds since the epoch, for `timestamp()`.
    fn now(&self) -> u64;
}

/// A name that was found.
pub(crate) enum Found {
    /// It has to be evaluated.
    Expression(Expression),
    /// It has a value.
    Value(Value),
}

/// Evaluates expressions.
pub(crate) struct Evaluator<'a> {
    names: &'a dyn Names,
    known: RefCell<BTreeMap<String, Option<Value>>>,
    steps: Cell<u32>,
    depth: Cell<u32>,
}

/// Names inside a `for`, a function or a matrix.
pub(crate) type Locals = BTreeMap<String, Value>;

type Outcome = Result<Value, String>;

impl<'a> Evaluator<'a> {
    pub(crate) fn new(names: &'a dyn Names) -> Self {
        Self {
            names,
            known: RefCell::new(BTreeMap::new()),
            steps: Cell::new(0),
            depth: Cell::new(0),
        }
    }

    pub(crate) fn eval(&self, expression: &Expression, locals: &Locals) -> Outcome {
        self.steps.set(self.steps.get() + 1);
        if self.steps.get() > MAX_STEPS {
            return Err(format!("the file takes more than {MAX_STEPS} steps to evaluate"));
        }
        if self.depth.get() >= MAX_DEPTH {
            return Err(format!("expressions nest deeper than {MAX_DEPTH}"));
        }
        self.depth.set(self.depth.get() + 1);
        let value = self.inner(expression, locals);
        self.depth.set(self.depth.get() - 1);
        value
    }

    fn inner(&self, expression: &Expression, locals: &Locals) -> Outcome {
        match expression {
            Expression::Null => Ok(Value::Null),
            Expression::Bool(value) => Ok(Value::Bool(*value)),
            Expression::Number(number) => Ok(number_value(number)),
            Expression::String(text) => Ok(Value::String(text.clone())),
            Expression::Array(items) => items
                .iter()
                .map(|item| self.eval(item, locals))
                .collect::<Result<_, _>>()
                .map(Value::Array),
            Expression::Object(object) => {
                let mut map = Map::new();
                for (key, value) in object {
                    let key = match key {
                        ObjectKey::Identifier(name) => name.to_string(),
                        ObjectKey::Expression(key) => text(&self.eval(key, locals)?)?,
                        _ => return Err("an object has a key of an unknown kind".to_owned()),
                    };
                    map.insert(key, self.eval(value, locals)?);
                }
                Ok(Value::Object(map))
            }
            Expression::TemplateExpr(template) => self.template_expression(template, locals),
            Expression::Variable(name) => self.variable(name.as_str(), locals),
            Expression::Traversal(traversal) => self.traversal(traversal, locals),
            Expression::FuncCall(call) => {
                let name = call.name.name.as_str();
                self.call(name, &call.args, call.expand_final, locals)
            }
            Expression::Parenthesis(inner) => self.eval(inner, locals),
            Expression::Conditional(choice) => match truth(&self.eval(&choice.cond_expr, locals)?)?
            {
                true => self.eval(&choice.true_expr, locals),
                false => self.eval(&choice.false_expr, locals),
            },
            Expression::Operation(operation) => match &**operation {
                Operation::Unary(unary) => {
                    let value = self.eval(&unary.expr, locals)?;
                    match unary.operator {
                        UnaryOperator::Not => Ok(Value::Bool(!truth(&value)?)),
                        UnaryOperator::Neg => Ok(number(-float(&value)?)),
                    }
                }
                Operation::Binary(binary) => self.binary(binary, locals),
            },
            Expression::ForExpr(each) => self.for_each(each, locals),
            _ => Err("the file has an expression of an unknown kind".to_owned()),
        }
    }

    fn variable(&self, name: &str, locals: &Locals) -> Outcome {
        if let Some(value) = locals.get(name) {
            return Ok(value.clone());
        }
        if let Some(known) = self.known.borrow().get(name) {
            return known.clone().ok_or_else(|| format!("variable cycle not allowed for {name}"));
        }
        let value = match self.names.find(name) {
            None => {
                return Err(format!("Unknown variable; There is no variable named {name:?}."));
            }
            Some(Found::Value(value)) => value,
            Some(Found::Expression(expression)) => {
                self.known.borrow_mut().insert(name.to_owned(), None);
                let value = self.eval(&expression, &Locals::new());
                if value.is_err() {
                    self.known.borrow_mut().remove(name);
                }
                value?
            }
        };
        self.known.borrow_mut().insert(name.to_owned(), Some(value.clone()));
        Ok(value)
    }

    fn traversal(&self, traversal: &Traversal, locals: &Locals) -> Outcome {
        let mut operators = traversal.operators.iter();
        let mut value = match (&traversal.expr, &*traversal.operators) {
            (
                Expression::Variable(root),
                [TraversalOperator::GetAttr(target), TraversalOperator::GetAttr(attribute), ..],
            ) if root.as_str() == "target" && !locals.contains_key("target") => {
                operators.next();
                operators.next();
                self.of_target(target.as_str(), attribute.as_str())?
            }
            (root, _) => self.eval(root, locals)?,
        };
        while let Some(operator) = operators.next() {
            value = match operator {
                TraversalOperator::GetAttr(name) => attribute(&value, name.as_str())?,
                TraversalOperator::LegacyIndex(index) => item(&value, &Value::from(*index))?,
                TraversalOperator::Index(index) => item(&value, &self.eval(index, locals)?)?,
                TraversalOperator::AttrSplat | TraversalOperator::FullSplat => {
                    let rest: Vec<TraversalOperator> = operators.by_ref().cloned().collect();
                    return self.splat(value, &rest, locals);
                }
            };
        }
        Ok(value)
    }

    fn splat(&self, value: Value, rest: &[TraversalOperator], locals: &Locals) -> Outcome {
        let items = match value {
            Value::Array(items) => items,
            Value::Null => Vec::new(),
            one => vec![one],
        };
        let each = items.into_iter().map(|mut value| {
            for operator in rest {
                value = match operator {
                    TraversalOperator::GetAttr(name) => attribute(&value, name.as_str())?,
                    TraversalOperator::Index(index) => item(&value, &self.eval(index, locals)?)?,
                    TraversalOperator::LegacyIndex(index) => item(&value, &Value::from(*index))?,
                    _ => return Err("a splat inside a splat is not known".to_owned()),
                };
            }
            Ok(value)
        });
        each.collect::<Result<_, _>>().map(Value::Array)
    }

    fn of_target(&self, target: &str, attribute: &str) -> Outcome {
        let key = format!("target.{target}.{attribute}");
        if let Some(known) = self.known.borrow().get(&key) {
            return known.clone().ok_or_else(|| format!("variable cycle not allowed for {key}"));
        }
        let Some(expression) = self.names.target_attribute(target, attribute) else {
            return Err(format!("target {target:?} has no attribute {attribute:?}"));
        };
        self.known.borrow_mut().insert(key.clone(), None);
        let value = self.eval(&expression, &Locals::new())?;
        self.known.borrow_mut().insert(key, Some(value.clone()));
        Ok(value)
    }

    fn call(&self, name: &str, args: &[Expression], expand: bool, locals: &Locals) -> Outcome {
        match name {
            // These look at whether their arguments can be evaluated at all.
            "try" => {
                let mut tried = args.iter().map(|arg| self.eval(arg, locals));
                return tried
                    .find_map(Result::ok)
                    .map_or_else(|| Err("no expression succeeded".to_owned()), Ok);
            }
            "can" => {
                return Ok(Value::Bool(
                    args.first().is_some_and(|arg| self.eval(arg, locals).is_ok()),
                ));
            }
            _ => {}
        }
        let mut values =
            args.iter().map(|arg| self.eval(arg, locals)).collect::<Result<Vec<_>, _>>()?;
        if expand && let Some(Value::Array(last)) = values.pop() {
            values.extend(last);
        }
        let Some(function) = self.names.function(name) else {
            return functions::call(name, &values, self.names.now());
        };
        let given = values.len();
        let mut inner = Locals::new();
        let mut values = values.into_iter();
        for param in &function.params {
            let value = values.next();
            inner.insert(
                param.clone(),
                value.ok_or_else(|| {
                    format!("function {name:?} needs more than {given} arguments")
                })?,
            );
        }
        let rest: Vec<Value> = values.collect();
        match &function.variadic {
            Some(variadic) => {
                inner.insert(variadic.clone(), Value::Array(rest));
            }
            None if rest.is_empty() => {}
            None => return Err(format!("function {name:?} takes fewer than {given} arguments")),
        }
        self.eval(&function.result, &inner)
    }

    fn binary(&self, binary: &BinaryOp, locals: &Locals) -> Outcome {
        use BinaryOperator as Op;
        let left = self.eval(&binary.lhs_expr, locals)?;
        match (binary.operator, truth(&left)) {
            (Op::And, Ok(false)) => return Ok(Value::Bool(false)),
            (Op::Or, Ok(true)) => return Ok(Value::Bool(true)),
            _ => {}
        }
        let right = self.eval(&binary.rhs_expr, locals)?;
        let numbers = || Ok::<_, String>((float(&left)?, float(&right)?));
        Ok(match binary.operator {
            Op::And | Op::Or => Value::Bool(
                truth(&left)? && truth(&right)? || binary.operator == Op::Or && truth(&right)?,
            ),
            Op::Eq => Value::Bool(equal(&left, &right)),
            Op::NotEq => Value::Bool(!equal(&left, &right)),
            operator => {
                let (a, b) = numbers()?;
                match operator {
                    Op::Plus => number(a + b),
                    Op::Minus => number(a - b),
                    Op::Mul => number(a * b),
                    Op::Div if b == 0.0 => return Err("division by zero".to_owned()),
                    Op::Div => number(a / b),
                    Op::Mod => number(a % b),
                    Op::Less => Value::Bool(a < b),
                    Op::LessEq => Value::Bool(a <= b),
                    Op::Greater => Value::Bool(a > b),
                    _ => Value::Bool(a >= b),
                }
            }
        })
    }

    fn for_each(&self, each: &ForExpr, locals: &Locals) -> Outcome {
        let collection = self.eval(&each.collection_expr, locals)?;
        let mut list = Vec::new();
        let mut map = Map::new();
        for (key, value) in pairs(&collection)? {
            let mut inner = locals.clone();
            if let Some(name) = &each.key_var {
                inner.insert(name.to_string(), key);
            }
            inner.insert(each.value_var.to_string(), value);
            if let Some(condition) = &each.cond_expr
                && !truth(&self.eval(condition, &inner)?)?
            {
                continue;
            }
            let value = self.eval(&each.value_expr, &inner)?;
            let Some(key) = &each.key_expr else {
                list.push(value);
                continue;
            };
            let key = text(&self.eval(key, &inner)?)?;
            if !each.grouping {
                map.insert(key, value);
            } else if let Value::Array(group) =
                map.entry(key).or_insert_with(|| Value::Array(Vec::new()))
            {
                group.push(value);
            }
        }
        Ok(if each.key_expr.is_some() { Value::Object(map) } else { Value::Array(list) })
    }

    fn template_expression(&self, expression: &TemplateExpr, locals: &Locals) -> Outcome {
        let template = Template::from_expr(expression).map_err(|refused| refused.to_string())?;
        // A template that is one interpolation has the value of it, whatever its type.
        if let ([Element::Interpolation(only)], TemplateExpr::QuotedString(_)) =
            (template.elements(), expression)
        {
            return self.eval(&only.expr, locals);
        }
        self.template(&template, locals).map(Value::String)
    }

    fn template(&self, template: &Template, locals: &Locals) -> Result<String, String> {
        let mut done = String::new();
        let mut strip_next = false;
        for element in template.elements() {
            match element {
                Element::Literal(literal) => {
                    done.push_str(if strip_next { literal.trim_start() } else { literal });
                    strip_next = false;
                }
                Element::Interpolation(piece) => {
                    strip_before(&mut done, piece.strip);
                    done.push_str(&text(&self.eval(&piece.expr, locals)?)?);
                    strip_next = strips_after(piece.strip);
                }
                Element::Directive(directive) => {
                    strip_next = self.directive(directive, &mut done, locals)?;
                }
            }
            if done.len() > MAX_SIZE {
                return Err(format!("a text is longer than {MAX_SIZE} bytes"));
            }
        }
        Ok(done)
    }

    fn directive(
        &self,
        directive: &Directive,
        done: &mut String,
        locals: &Locals,
    ) -> Result<bool, String> {
        match directive {
            Directive::If(choice) => {
                strip_before(done, choice.if_strip);
                if truth(&self.eval(&choice.cond_expr, locals)?)? {
                    done.push_str(&self.template(&choice.true_template, locals)?);
                } else if let Some(other) = &choice.false_template {
                    done.push_str(&self.template(other, locals)?);
                }
                Ok(strips_after(choice.endif_strip))
            }
            Directive::For(each) => {
                strip_before(done, each.for_strip);
                for (key, value) in pairs(&self.eval(&each.collection_expr, locals)?)? {
                    let mut inner = locals.clone();
                    if let Some(name) = &each.key_var {
                        inner.insert(name.to_string(), key);
                    }
                    inner.insert(each.value_var.to_string(), value);
                    done.push_str(&self.template(&each.template, &inner)?);
                }
                Ok(strips_after(each.endfor_strip))
            }
        }
    }
}

fn strip_before(done: &mut String, strip: Strip) {
    if matches!(strip, Strip::Start | Strip::Both) {
        done.truncate(done.trim_end().len());
    }
}

const fn strips_after(strip: Strip) -> bool {
    matches!(strip, Strip::End | Strip::Both)
}

fn number_value(number: &hcl::Number) -> Value {
    match number.as_i64() {
        Some(whole) => Value::from(whole),
        None => self::number(number.as_f64().unwrap_or(f64::NAN)),
    }
}

/// A number as a value; whole ones have no fraction.
pub(crate) fn number(number: f64) -> Value {
    // LIMIT: up to here every whole number has an exact value.
    if number.fract() == 0.0 && number.abs() < 9.0e15 {
        return Value::from(number as i64);
    }
    Number::from_f64(number).map_or(Value::Null, Value::Number)
}

pub(crate) fn float(value: &Value) -> Result<f64, String> {
    match value {
        Value::Number(number) => number.as_f64().ok_or_else(|| "a number is too large".to_owned()),
        Value::String(text) => {
            text.trim().parse().map_err(|_| format!("a number is required, not {text:?}"))
        }
        other => Err(format!("a number is required, not {other}")),
    }
}

/// A value as text, as templates and arguments show it.
pub(crate) fn text(value: &Value) -> Result<String, String> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Bool(_) | Value::Number(_) => Ok(value.to_string()),
        Value::Null => Err("a text is required, not null".to_owned()),
        Value::Array(_) | Value::Object(_) => Err(format!("a text is required, not {value}")),
    }
}

pub(crate) fn truth(value: &Value) -> Result<bool, String> {
    match value {
        Value::Bool(value) => Ok(*value),
        Value::String(text) if text == "true" => Ok(true),
        Value::String(text) if text == "false" => Ok(false),
        other => Err(format!("a bool is required, not {other}")),
    }
}

pub(crate) fn equal(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => left.as_f64() == right.as_f64(),
        (left, right) => left == right,
    }
}

fn attribute(value: &Value, name: &str) -> Outcome {
    let found = value.as_object().and_then(|map| map.get(name));
    found.cloned().ok_or_else(|| {
        format!("Unsupported attribute; This object does not have an attribute named {name:?}.")
    })
}

pub(crate) fn item(value: &Value, index: &Value) -> Outcome {
    let found = match value {
        Value::Array(items) => {
            let at = float(index)?;
            (at >= 0.0 && at.fract() == 0.0).then(|| items.get(at as usize)).flatten()
        }
        Value::Object(map) => map.get(&text(index)?),
        other => return Err(format!("{other} has no elements")),
    };
    found.cloned().ok_or_else(|| format!("Invalid index; there is no element {index}"))
}

/// Keys and values of a list or an object.
pub(crate) fn pairs(collection: &Value) -> Result<Vec<(Value, Value)>, String> {
    match collection {
        Value::Array(items) => {
            let numbered = items.iter().enumerate();
            Ok(numbered.map(|(at, item)| (Value::from(at), item.clone())).collect())
        }
        Value::Object(map) => {
            let mut sorted: Vec<_> = map.iter().collect();
            sorted.sort_by_key(|(key, _)| *key);
            Ok(sorted
                .into_iter()
                .map(|(key, value)| (Value::from(key.as_str()), value.clone()))
                .collect())
        }
        other => Err(format!("a list or an object is required, not {other}")),
    }
}

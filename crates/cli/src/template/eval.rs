//! Carries a parsed template out.

use std::collections::HashMap;
use std::rc::Rc;

use super::functions;
use super::node::{Command, Kind, Node, Operand, Pipeline};
use super::value::Value;
use super::{MissingKey, Mode, Template, TemplateError, print};

/// Renders `template` for `data`.
pub(super) fn render(template: &Template, data: &Value, mode: Mode) -> Result<String> {
    let mut defined = HashMap::new();
    collect(&template.body, &mut defined);
    let mut state = State {
        template,
        mode,
        defined,
        variables: vec![("$".to_owned(), data.clone())],
        out: String::new(),
        depth: 0,
    };
    state.list(&template.body, data)?;
    Ok(state.out)
}

fn collect<'a>(nodes: &'a [Node], defined: &mut HashMap<&'a str, &'a [Node]>) {
    for node in nodes {
        match node {
            Node::Define(name, body) => {
                defined.insert(name, body);
            }
            Node::If(_, body, otherwise)
            | Node::Range(_, body, otherwise)
            | Node::With(_, body, otherwise) => {
                collect(body, defined);
                collect(otherwise, defined);
            }
            _ => {}
        }
    }
}

struct State<'a> {
    template: &'a Template,
    mode: Mode,
    defined: HashMap<&'a str, &'a [Node]>,
    variables: Vec<(String, Value)>,
    out: String,
    depth: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Flow {
    On,
    Break,
    Continue,
}

// LIMIT: a template that calls itself ends here instead of exhausting the stack.
const DEEPEST_CALL: usize = 200;

type Result<T> = std::result::Result<T, TemplateError>;

impl<'a> State<'a> {
    /// `template: name:line:column: executing "name" at <node>: reason`
    fn fail(&self, operand: &Operand, reason: &str) -> TemplateError {
        let text = &self.template.text;
        let before = &text[..operand.at.min(text.len())];
        let line = before.matches('\n').count() + 1;
        let column = before.len() - before.rfind('\n').map_or(0, |at| at + 1);
        let name = self.template.name;
        let mut node = operand.to_string();
        if node.len() > 20 {
            let cut = (0..=20).rev().find(|at| node.is_char_boundary(*at)).unwrap_or(0);
            node.truncate(cut);
            node.push_str("...");
        }
        let place = format!("template: {name}:{line}:{column}: executing {name:?} at <{node}>");
        TemplateError(format!("{place}: {reason}"))
    }

    fn list(&mut self, nodes: &'a [Node], dot: &Value) -> Result<Flow> {
        for node in nodes {
            let flow = self.node(node, dot)?;
            if flow != Flow::On {
                return Ok(flow);
            }
        }
        Ok(Flow::On)
    }

    fn node(&mut self, node: &'a Node, dot: &Value) -> Result<Flow> {
        match node {
            Node::Text(text) => self.out.push_str(text),
            Node::Action(pipeline) => {
                let value = self.pipeline(pipeline, dot)?;
                if pipeline.variables.is_empty() {
                    self.out.push_str(&print::shown(&value));
                }
            }
            Node::If(pipeline, body, otherwise) => {
                let known = self.variables.len();
                let value = self.pipeline(pipeline, dot)?;
                let flow = self.list(if value.is_true() { body } else { otherwise }, dot)?;
                self.variables.truncate(known);
                return Ok(flow);
            }
            Node::With(pipeline, body, otherwise) => {
                let known = self.variables.len();
                let value = self.pipeline(pipeline, dot)?;
                let flow = match value.is_true() {
                    true => self.list(body, &value)?,
                    false => self.list(otherwise, dot)?,
                };
                self.variables.truncate(known);
                return Ok(flow);
            }
            Node::Range(pipeline, body, otherwise) => {
                let known = self.variables.len();
                let flow = self.range(pipeline, body, otherwise, dot)?;
                self.variables.truncate(known);
                return Ok(flow);
            }
            Node::Define(..) => {}
            Node::Call(at, name, data) => self.call(*at, name, data.as_ref(), dot)?,
            Node::Break => return Ok(Flow::Break),
            Node::Continue => return Ok(Flow::Continue),
        }
        Ok(Flow::On)
    }

    fn call(
        &mut self,
        at: usize,
        name: &str,
        data: Option<&'a Pipeline>,
        dot: &Value,
    ) -> Result<()> {
        let place = Operand { at, kind: Kind::Function(format!("{{{{template {name:?}}}}}")) };
        let Some(body) = self.defined.get(name).copied() else {
            return Err(self.fail(&place, &format!("template {name:?} not defined")));
        };
        if self.depth >= DEEPEST_CALL {
            return Err(self.fail(&place, "exceeded maximum template depth"));
        }
        let data = data.map_or(Ok(Value::Nil), |data| self.pipeline(data, dot))?;
        let variables =
            std::mem::replace(&mut self.variables, vec![("$".to_owned(), data.clone())]);
        self.depth += 1;
        self.list(body, &data)?;
        self.depth -= 1;
        self.variables = variables;
        Ok(())
    }

    fn range(
        &mut self,
        pipeline: &'a Pipeline,
        body: &'a [Node],
        otherwise: &'a [Node],
        dot: &Value,
    ) -> Result<Flow> {
        let value = self.value_of(pipeline, dot)?;
        let pairs: Vec<(Value, Value)> = match &value {
            Value::List(items) => {
                items.iter().enumerate().map(|(i, v)| (Value::Int(i as i64), v.clone())).collect()
            }
            Value::Map(pairs) => {
                pairs.iter().map(|(k, v)| (Value::Text(Rc::clone(k)), v.clone())).collect()
            }
            Value::Int(count) => {
                // LIMIT: counting loops in a format end somewhere.
                (0..*count.min(&1_000_000)).map(|i| (Value::Int(i), Value::Int(i))).collect()
            }
            Value::Nil | Value::NilPointer => Vec::new(),
            other => {
                let reason = format!("range can't iterate over {}", print::shown(other));
                return Err(self.fail(&pipeline.commands[0].operands[0], &reason));
            }
        };
        if pairs.is_empty() {
            return self.list(otherwise, dot);
        }
        for (key, value) in pairs {
            let known = self.variables.len();
            match pipeline.variables.as_slice() {
                [] => {}
                [only] => self.bind(only, pipeline.assigns, value.clone()),
                [first, second, ..] => {
                    self.bind(first, pipeline.assigns, key);
                    self.bind(second, pipeline.assigns, value.clone());
                }
            }
            let flow = self.list(body, &value)?;
            self.variables.truncate(known);
            if flow == Flow::Break {
                break;
            }
        }
        Ok(Flow::On)
    }

    fn bind(&mut self, name: &str, assigns: bool, value: Value) {
        let old = self.variables.iter_mut().rev().find(|(known, _)| assigns && known == name);
        match old {
            Some((_, old)) => *old = value,
            None => self.variables.push((name.to_owned(), value)),
        }
    }

    fn pipeline(&mut self, pipeline: &'a Pipeline, dot: &Value) -> Result<Value> {
        let value = self.value_of(pipeline, dot)?;
        for name in &pipeline.variables {
            self.bind(name, pipeline.assigns, value.clone());
        }
        Ok(value)
    }

    fn value_of(&mut self, pipeline: &'a Pipeline, dot: &Value) -> Result<Value> {
        let mut last = None;
        for command in &pipeline.commands {
            last = Some(self.command(command, dot, last)?);
        }
        Ok(last.unwrap_or(Value::Nil))
    }

    fn command(&mut self, command: &'a Command, dot: &Value, last: Option<Value>) -> Result<Value> {
        let (first, rest) = (&command.operands[0], &command.operands[1..]);
        if matches!(first.kind, Kind::Function(_)) {
            return self.function(&command.operands, dot, last);
        }
        if rest.is_empty() && last.is_none() {
            return self.operand(first, dot);
        }
        let mut arguments = Vec::new();
        for operand in rest {
            arguments.push(self.operand(operand, dot)?);
        }
        arguments.extend(last);
        match &first.kind {
            Kind::Field(names) => self.method(first, dot.clone(), names, &arguments),
            Kind::Variable(name, names) if !names.is_empty() => {
                let value = self.variable(first, name)?;
                self.method(first, value, names, &arguments)
            }
            Kind::Chain(operand, names) => {
                let value = self.operand(operand, dot)?;
                self.method(first, value, names, &arguments)
            }
            _ => Err(self.fail(first, &format!("can't give argument to non-function {first}"))),
        }
    }

    /// Calls the function the first operand names with the values of the others.
    fn function(
        &mut self,
        operands: &'a [Operand],
        dot: &Value,
        last: Option<Value>,
    ) -> Result<Value> {
        let (place, rest) = (&operands[0], &operands[1..]);
        let Kind::Function(name) = &place.kind else { return Ok(Value::Nil) };
        // `and` and `or` stop at the first operand that decides.
        if matches!(name.as_str(), "and" | "or") {
            let mut value = Value::Nil;
            if rest.is_empty() && last.is_none() {
                let reason = format!("wrong number of args for {name}: want at least 1 got 0");
                return Err(self.fail(place, &reason));
            }
            for operand in rest {
                value = self.operand(operand, dot)?;
                if value.is_true() == (name == "or") {
                    return Ok(value);
                }
            }
            return Ok(last.unwrap_or(value));
        }
        let mut arguments = Vec::with_capacity(rest.len() + 1);
        for operand in rest {
            arguments.push(self.operand(operand, dot)?);
        }
        arguments.extend(last);
        functions::call(name, &arguments, self.mode).map_err(|failure| {
            let words: Vec<String> = operands.iter().map(ToString::to_string).collect();
            let whole = Operand { at: place.at, kind: Kind::Function(words.join(" ")) };
            self.fail(&whole, &failure.text(name))
        })
    }

    fn operand(&mut self, operand: &'a Operand, dot: &Value) -> Result<Value> {
        match &operand.kind {
            Kind::Dot => Ok(dot.clone()),
            Kind::Nil => Ok(Value::Nil),
            Kind::Constant(value, _) => Ok(value.clone()),
            Kind::Field(names) => self.method(operand, dot.clone(), names, &[]),
            Kind::Variable(name, names) => {
                let value = self.variable(operand, name)?;
                self.method(operand, value, names, &[])
            }
            Kind::Function(_) => self.function(std::slice::from_ref(operand), dot, None),
            Kind::Pipeline(pipeline) => self.pipeline(pipeline, dot),
            Kind::Chain(inner, names) => {
                let value = self.operand(inner, dot)?;
                self.method(operand, value, names, &[])
            }
        }
    }

    fn variable(&self, operand: &Operand, name: &str) -> Result<Value> {
        let found = self.variables.iter().rev().find(|(known, _)| known == name);
        found
            .map(|(_, value)| value.clone())
            .ok_or_else(|| self.fail(operand, &format!("undefined variable: {name}")))
    }

    fn method(
        &self,
        operand: &Operand,
        mut value: Value,
        names: &[String],
        arguments: &[Value],
    ) -> Result<Value> {
        for (index, name) in names.iter().enumerate() {
            let arguments = if index + 1 == names.len() { arguments } else { &[] };
            value = self.field(operand, &value, name, arguments)?;
        }
        Ok(value)
    }

    fn field(
        &self,
        operand: &Operand,
        value: &Value,
        name: &str,
        arguments: &[Value],
    ) -> Result<Value> {
        match value {
            Value::Record(record) => {
                if let Some(found) = record.field(name) {
                    return match arguments {
                        [] => Ok(found.clone()),
                        _ => {
                            let reason = format!("{name} is not a method but has arguments");
                            Err(self.fail(operand, &reason))
                        }
                    };
                }
                if let (Some(labels), "Label", [Value::Text(key)]) =
                    (&record.labels, name, arguments)
                {
                    let found = labels.iter().find(|(label, _)| label == key);
                    return Ok(found.map_or_else(|| Value::text(""), |(_, value)| value.clone()));
                }
                if record.labels.is_some() && name == "Label" {
                    let count = arguments.len();
                    let reason = format!("wrong number of args for Label: want 1 got {count}");
                    return Err(self.fail(operand, &reason));
                }
                if self.template.missing == MissingKey::Error {
                    return Err(self.fail(operand, &format!("map has no entry for key {name:?}")));
                }
                let pointer = if record.pointer { "*" } else { "" };
                let kind = format!("{pointer}{}", record.type_name);
                Err(self.fail(operand, &format!("can't evaluate field {name} in type {kind}")))
            }
            Value::Map(pairs) => match pairs.iter().find(|(key, _)| &**key == name) {
                // In a header, methods of rows are names of columns.
                Some((_, found)) if arguments.is_empty() || self.mode == Mode::Header => {
                    Ok(found.clone())
                }
                Some(_) => {
                    let reason = format!("{name} is not a method but has arguments");
                    Err(self.fail(operand, &reason))
                }
                None if self.mode == Mode::Header && name == "Label" => {
                    Ok(arguments.first().map_or(Value::Nil, header_of_label))
                }
                None if self.template.missing == MissingKey::Error => {
                    Err(self.fail(operand, &format!("map has no entry for key {name:?}")))
                }
                None => Ok(Value::Nil),
            },
            Value::NilPointer => {
                Err(self.fail(operand, &format!("nil pointer evaluating *struct.{name}")))
            }
            Value::Nil if self.template.missing == MissingKey::Error => {
                Err(self.fail(operand, &format!("nil data; no entry for key {name:?}")))
            }
            Value::Nil => {
                Err(self.fail(operand, &format!("nil pointer evaluating interface {{}}.{name}")))
            }
            other => {
                let kind = other.type_name();
                Err(self.fail(operand, &format!("can't evaluate field {name} in type {kind}")))
            }
        }
    }
}

/// `com.example.some-key` is shown as `some key`.
fn header_of_label(key: &Value) -> Value {
    let Value::Text(key) = key else { return Value::Nil };
    let last = key.rsplit('.').next().unwrap_or(key);
    Value::text(last.replace(['-', '_'], " "))
}

//! Values a template works on.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::rc::Rc;

use serde_json::Value as Json;

/// A value as Go's reflection would see it.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    /// Nothing: a missing key or a nil interface.
    Nil,
    /// A nil pointer.
    NilPointer,
    /// `bool`
    Bool(bool),
    /// `int`, `int64`
    Int(i64),
    /// `float64`
    Float(f64),
    /// `string`
    Text(Rc<str>),
    /// A slice.
    List(Rc<Vec<Value>>),
    /// A map with text keys, sorted.
    Map(Rc<Vec<(Rc<str>, Value)>>),
    /// A struct.
    Record(Rc<Record>),
}

/// A struct: fields in order, and perhaps a method that takes arguments.
#[derive(Debug)]
pub(crate) struct Record {
    /// Go's name of the type, for error texts.
    pub(crate) type_name: &'static str,
    /// Fields by name.
    pub(crate) fields: Vec<(Cow<'static, str>, Value)>,
    /// What `.Label "key"` looks up.
    pub(crate) labels: Option<Vec<(Rc<str>, Value)>>,
    /// Prints as `&{…}` at the top.
    pub(crate) pointer: bool,
    /// What `json` prints where it is not the fields.
    pub(crate) json: Option<Json>,
}

impl Record {
    /// Makes a row of a table.
    pub(crate) fn row(type_name: &'static str, fields: Vec<(&'static str, Value)>) -> Self {
        let fields = fields.into_iter().map(|(name, value)| (name.into(), value)).collect();
        Self { type_name, fields, labels: None, pointer: true, json: None }
    }

    /// Adds what `.Label` looks up.
    pub(crate) fn with_labels(mut self, labels: &Json) -> Self {
        let pairs = labels.as_object().into_iter().flatten();
        self.labels =
            Some(pairs.map(|(key, value)| (key.as_str().into(), Value::from(value))).collect());
        self
    }

    /// Returns a field.
    pub(crate) fn field(&self, name: &str) -> Option<&Value> {
        self.fields.iter().find(|(field, _)| field == name).map(|(_, value)| value)
    }
}

impl Value {
    /// Makes a text.
    pub(crate) fn text(text: impl AsRef<str>) -> Self {
        Self::Text(text.as_ref().into())
    }

    /// Makes a map; keys are sorted.
    pub(crate) fn map(mut pairs: Vec<(Rc<str>, Self)>) -> Self {
        pairs.sort_by(|a, b| a.0.cmp(&b.0));
        Self::Map(Rc::new(pairs))
    }

    /// Tells whether `if` takes the value for true.
    pub(crate) fn is_true(&self) -> bool {
        match self {
            Self::Nil | Self::NilPointer => false,
            Self::Bool(value) => *value,
            Self::Int(value) => *value != 0,
            Self::Float(value) => *value != 0.0,
            Self::Text(text) => !text.is_empty(),
            Self::List(items) => !items.is_empty(),
            Self::Map(pairs) => !pairs.is_empty(),
            Self::Record(_) => true,
        }
    }

    /// Go's name of the value's type, for error texts.
    pub(crate) fn type_name(&self) -> &'static str {
        match self {
            Self::Nil | Self::NilPointer => "<nil>",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Float(_) => "float64",
            Self::Text(_) => "string",
            Self::List(_) => "[]interface {}",
            Self::Map(_) => "map[string]interface {}",
            Self::Record(record) => record.type_name,
        }
    }

    /// Compares for `eq`; `None` when the types do not compare.
    pub(crate) fn equals(&self, other: &Self) -> Option<bool> {
        match (self, other) {
            (Self::Nil | Self::NilPointer, Self::Nil | Self::NilPointer) => Some(true),
            (Self::Nil | Self::NilPointer, _) | (_, Self::Nil | Self::NilPointer) => Some(false),
            (Self::Bool(a), Self::Bool(b)) => Some(a == b),
            _ => self.compare(other).map(Ordering::is_eq),
        }
    }

    /// Compares for `lt` and its like; `None` when the types have no order.
    pub(crate) fn compare(&self, other: &Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Int(a), Self::Int(b)) => Some(a.cmp(b)),
            (Self::Float(a), Self::Float(b)) => a.partial_cmp(b),
            (Self::Text(a), Self::Text(b)) => Some(a.cmp(b)),
            _ => None,
        }
    }
}

impl From<&Json> for Value {
    fn from(json: &Json) -> Self {
        match json {
            Json::Null => Self::Nil,
            Json::Bool(value) => Self::Bool(*value),
            Json::Number(number) => number
                .as_i64()
                .map_or_else(|| Self::Float(number.as_f64().unwrap_or_default()), Self::Int),
            Json::String(text) => Self::text(text),
            Json::Array(items) => Self::List(Rc::new(items.iter().map(Self::from).collect())),
            Json::Object(fields) => Self::map(
                fields.iter().map(|(key, value)| (key.as_str().into(), value.into())).collect(),
            ),
        }
    }
}

impl From<Record> for Value {
    fn from(record: Record) -> Self {
        Self::Record(Rc::new(record))
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::text(text)
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::text(text)
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Self::Int(value)
    }
}

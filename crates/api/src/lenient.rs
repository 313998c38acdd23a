//! Reads JSON as Go does: keys in any case, unknown keys ignored, `null` for "not given" everywhere.
//!
//! It does not accept what Go refuses: a number for a string is an error.

use serde::de::value::{MapDeserializer, SeqDeserializer};
use serde::de::{
    DeserializeOwned, Deserializer, Error as _, IntoDeserializer, Unexpected, Visitor,
};
use serde::forward_to_deserialize_any;
use serde_json::{Error, Map, Value};

/// Reads a document from JSON text.
///
/// # Errors
///
/// When the text is not JSON or a value has another type than the document needs.
pub fn from_slice<T: DeserializeOwned>(text: &[u8]) -> Result<T, Error> {
    from_value(serde_json::from_slice(text)?)
}

/// Reads a document from parsed JSON.
///
/// # Errors
///
/// When a value has another type than the document needs.
pub fn from_value<T: DeserializeOwned>(value: Value) -> Result<T, Error> {
    T::deserialize(Lenient(value))
}

struct Lenient(Value);

impl IntoDeserializer<'_, Error> for Lenient {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

/// Names the fields of `object` as `fields` spell them. An exact spelling wins over others, else the last one given.
fn canonical(
    object: Map<String, Value>,
    fields: &'static [&'static str],
) -> Vec<(&'static str, Lenient)> {
    let mut slots: Vec<(Option<Value>, bool)> = vec![(None, false); fields.len()];
    for (key, value) in object {
        let exact = fields.iter().position(|field| *field == key);
        let Some(at) =
            exact.or_else(|| fields.iter().position(|field| field.eq_ignore_ascii_case(&key)))
        else {
            continue;
        };
        let (slot, taken_exactly) = &mut slots[at];
        if exact.is_some() || !*taken_exactly {
            *taken_exactly = exact.is_some();
            *slot = Some(value);
        }
    }
    let given = fields.iter().zip(slots).filter_map(|(field, (slot, _))| match slot {
        None | Some(Value::Null) => None,
        Some(value) => Some((*field, Lenient(value))),
    });
    given.collect()
}

macro_rules! null_is {
    ($($method:ident => $visit:ident($zero:expr)),* $(,)?) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            match self.0 {
                Value::Null => visitor.$visit($zero),
                value => value.$method(visitor),
            }
        })*
    };
}

impl<'de> Deserializer<'de> for Lenient {
    type Error = Error;

    null_is! {
        deserialize_bool => visit_bool(false),
        deserialize_i8 => visit_i8(0),
        deserialize_i16 => visit_i16(0),
        deserialize_i32 => visit_i32(0),
        deserialize_i64 => visit_i64(0),
        deserialize_u8 => visit_u8(0),
        deserialize_u16 => visit_u16(0),
        deserialize_u32 => visit_u32(0),
        deserialize_u64 => visit_u64(0),
        deserialize_f32 => visit_f32(0.0),
        deserialize_f64 => visit_f64(0.0),
        deserialize_str => visit_str(""),
        deserialize_string => visit_str(""),
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            Value::Array(list) => {
                visitor.visit_seq(SeqDeserializer::new(list.into_iter().map(Lenient)))
            }
            Value::Object(object) => {
                let pairs = object.into_iter().map(|(key, value)| (key, Lenient(value)));
                visitor.visit_map(MapDeserializer::new(pairs))
            }
            value => value.deserialize_any(visitor),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            Value::Null => visitor.visit_none(),
            value => visitor.visit_some(Self(value)),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            Value::Null => Self(Value::Array(Vec::new())).deserialize_any(visitor),
            value => Self(value).deserialize_any(visitor),
        }
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Error> {
        // COMPAT: Go fills fixed arrays with zeros and drops what is too much.
        let list = match self.0 {
            Value::Array(mut list) => {
                list.resize(len, Value::Null);
                list
            }
            Value::Null => vec![Value::Null; len],
            value => return value.deserialize_any(visitor),
        };
        Self(Value::Array(list)).deserialize_any(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            Value::Null => Self(Value::Object(Map::new())).deserialize_any(visitor),
            value => Self(value).deserialize_any(visitor),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self.0 {
            Value::Null => {
                visitor.visit_map(MapDeserializer::new(std::iter::empty::<(&'static str, Self)>()))
            }
            Value::Object(object) => {
                visitor.visit_map(MapDeserializer::new(canonical(object, fields).into_iter()))
            }
            // A derived visitor would take a list as the fields in their order; Go does not.
            Value::Array(_) => Err(Error::invalid_type(Unexpected::Seq, &visitor)),
            value => value.deserialize_any(visitor),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.0.deserialize_enum(name, variants, visitor)
    }

    forward_to_deserialize_any! {
        i128 u128 char bytes byte_buf unit unit_struct tuple_struct identifier ignored_any
    }
}

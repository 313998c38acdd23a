//! Small building blocks that many documents share.

use serde::de::{self, Deserialize, Deserializer, SeqAccess, Visitor};
use serde::{Serialize, Serializer};

/// How Go prints a time that was never set.
pub const ZERO_TIME: &str = "0001-01-01T00:00:00Z";

/// Tells whether a value is what Go's `omitempty` leaves out.
pub fn is_empty<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// An object without keys, as in Go's `map[string]struct{}`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, serde::Deserialize)]
pub struct Empty {}

/// A list of words that older clients may write as a single string.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StrSlice(pub Vec<String>);

impl From<Vec<String>> for StrSlice {
    fn from(words: Vec<String>) -> Self {
        Self(words)
    }
}

impl Serialize for StrSlice {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for StrSlice {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Words;

        impl<'de> Visitor<'de> for Words {
            type Value = StrSlice;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a string or a list of strings")
            }

            fn visit_str<E: de::Error>(self, word: &str) -> Result<StrSlice, E> {
                Ok(StrSlice(vec![word.to_owned()]))
            }

            fn visit_unit<E: de::Error>(self) -> Result<StrSlice, E> {
                Ok(StrSlice::default())
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<StrSlice, A::Error> {
                let mut words = Vec::new();
                while let Some(word) = list.next_element::<Option<String>>()? {
                    words.push(word.unwrap_or_default());
                }
                Ok(StrSlice(words))
            }
        }

        deserializer.deserialize_any(Words)
    }
}

//! Reads raw types from a tree, whose texts they take over: a file of ten thousand rules has a hundred thousand. What is wrong with a
//! tree `shape` has told already, in its place; the errors here are for what that cannot see.

use serde::{
    Deserializer,
    de::{
        IntoDeserializer, Visitor,
        value::{Error, MapAccessDeserializer, MapDeserializer, SeqDeserializer},
    },
    forward_to_deserialize_any,
};

use super::source::{Kind, Node};

impl<'de> IntoDeserializer<'de, Error> for &'de mut Node {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

impl<'de> Deserializer<'de> for &'de mut Node {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match &mut self.kind {
            Kind::Null | Kind::Broken => visitor.visit_unit(),
            Kind::Bool(value) => visitor.visit_bool(*value),
            // As unsigned where it can be, as a file of JSON has it.
            Kind::Int(value) => match u64::try_from(*value) {
                Ok(value) => visitor.visit_u64(value),
                Err(_) => visitor.visit_i64(*value),
            },
            Kind::Float(value) => visitor.visit_f64(*value),
            Kind::Str(text) => visitor.visit_string(std::mem::take(text)),
            Kind::Seq(items) => visitor.visit_seq(SeqDeserializer::new(items.iter_mut())),
            Kind::Map(entries) => {
                let entries = entries.iter_mut().map(|entry| (entry.key.as_str(), &mut entry.value));
                visitor.visit_map(MapDeserializer::new(entries))
            }
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.kind {
            Kind::Null | Kind::Broken => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match &mut self.kind {
            Kind::Str(text) => visitor.visit_enum(text.as_str().into_deserializer()),
            Kind::Map(entries) => {
                let entries = entries.iter_mut().map(|entry| (entry.key.as_str(), &mut entry.value));
                visitor.visit_enum(MapAccessDeserializer::new(MapDeserializer::new(entries)))
            }
            _ => Err(serde::de::Error::custom("a word stands here")),
        }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple tuple_struct
        map struct identifier ignored_any
    }
}

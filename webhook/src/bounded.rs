//! JSON of bounded cost. In: a deserializer of any JSON. Out: a value, or an error once it has more parts than any object that the API server takes.
//! Left to others: the bytes (`intake`), what the value means.
//!
//! A number in an array takes two bytes as text and as much as 72 as a value: 3 MiB of `[0,0,…]` are over 100 MiB. So parts are counted as they are read.

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Map, Number, Value};
use std::cell::{Cell, RefCell};
use std::fmt;

/// Most values in one object: a pod of 1500 variables has 5,000, and etcd's 1.5 MiB hold no pod of more than this. At most 7 MiB as values.
pub const VALUES_MAX: usize = 100_000;

/// Reads a value of at most [`VALUES_MAX`] parts.
///
/// # Errors
/// When there are more, or the text is no JSON.
pub fn value<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Value, D::Error> {
    Counted::new(&Cell::new(VALUES_MAX)).deserialize(deserializer)
}

/// Reads a value of at most so many parts as are left, and takes them off.
///
/// # Errors
/// When there are more, or the text is no JSON.
pub(crate) fn within<'de, D: Deserializer<'de>>(left: &Cell<usize>, deserializer: D) -> Result<Value, D::Error> {
    Counted::new(left).deserialize(deserializer)
}

/// Reads a value of at most [`VALUES_MAX`] parts, but for the entries of lists named `env`: of those only the text is taken, to which the number at their place leads.
///
/// # Errors
/// As [`value`].
pub(crate) fn but_for_variables<'de, D: Deserializer<'de>>(variables: &RefCell<Vec<Texts>>, deserializer: D) -> Result<Value, D::Error> {
    Counted { variables: Some(variables), ..Counted::new(&Cell::new(VALUES_MAX)) }.deserialize(deserializer)
}

/// Most values in an object that is only compared with: what has more is as good as unknown.
const COMPARED_MAX: usize = 20_000;

/// Reads a value of at most [`COMPARED_MAX`] parts; null where there are more.
///
/// # Errors
/// When the text is no JSON.
pub fn small<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Value, D::Error> {
    let beyond = Cell::new(false);
    let value = Counted { beyond: Some(&beyond), ..Counted::new(&Cell::new(COMPARED_MAX)) }.deserialize(deserializer)?;
    Ok(if beyond.get() { Value::Null } else { value })
}

/// The texts of one list's entries, one after the other.
#[derive(Clone, Debug, Default)]
pub(crate) struct Texts {
    text: String,
    /// Where each ends in `text`.
    ends: Vec<usize>,
}

impl Texts {
    fn push(&mut self, entry: &str) {
        self.text.push_str(entry);
        self.ends.push(self.text.len());
    }

    /// Each, in its order.
    pub(crate) fn each(&self) -> impl Iterator<Item = &str> {
        let begins = std::iter::once(0).chain(self.ends.iter().copied());
        begins.zip(&self.ends).map(|(begin, end)| &self.text[begin..*end])
    }
}

#[derive(Clone, Copy)]
struct Counted<'c> {
    left: &'c Cell<usize>,
    /// Set where there are more; None: that is an error.
    beyond: Option<&'c Cell<bool>>,
    /// Where entries of lists named `env` go as text; None: they are values as all else.
    variables: Option<&'c RefCell<Vec<Texts>>>,
    /// What comes now is named `env`.
    of_env: bool,
}

impl<'c> Counted<'c> {
    fn new(left: &'c Cell<usize>) -> Self {
        Self { left, beyond: None, variables: None, of_env: false }
    }

    /// What comes now is not kept.
    fn is_beyond(self) -> bool {
        self.beyond.is_some_and(Cell::get)
    }

    /// One part more.
    fn take<E: Error>(self) -> Result<(), E> {
        self.left.set(self.left.get().checked_sub(1).ok_or_else(|| E::custom(format!("more than {VALUES_MAX} values in one object")))?);
        Ok(())
    }

    /// The texts of a list's entries; their place in `variables`.
    fn entries<'de, A: SeqAccess<'de>>(self, variables: &RefCell<Vec<Texts>>, mut items: A) -> Result<Value, A::Error> {
        let mut entries = Texts::default();
        while let Some(text) = items.next_element::<&RawValue>()? {
            self.take()?;
            entries.push(text.get());
        }
        let mut all = variables.borrow_mut();
        all.push(entries);
        Ok(Value::from(all.len() - 1))
    }
}

impl<'de> DeserializeSeed<'de> for Counted<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        if let (0, Some(beyond)) = (self.left.get(), self.beyond) {
            beyond.set(true);
            return IgnoredAny::deserialize(deserializer).map(|_| Value::Null);
        }
        self.take()?;
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Counted<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        if let (true, Some(variables)) = (self.of_env, self.variables) {
            return self.entries(variables, items);
        }
        let mut array = Vec::new();
        while let Some(item) = items.next_element_seed(Self { of_env: false, ..self })? {
            if !self.is_beyond() {
                array.push(item);
            }
        }
        Ok(Value::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(key) = members.next_key::<String>()? {
            let value = members.next_value_seed(Self { of_env: key == "env", ..self })?;
            if !self.is_beyond() {
                object.insert(key, value);
            }
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(text: &str) -> Result<Value, serde_json::Error> {
        value(&mut serde_json::Deserializer::from_str(text))
    }

    #[test]
    fn it_is_what_serde_json_reads() {
        let given = json!({"a": [1, -2, 3.5, true, null, "é\n", {"b": {}}, []], "z": u64::MAX, "": i64::MIN});
        assert_eq!(read(&given.to_string()).unwrap(), given);
        assert!(read("{\"a\":").is_err());
    }

    #[test]
    fn what_is_only_compared_with_is_null_where_it_is_large_and_what_follows_it_is_read() {
        let text = format!("{{\"a\":[{}],\"b\":{{\"c\":[1]}}}} ", vec!["0"; 2 * COMPARED_MAX].join(","));
        let mut reader = serde_json::Deserializer::from_str(&text);
        assert_eq!(small(&mut reader).unwrap(), Value::Null);
        assert!(reader.end().is_ok());
        assert_eq!(small(&mut serde_json::Deserializer::from_str("{\"a\":[1]}")).unwrap(), json!({"a": [1]}));
        assert!(small(&mut serde_json::Deserializer::from_str("{\"a\":[1}")).is_err());
    }

    #[test]
    fn more_parts_than_any_object_has_are_refused_wherever_they_are() {
        let zeros = |n: usize| format!("[{}]", vec!["0"; n].join(","));
        assert!(read(&zeros(VALUES_MAX - 1)).is_ok());
        assert!(read(&zeros(VALUES_MAX)).unwrap_err().to_string().contains("more than 100000 values"));
        let rows = vec![zeros(1000); VALUES_MAX / 1000].join(",");
        assert!(read(&format!("{{\"spec\":[{rows}]}}")).is_err());
    }
}

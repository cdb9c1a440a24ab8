//! JSON as security code must read and write it: no duplicate members, bounded depth, numbers that are what they look
//! like, and one canonical text for one value.
//!
//! `serde_json::Value` keeps the last of two members with one name, another parser keeps the first; a token that
//! says two things is refused (RFC 7519 section 4; RFC 8725 section 2.4).

use serde::Serialize;
use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use std::fmt;

/// How deep objects and arrays may nest.
const MAX_DEPTH: u8 = 16;

/// Parses `bytes` as one JSON object.
///
/// # Errors
/// If it is no JSON object, has a member twice at any depth, nests deeper than 16 levels, or has data behind it.
pub(crate) fn parse_object(bytes: &[u8]) -> Result<Map<String, Value>, serde_json::Error> {
    match parse(bytes)? {
        Value::Object(members) => Ok(members),
        _ => Err(serde_json::Error::custom("not a JSON object")),
    }
}

/// Parses `bytes` as one JSON value.
///
/// # Errors
/// If it is no JSON, has a member twice at any depth, nests deeper than 16 levels, or has data behind it.
pub(crate) fn parse(bytes: &[u8]) -> Result<Value, serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = Strict { depth: MAX_DEPTH }.deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(value)
}

/// Reads one member of a typed object as strictly as [`parse_object`], for `#[serde(deserialize_with)]`. The ordinary way would
/// also take a member that `serde_json` uses for itself (`$serde_json::private::…`) for the value within it, so that a
/// person would read one thing and we another.
///
/// # Errors
/// As [`parse_object`].
pub(crate) fn object_member<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Map<String, Value>>, D::Error> {
    match (Strict { depth: MAX_DEPTH }).deserialize(deserializer)? {
        Value::Null => Ok(None),
        Value::Object(members) => Ok(Some(members)),
        _ => Err(D::Error::custom("not a JSON object")),
    }
}

/// Whether two values are the same, however their numbers are written.
pub(crate) fn same(one: &Value, other: &Value) -> bool {
    one == other || canonical(one).ok().is_some_and(|text| canonical(other).ok() == Some(text))
}

/// Adds a member to an object of our own making.
pub(crate) fn put(object: &mut Value, name: &str, member: Value) {
    if let Value::Object(members) = object {
        members.insert(name.to_owned(), member);
    }
}

/// The canonical text of `value` (RFC 8785): one text for one value, whoever writes it.
///
/// # Errors
/// If it holds a number that is not finite, which JSON values cannot.
pub(crate) fn canonical(value: &impl Serialize) -> Result<String, serde_json::Error> {
    serde_json_canonicalizer::to_string(value)
}

/// Largest whole number that every reader of JSON sees as it was written (RFC 8259 section 6): 2^53 − 1.
const SAFE_INTEGER: u64 = (1 << 53) - 1;

/// Whether every reader of JSON sees this number as we do.
pub(crate) fn is_safe(number: &Number) -> bool {
    match (number.as_u64(), number.as_i64(), number.as_f64()) {
        (Some(n), _, _) => n <= SAFE_INTEGER,
        (_, Some(n), _) => n.unsigned_abs() <= SAFE_INTEGER,
        (_, _, Some(f)) => {
            f.is_finite() && !(f == 0.0 && f.is_sign_negative()) && (f.fract() != 0.0 || f.abs() <= SAFE_INTEGER as f64)
        }
        _ => false,
    }
}

/// The first number in a JSON text that a double cannot hold exactly as it is written, so that the one who wrote it and the
/// one who reads it could mean two amounts: `0.1000000000000000055`, `9007199254740993`, `1e400`, `-0`.
pub(crate) fn inexact_number(text: &str) -> Option<&str> {
    let bytes = text.as_bytes();
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => at = end_of_string(bytes, at + 1),
            b'-' | b'0'..=b'9' => {
                let rest = bytes.get(at..).unwrap_or_default();
                let length = rest.iter().take_while(|b| matches!(b, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E')).count();
                let number = text.get(at..at + length)?;
                let read = number.parse::<f64>().ok().filter(|f| f.is_finite());
                // `{:e}` is the shortest text that reads back as this double.
                if number.starts_with("-0") && read == Some(0.0)
                    || read.is_none_or(|f| digits(&format!("{f:e}")) != digits(number))
                {
                    return Some(number);
                }
                at += length;
            }
            _ => at += 1,
        }
    }
    None
}

/// Where a string that begins at `at` ends: behind its closing quote.
fn end_of_string(bytes: &[u8], mut at: usize) -> usize {
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    at
}

/// A decimal number as sign, significant digits and power of ten: equal for equal numbers, however they are written.
fn digits(number: &str) -> Option<(bool, String, i64)> {
    let (negative, rest) = number.strip_prefix('-').map_or((false, number), |rest| (true, rest));
    let (mantissa, exponent) = match rest.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i64>().ok()?),
        None => (rest, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let all = format!("{whole}{fraction}");
    let significant = all.trim_start_matches('0');
    let trimmed = significant.trim_end_matches('0');
    if trimmed.is_empty() {
        return Some((negative, String::new(), 0));
    }
    let zeros = i64::try_from(significant.len() - trimmed.len()).ok()?;
    let scale = exponent.checked_sub(i64::try_from(fraction.len()).ok()?)?.checked_add(zeros)?;
    Some((negative, trimmed.to_owned(), scale))
}

#[derive(Clone, Copy)]
struct Strict {
    depth: u8,
}

impl Strict {
    fn deeper<E: Error>(self) -> Result<Self, E> {
        match self.depth.checked_sub(1) {
            Some(depth) => Ok(Self { depth }),
            None => Err(E::custom("nested too deep")),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON without duplicate members")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
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

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("not a finite number"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(inner)? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut map = Map::new();
        while let Some(name) = members.next_key_seed(Name)? {
            let value = members.next_value_seed(inner)?;
            if map.insert(name, value).is_some() {
                return Err(A::Error::custom("a member occurs twice"));
            }
        }
        Ok(Value::Object(map))
    }
}

/// A member's name, after escapes are resolved: `"\u0073ub"` is `sub`.
struct Name;

impl<'de> DeserializeSeed<'de> for Name {
    type Value = String;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<String, D::Error> {
        String::deserialize(deserializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_may_occur_once() {
        assert!(parse_object(br#"{"sub":"a","x":{"sub":"b"},"y":[1,2.5,null,true]}"#).is_ok());
        for twice in [r#"{"sub":"a","sub":"b"}"#, r#"{"sub":"a","\u0073ub":"b"}"#, r#"{"x":[{"a":1,"a":1}]}"#] {
            assert!(parse_object(twice.as_bytes()).is_err(), "J9: {twice} was accepted");
        }
    }

    #[test]
    fn a_number_must_be_what_a_double_holds() {
        for good in
            ["[0,1,-1,0.1,500.00,5e2,1E-7,1.5e300,9007199254740991,0.30000000000000004]", r#"{"a":"9007199254740993 \" -0"}"#]
        {
            assert_eq!(inexact_number(good), None, "{good}");
        }
        for bad in ["9007199254740993", "0.1000000000000000055", "1e400", "-0", "-0.0", "1e-400", "3.14159265358979323846"] {
            assert_eq!(inexact_number(&format!(r#"{{"a":"x\\","b":[{bad}]}}"#)), Some(bad));
        }
    }

    #[test]
    fn one_value_has_one_canonical_text() {
        let a = parse(br#"{"b":[1.0,5e2,"\u20ac"],"a":{"d":null,"c":true}}"#).expect("JSON");
        let b = parse(b" {\"a\": {\"c\": true, \"d\": null}, \"b\": [1, 500, \"\xe2\x82\xac\"]} ").expect("JSON");
        assert_eq!(canonical(&a).expect("text"), "{\"a\":{\"c\":true,\"d\":null},\"b\":[1,500,\"\u{20ac}\"]}");
        assert_eq!(canonical(&a).expect("text"), canonical(&b).expect("text"));
    }

    #[test]
    fn a_member_that_serde_json_uses_for_itself_is_a_member_like_any_other() {
        #[derive(serde::Deserialize)]
        struct Holder {
            #[serde(default, deserialize_with = "object_member")]
            parameters: Option<Map<String, Value>>,
        }
        let text = r#"{"parameters":{"amount":{"$serde_json::private::RawValue":"1000"}}}"#;
        let holder: Holder = serde_json::from_str(text).expect("JSON");
        assert!(holder.parameters.expect("present")["amount"].is_object());
        assert!(serde_json::from_str::<Holder>(r#"{"parameters":{"a":1,"a":2}}"#).is_err());
    }

    proptest::proptest! {
        #[test]
        fn a_double_written_in_full_is_exact(f in proptest::num::f64::NORMAL) {
            let (short, full) = (format!("{f:e}"), format!("{f}"));
            proptest::prop_assert_eq!(inexact_number(&short), None);
            proptest::prop_assert_eq!(inexact_number(&full), None);
        }

        #[test]
        fn no_text_makes_the_check_panic(text in ".{0,64}") {
            _ = inexact_number(&text);
        }
    }

    #[test]
    fn only_one_shallow_object_is_accepted() {
        for bad in ["", "[]", "\"a\"", "{} {}", "{}x", "{\"a\":1e999}", "{\"a\":}"] {
            assert!(parse_object(bad.as_bytes()).is_err(), "{bad} was accepted");
        }
        let deep = |n: usize| format!("{}1{}", "{\"a\":".repeat(n), "}".repeat(n));
        assert!(parse_object(deep(16).as_bytes()).is_ok());
        assert!(parse_object(deep(17).as_bytes()).is_err());
        assert!(parse_object(deep(100_000).as_bytes()).is_err());
    }
}

//! Canonical JSON (appendices, "Canonical JSON"): the one way to write a JSON value that hashes and signatures are computed over.
//!
//! *Strict* is what room versions from 6 on demand: integers within ±(2^53 - 1), no fractions. *Lax* is for the older ones, where whatever
//! the network has accepted must keep its hash: integers of any size that can be read stay as written, fractions are written as the reference
//! implementation's language writes them.

use std::borrow::Cow;
use std::fmt::Write as _;

use serde_json::Value;

use crate::Error;
use crate::canonical_check::Checker;
use crate::canonical_read::Reader;
use crate::json::{skip_space, write_string};
use crate::limits::{INTEGER_MAX, JSON_DEPTH_MAX, LAX_FRACTION_MAX, LAX_INTEGER_DIGITS_MAX};

/// The canonical form of JSON text from outside; borrowed if the text is canonical already. Of two members with one key the last counts.
pub fn canonicalize(text: &[u8], strict: bool) -> Result<Cow<'_, [u8]>, Error> {
    let checked = std::str::from_utf8(text).map_err(|_| Error::Json("it is not UTF-8".to_owned()))?;
    if (Checker { text, at: 0, strict }).whole() {
        return Ok(Cow::Borrowed(text));
    }
    let mut reader = Reader {
        text: checked,
        at: 0,
        strict,
    };
    let node = reader.value(0)?;
    reader.at = skip_space(text, reader.at);
    if reader.at != text.len() {
        return Err(reader.error("something follows the value"));
    }
    let mut out = Vec::with_capacity(text.len());
    node.write(&mut out);
    Ok(Cow::Owned(out))
}

/// The canonical form of a JSON value in memory.
pub fn to_bytes(value: &Value, strict: bool) -> Result<Vec<u8>, Error> {
    let mut out = Vec::with_capacity(256);
    write_value(&mut out, value, strict, 0)?;
    Ok(out)
}

/// The canonical form of anything that can be serialized.
pub fn of<T: serde::Serialize>(value: &T, strict: bool) -> Result<Vec<u8>, Error> {
    let text = serde_json::to_vec(value).map_err(|error| Error::Json(error.to_string()))?;
    canonicalize(&text, strict).map(Cow::into_owned)
}

/// Whether the text is canonical as it stands.
pub fn is_canonical(text: &[u8], strict: bool) -> bool {
    matches!(canonicalize(text, strict), Ok(canonical) if *canonical == *text)
}

fn write_value(out: &mut Vec<u8>, value: &Value, strict: bool, depth: usize) -> Result<(), Error> {
    match value {
        Value::Array(_) | Value::Object(_) if depth >= JSON_DEPTH_MAX => return Err(too_deep()),
        Value::Null => out.extend_from_slice(b"null"),
        Value::Bool(true) => out.extend_from_slice(b"true"),
        Value::Bool(false) => out.extend_from_slice(b"false"),
        Value::Number(number) => out.extend_from_slice(number_text(&number.to_string(), strict)?.as_bytes()),
        Value::String(text) => write_string(out, text),
        Value::Array(items) => {
            out.push(b'[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                write_value(out, item, strict, depth + 1)?;
            }
            out.push(b']');
        }
        Value::Object(map) => {
            // Whether the map is ordered depends on a feature that any crate of the build may turn on.
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_unstable_by(|a, b| a.0.cmp(b.0));
            out.push(b'{');
            for (index, (key, item)) in entries.into_iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                write_string(out, key);
                out.push(b':');
                write_value(out, item, strict, depth + 1)?;
            }
            out.push(b'}');
        }
    }
    Ok(())
}

/// One level more, and the JSON reader would not take it.
pub(crate) fn too_deep() -> Error {
    Error::Json(format!("it is nested deeper than {JSON_DEPTH_MAX} levels"))
}

/// A number as canonical JSON writes it; `text` has the form of a JSON number.
pub(crate) fn number_text(text: &str, strict: bool) -> Result<Cow<'_, str>, Error> {
    let whole = !text.contains(['.', 'e', 'E']);
    if whole && text != "-0" {
        let in_range = text
            .parse::<i64>()
            .is_ok_and(|number| (-INTEGER_MAX..=INTEGER_MAX).contains(&number));
        if strict && !in_range {
            return Err(Error::Json(format!(
                "the number {text} is outside of ±{INTEGER_MAX}"
            )));
        }
        if text.len() > LAX_INTEGER_DIGITS_MAX {
            return Err(Error::Json("a number is too large".to_owned()));
        }
        return Ok(Cow::Borrowed(text));
    }
    if strict {
        return Err(Error::Json(format!("the number {text} is not an integer")));
    }
    if whole {
        return Ok(Cow::Borrowed("0"));
    }
    match text.parse::<f64>() {
        Ok(number) if number.abs() <= LAX_FRACTION_MAX => Ok(Cow::Owned(fraction_text(number))),
        _ => Err(Error::Json(format!("the number {text} is too large"))),
    }
}

/// A fraction with the fewest digits that read back as the same number, in the notation of Python's `repr`.
fn fraction_text(number: f64) -> String {
    let scientific = format!("{number:e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if !(-4..16).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{mantissa}e{sign}{:02}", exponent.unsigned_abs());
    }
    let mut plain = String::new();
    let _ = write!(plain, "{number}");
    if !plain.contains('.') {
        plain.push_str(".0");
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(input: &str, strict: bool, expected: Option<&str>) {
        let found = canonicalize(input.as_bytes(), strict)
            .ok()
            .map(|bytes| String::from_utf8(bytes.into_owned()).unwrap());
        assert_eq!(found.as_deref(), expected, "{input}");
    }

    #[test]
    fn examples_of_the_specification() {
        check("{}", true, Some("{}"));
        check(
            r#"{ "one": 1, "two": "Two" }"#,
            true,
            Some(r#"{"one":1,"two":"Two"}"#),
        );
        check(r#"{ "b": "2", "a": "1" }"#, true, Some(r#"{"a":"1","b":"2"}"#));
        check(r#"{ "a": "日本語" }"#, true, Some(r#"{"a":"日本語"}"#));
        check(r#"{ "本": 2, "日": 1 }"#, true, Some(r#"{"日":1,"本":2}"#));
        check(r#"{ "a": "\u65E5" }"#, true, Some(r#"{"a":"日"}"#));
        check(r#"{ "a": null }"#, true, Some(r#"{"a":null}"#));
        check(r#"{ "a": -0, "b": 1e10 }"#, true, None);
    }

    #[test]
    fn numbers() {
        for (input, strict, lax) in [
            (
                "9007199254740991",
                Some("9007199254740991"),
                Some("9007199254740991"),
            ),
            (
                "-9007199254740991",
                Some("-9007199254740991"),
                Some("-9007199254740991"),
            ),
            ("9007199254740992", None, Some("9007199254740992")),
            ("-9007199254740992", None, Some("-9007199254740992")),
            (
                "123456789012345678901234567890",
                None,
                Some("123456789012345678901234567890"),
            ),
            ("1.0", None, Some("1.0")),
            ("1.50", None, Some("1.5")),
            ("1e10", None, Some("10000000000.0")),
            ("1e16", None, Some("1e+16")),
            ("0.00001", None, Some("1e-05")),
            ("0.0001", None, Some("0.0001")),
            ("1.5e300", None, Some("1.5e+300")),
            ("-0", None, Some("0")),
            ("-0.0", None, Some("-0.0")),
            ("1e999", None, None),
            ("01", None, None),
            ("-", None, None),
            ("1.", None, None),
            ("+1", None, None),
            (".5", None, None),
            ("0", Some("0"), Some("0")),
        ] {
            check(input, true, strict);
            check(input, false, lax);
        }
    }

    /// Where no bound is set, what is taken can be read again all the same.
    #[test]
    fn large_numbers_can_be_read() {
        for (text, expected) in [
            ("9".repeat(308), true),
            (format!("-{}", "9".repeat(307)), true),
            ("9".repeat(309), false),
            (format!("[{}]", "9".repeat(400)), false),
            (format!("[ {}]", "9".repeat(400)), false),
            ("9.9e307".to_owned(), true),
            ("-1e308".to_owned(), true),
            ("1.7976931348623157e308".to_owned(), false),
        ] {
            let canonical = canonicalize(text.as_bytes(), false);
            assert_eq!(canonical.is_ok(), expected, "{text}");
            let read = canonical.map(|text| serde_json::from_slice::<Value>(&text).is_ok());
            assert_ne!(read.ok(), Some(false), "{text}");
        }
    }

    #[test]
    fn what_is_no_json() {
        for input in [
            "",
            " ",
            "{",
            "[1,]",
            "{\"a\":1,}",
            "{1:2}",
            "tru",
            "nulll",
            "\"\u{1}\"",
            "\"\\x\"",
            "\"\\ud800\"",
            "{} {}",
            "{\"a\" 1}",
            "'a'",
        ] {
            check(input, true, None);
            check(input, false, None);
        }
        assert!(canonicalize(b"\"\xff\"", true).is_err());
    }

    #[test]
    fn the_last_of_equal_keys_counts() {
        check(r#"{"a":1,"b":2,"a":3}"#, true, Some(r#"{"a":3,"b":2}"#));
        check(r#"{"a":1,"\u0061":3}"#, true, Some(r#"{"a":3}"#));
    }

    #[test]
    fn nesting_has_a_limit() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(canonicalize(nested(JSON_DEPTH_MAX).as_bytes(), true).is_ok());
        // One level more is what no value can be read from, also with white space, which is read in another way.
        for text in [
            nested(JSON_DEPTH_MAX + 1),
            format!(" {}", nested(JSON_DEPTH_MAX + 1)),
        ] {
            assert!(serde_json::from_str::<Value>(&text).is_err());
            assert!(canonicalize(text.as_bytes(), true).is_err(), "{text}");
        }
        let value = (0..JSON_DEPTH_MAX).fold(Value::Array(Vec::new()), |inner, _| Value::Array(vec![inner]));
        assert!(to_bytes(&value, true).is_err());
        assert!(to_bytes(&value[0], true).is_ok());
        assert!(canonicalize(nested(100_000).as_bytes(), true).is_err());
        assert!(canonicalize("[ ".repeat(100_000).as_bytes(), true).is_err());
        assert!(serde_json::from_str::<Value>(&nested(JSON_DEPTH_MAX)).is_ok());
    }

    #[test]
    fn canonical_text_is_borrowed() {
        for input in [r#"{"a":[1,-2,true,null,"x\n\u001f"],"b":{"c":"\\"}}"#, "[]", "12"] {
            assert!(
                matches!(canonicalize(input.as_bytes(), true), Ok(Cow::Borrowed(_))),
                "{input}"
            );
            assert!(is_canonical(input.as_bytes(), true));
        }
        assert!(!is_canonical(b"{ }", true));
        assert!(!is_canonical(br#""\u000a""#, true));
    }
}

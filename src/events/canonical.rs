//! Canonical JSON (appendices, "Canonical JSON"): the one way to write a JSON value that hashes and signatures are computed over.
//!
//! *Strict* is what room versions from 6 on demand: integers within ±(2^53 - 1), no fractions. *Lax* is for the older ones, where whatever
//! the network has accepted must keep its hash: integers of any size stay as written, fractions are written as the reference
//! implementation's language writes them.

use std::borrow::Cow;
use std::fmt::Write as _;

use serde_json::Value;

use crate::Error;
use crate::json::{skip_space, write_string};
use crate::limits::{INTEGER_MAX, JSON_DEPTH_MAX};

/// The canonical form of JSON text from outside; borrowed if the text is canonical already. Of two members with one key the last counts.
pub fn canonicalize(text: &[u8], strict: bool) -> Result<Cow<'_, [u8]>, Error> {
    let checked = std::str::from_utf8(text).map_err(|_| Error::Json("it is not UTF-8".to_owned()))?;
    if (Checker { text, at: 0, strict }).whole() {
        return Ok(Cow::Borrowed(text));
    }
    let mut reader = Reader { text: checked, at: 0, strict };
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
    if depth > JSON_DEPTH_MAX {
        return Err(Error::Json(format!("it is nested deeper than {JSON_DEPTH_MAX} levels")));
    }
    match value {
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

/// A number as canonical JSON writes it; `text` has the form of a JSON number.
fn number_text(text: &str, strict: bool) -> Result<Cow<'_, str>, Error> {
    let whole = !text.contains(['.', 'e', 'E']);
    if whole && text != "-0" {
        let in_range = text.parse::<i64>().is_ok_and(|number| (-INTEGER_MAX..=INTEGER_MAX).contains(&number));
        if strict && !in_range {
            return Err(Error::Json(format!("the number {text} is outside of ±{INTEGER_MAX}")));
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
        Ok(number) if number.is_finite() => Ok(Cow::Owned(fraction_text(number))),
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

/// Recognizes text that is canonical as it stands, in one pass and without allocating. `false` means only "not certain".
struct Checker<'a> {
    text: &'a [u8],
    at: usize,
    strict: bool,
}

impl<'a> Checker<'a> {
    fn whole(mut self) -> bool {
        self.value(0) && self.at == self.text.len()
    }

    fn eat(&mut self, byte: u8) -> bool {
        let eaten = self.text.get(self.at) == Some(&byte);
        self.at += usize::from(eaten);
        eaten
    }

    fn word(&mut self, word: &[u8]) -> bool {
        let eaten = self.text[self.at..].starts_with(word);
        self.at += word.len();
        eaten
    }

    fn value(&mut self, depth: usize) -> bool {
        if depth > JSON_DEPTH_MAX {
            return false;
        }
        match self.text.get(self.at) {
            Some(b'{') => self.object(depth),
            Some(b'[') => self.array(depth),
            Some(b'"') => self.string().is_some(),
            Some(b't') => self.word(b"true"),
            Some(b'f') => self.word(b"false"),
            Some(b'n') => self.word(b"null"),
            Some(b'-' | b'0'..=b'9') => self.number(),
            _ => false,
        }
    }

    fn object(&mut self, depth: usize) -> bool {
        self.at += 1;
        if self.eat(b'}') {
            return true;
        }
        let mut previous: Option<&'a [u8]> = None;
        loop {
            if self.text.get(self.at) != Some(&b'"') {
                return false;
            }
            // The order of escaped keys is not the order of their text, so they are left to the reader.
            let Some((key, false)) = self.string() else { return false };
            if previous.is_some_and(|previous| previous >= key) {
                return false;
            }
            previous = Some(key);
            if !self.eat(b':') || !self.value(depth + 1) {
                return false;
            }
            if self.eat(b'}') {
                return true;
            }
            if !self.eat(b',') {
                return false;
            }
        }
    }

    fn array(&mut self, depth: usize) -> bool {
        self.at += 1;
        if self.eat(b']') {
            return true;
        }
        loop {
            if !self.value(depth + 1) {
                return false;
            }
            if self.eat(b']') {
                return true;
            }
            if !self.eat(b',') {
                return false;
            }
        }
    }

    /// The raw text of a string and whether it has escapes.
    fn string(&mut self) -> Option<(&'a [u8], bool)> {
        let start = self.at + 1;
        let mut at = start;
        let mut escaped = false;
        loop {
            at += self.text.get(at..)?.iter().position(|byte| *byte < 0x20 || matches!(byte, b'"' | b'\\'))?;
            match self.text[at] {
                b'"' => break,
                b'\\' => {
                    escaped = true;
                    at += match self.text.get(at + 1)? {
                        b'"' | b'\\' | b'b' | b'f' | b'n' | b'r' | b't' => 2,
                        b'u' => {
                            let code = self.text.get(at + 2..at + 6)?;
                            let canonical = code.starts_with(b"00")
                                && matches!(code[2], b'0' | b'1')
                                && matches!(code[3], b'0'..=b'9' | b'a'..=b'f')
                                && !matches!(&code[2..], b"08" | b"09" | b"0a" | b"0c" | b"0d");
                            if !canonical {
                                return None;
                            }
                            6
                        }
                        _ => return None,
                    };
                }
                _ => return None,
            }
        }
        self.at = at + 1;
        Some((&self.text[start..at], escaped))
    }

    fn number(&mut self) -> bool {
        let start = self.at;
        self.eat(b'-');
        let digits = self.at;
        while matches!(self.text.get(self.at), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        let length = self.at - digits;
        if length == 0 || matches!(self.text.get(self.at), Some(b'.' | b'e' | b'E')) {
            return false;
        }
        if self.text[digits] == b'0' {
            return length == 1 && start == digits;
        }
        // Fifteen digits are always within the range.
        if !self.strict || length <= 15 {
            return true;
        }
        let text = std::str::from_utf8(&self.text[start..self.at]).unwrap_or("");
        number_text(text, true).is_ok()
    }
}

/// A value that has been read.
enum Node<'a> {
    /// A literal or number in its canonical form.
    Plain(Cow<'a, str>),
    Text(Cow<'a, str>),
    Array(Vec<Node<'a>>),
    Object(Vec<(Cow<'a, str>, Node<'a>)>),
}

impl Node<'_> {
    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Node::Plain(text) => out.extend_from_slice(text.as_bytes()),
            Node::Text(text) => write_string(out, text),
            Node::Array(items) => {
                out.push(b'[');
                for (index, item) in items.iter().enumerate() {
                    if index > 0 {
                        out.push(b',');
                    }
                    item.write(out);
                }
                out.push(b']');
            }
            Node::Object(entries) => {
                out.push(b'{');
                for (index, (key, item)) in entries.iter().enumerate() {
                    if index > 0 {
                        out.push(b',');
                    }
                    write_string(out, key);
                    out.push(b':');
                    item.write(out);
                }
                out.push(b'}');
            }
        }
    }
}

/// Reads any JSON text.
struct Reader<'a> {
    text: &'a str,
    at: usize,
    strict: bool,
}

impl<'a> Reader<'a> {
    fn error(&self, what: &str) -> Error {
        Error::Json(format!("{what} at byte {}", self.at))
    }

    fn peek(&mut self) -> Option<u8> {
        self.at = skip_space(self.text.as_bytes(), self.at);
        self.text.as_bytes().get(self.at).copied()
    }

    fn value(&mut self, depth: usize) -> Result<Node<'a>, Error> {
        if depth > JSON_DEPTH_MAX {
            return Err(Error::Json(format!("it is nested deeper than {JSON_DEPTH_MAX} levels")));
        }
        match self.peek() {
            Some(b'{') => self.object(depth),
            Some(b'[') => self.array(depth),
            Some(b'"') => self.string().map(Node::Text),
            Some(b't') => self.word("true"),
            Some(b'f') => self.word("false"),
            Some(b'n') => self.word("null"),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(_) => Err(self.error("an unexpected character stands")),
            None => Err(self.error("the text ends too early")),
        }
    }

    fn word(&mut self, word: &'static str) -> Result<Node<'a>, Error> {
        if !self.text[self.at..].starts_with(word) {
            return Err(self.error("an unknown word stands"));
        }
        self.at += word.len();
        Ok(Node::Plain(Cow::Borrowed(word)))
    }

    fn object(&mut self, depth: usize) -> Result<Node<'a>, Error> {
        self.at += 1;
        let mut entries: Vec<(Cow<'a, str>, Node<'a>)> = Vec::new();
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(Node::Object(entries));
        }
        loop {
            if self.peek() != Some(b'"') {
                return Err(self.error("a key is missing"));
            }
            let key = self.string()?;
            if self.peek() != Some(b':') {
                return Err(self.error("a colon is missing"));
            }
            self.at += 1;
            let value = self.value(depth + 1)?;
            entries.push((key, value));
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b'}') => break,
                _ => return Err(self.error("a comma or brace is missing")),
            }
        }
        self.at += 1;
        // The sort is stable; of equal keys the last one stays.
        entries.sort_by(|a, b| a.0.cmp(&b.0));
        entries.reverse();
        entries.dedup_by(|a, b| a.0 == b.0);
        entries.reverse();
        Ok(Node::Object(entries))
    }

    fn array(&mut self, depth: usize) -> Result<Node<'a>, Error> {
        self.at += 1;
        let mut items = Vec::new();
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(Node::Array(items));
        }
        loop {
            items.push(self.value(depth + 1)?);
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b']') => break,
                _ => return Err(self.error("a comma or bracket is missing")),
            }
        }
        self.at += 1;
        Ok(Node::Array(items))
    }

    fn string(&mut self) -> Result<Cow<'a, str>, Error> {
        let bytes = self.text.as_bytes();
        let start = self.at;
        let mut at = start + 1;
        let mut escaped = false;
        loop {
            match bytes.get(at) {
                Some(b'"') => break,
                Some(b'\\') => {
                    escaped = true;
                    at += 2;
                }
                Some(0x00..=0x1f) => return Err(self.error("a control character stands in the string")),
                Some(_) => at += 1,
                None => return Err(self.error("no quote ends the string")),
            }
        }
        let whole = &self.text[start..=at];
        if !escaped {
            self.at = at + 1;
            return Ok(Cow::Borrowed(&whole[1..whole.len() - 1]));
        }
        let decoded = serde_json::from_str::<String>(whole).map_err(|_| self.error("an escape is wrong in the string"))?;
        self.at = at + 1;
        Ok(Cow::Owned(decoded))
    }

    fn number(&mut self) -> Result<Node<'a>, Error> {
        let bytes = self.text.as_bytes();
        let start = self.at;
        let digits = |at: &mut usize| {
            let from = *at;
            while matches!(bytes.get(*at), Some(b'0'..=b'9')) {
                *at += 1;
            }
            *at - from
        };
        let mut at = start + usize::from(bytes[start] == b'-');
        let leading_zero = bytes.get(at) == Some(&b'0');
        let length = digits(&mut at);
        let mut right = length == 1 || (length > 1 && !leading_zero);
        if bytes.get(at) == Some(&b'.') {
            at += 1;
            right &= digits(&mut at) > 0;
        }
        if matches!(bytes.get(at), Some(b'e' | b'E')) {
            at += 1;
            at += usize::from(matches!(bytes.get(at), Some(b'+' | b'-')));
            right &= digits(&mut at) > 0;
        }
        if !right {
            return Err(self.error("a number is malformed"));
        }
        let text = number_text(&self.text[start..at], self.strict)?;
        self.at = at;
        Ok(Node::Plain(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(input: &str, strict: bool, expected: Option<&str>) {
        let found = canonicalize(input.as_bytes(), strict).ok().map(|bytes| String::from_utf8(bytes.into_owned()).unwrap());
        assert_eq!(found.as_deref(), expected, "{input}");
    }

    #[test]
    fn examples_of_the_specification() {
        check("{}", true, Some("{}"));
        check(r#"{ "one": 1, "two": "Two" }"#, true, Some(r#"{"one":1,"two":"Two"}"#));
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
            ("9007199254740991", Some("9007199254740991"), Some("9007199254740991")),
            ("-9007199254740991", Some("-9007199254740991"), Some("-9007199254740991")),
            ("9007199254740992", None, Some("9007199254740992")),
            ("-9007199254740992", None, Some("-9007199254740992")),
            ("123456789012345678901234567890", None, Some("123456789012345678901234567890")),
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

    #[test]
    fn what_is_no_json() {
        for input in ["", " ", "{", "[1,]", "{\"a\":1,}", "{1:2}", "tru", "nulll", "\"\u{1}\"", "\"\\x\"", "\"\\ud800\"", "{} {}", "{\"a\" 1}", "'a'"] {
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
        assert!(canonicalize(nested(100_000).as_bytes(), true).is_err());
        assert!(canonicalize("[ ".repeat(100_000).as_bytes(), true).is_err());
        assert!(serde_json::from_str::<Value>(&nested(JSON_DEPTH_MAX)).is_ok());
    }

    #[test]
    fn canonical_text_is_borrowed() {
        for input in [r#"{"a":[1,-2,true,null,"x\n\u001f"],"b":{"c":"\\"}}"#, "[]", "12"] {
            assert!(matches!(canonicalize(input.as_bytes(), true), Ok(Cow::Borrowed(_))), "{input}");
            assert!(is_canonical(input.as_bytes(), true));
        }
        assert!(!is_canonical(b"{ }", true));
        assert!(!is_canonical(br#""\u000a""#, true));
    }
}

//! Walking JSON text without building a tree: the members of an object as raw slices.
//!
//! The text has been checked before (it is canonical JSON of ours). On anything else the walk ends early; it never panics.

use std::borrow::Cow;

use crate::limits::{LAX_FRACTION_MAX, LAX_INTEGER_DIGITS_MAX};

/// The deepest nesting of braces and brackets outside strings; for broken JSON any number will do.
pub fn nesting(json: &[u8]) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    let (mut in_string, mut escaped) = (false, false);
    for byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'{' | b'[' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

/// Whether a number is larger than a reader of JSON holds that has no other numbers than those of floating point. In broken JSON any
/// answer will do.
pub fn has_endless_number(json: &[u8]) -> bool {
    let mut at = 0;
    while let Some(byte) = json.get(at) {
        match byte {
            b'"' => at = skip_string(json, at).unwrap_or(json.len()),
            b'-' | b'0'..=b'9' => {
                let of_number = |byte: &&u8| matches!(byte, b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-');
                let end = at + json[at..].iter().take_while(of_number).count();
                let text = std::str::from_utf8(&json[at..end]).unwrap_or_default();
                // Hardly any number is so written that it could be.
                let may_be = text.len() >= LAX_INTEGER_DIGITS_MAX || text.contains(['e', 'E']);
                if may_be
                    && text
                        .parse::<f64>()
                        .is_ok_and(|number| number.abs() > LAX_FRACTION_MAX)
                {
                    return true;
                }
                at = end;
            }
            _ => at += 1,
        }
    }
    false
}

/// One member of an object.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Member<'a> {
    /// The key as written, without its quotes.
    pub key: &'a [u8],
    /// The value as written.
    pub value: &'a [u8],
    /// Where the value begins in the text that is walked.
    pub start: usize,
}

/// The members of the object that `text` is; nothing if it is no object.
pub(crate) fn members(text: &[u8]) -> Members<'_> {
    let at = skip_space(text, 0);
    let at = if text.get(at) == Some(&b'{') {
        at + 1
    } else {
        text.len()
    };
    Members { text, at }
}

pub(crate) struct Members<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Iterator for Members<'a> {
    type Item = Member<'a>;

    fn next(&mut self) -> Option<Member<'a>> {
        let text = self.text;
        let mut at = skip_space(text, self.at);
        if text.get(at) == Some(&b',') {
            at = skip_space(text, at + 1);
        }
        if text.get(at) != Some(&b'"') {
            self.at = text.len();
            return None;
        }
        let key_end = skip_string(text, at)?;
        let key = text.get(at + 1..key_end - 1)?;
        let mut start = skip_space(text, key_end);
        if text.get(start) != Some(&b':') {
            self.at = text.len();
            return None;
        }
        start = skip_space(text, start + 1);
        let end = skip_value(text, start)?;
        self.at = end;
        Some(Member {
            key,
            value: text.get(start..end)?,
            start,
        })
    }
}

/// The elements of the array that `text` is; nothing if it is no array.
pub(crate) fn elements(text: &[u8]) -> Elements<'_> {
    let at = skip_space(text, 0);
    let at = if text.get(at) == Some(&b'[') {
        at + 1
    } else {
        text.len()
    };
    Elements { text, at }
}

pub(crate) struct Elements<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Iterator for Elements<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let mut start = skip_space(self.text, self.at);
        if self.text.get(start) == Some(&b',') {
            start = skip_space(self.text, start + 1);
        }
        if matches!(self.text.get(start), None | Some(b']')) {
            self.at = self.text.len();
            return None;
        }
        let end = skip_value(self.text, start).filter(|end| *end > start)?;
        self.at = end;
        self.text.get(start..end)
    }
}

/// The value of the member with this key, as written.
pub(crate) fn get<'a>(text: &'a [u8], key: &str) -> Option<&'a [u8]> {
    members(text)
        .find(|member| member.key == key.as_bytes())
        .map(|member| member.value)
}

/// The string that `value` is, decoded; `None` if it is something else.
pub(crate) fn string(value: &[u8]) -> Option<Cow<'_, str>> {
    let inner = value.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    if inner.contains(&b'\\') {
        return serde_json::from_slice::<String>(value).ok().map(Cow::Owned);
    }
    std::str::from_utf8(inner).ok().map(Cow::Borrowed)
}

/// Writes a string in canonical JSON: only what must be escaped is, in the shortest way.
pub(crate) fn write_string(out: &mut Vec<u8>, text: &str) {
    let bytes = text.as_bytes();
    out.reserve(bytes.len() + 2);
    out.push(b'"');
    // Hardly any text has something to escape, and to see that takes a fraction of the time.
    let is_escaped = |byte: &u8| *byte < 0x20 || *byte == b'"' || *byte == b'\\';
    if !bytes.iter().fold(false, |found, byte| found | is_escaped(byte)) {
        out.extend_from_slice(bytes);
        out.push(b'"');
        return;
    }
    let mut from = 0;
    for (at, byte) in bytes.iter().enumerate() {
        let short = match byte {
            b'"' => b'"',
            b'\\' => b'\\',
            0x08 => b'b',
            0x09 => b't',
            0x0a => b'n',
            0x0c => b'f',
            0x0d => b'r',
            0x00..=0x1f => 0,
            _ => continue,
        };
        out.extend_from_slice(&bytes[from..at]);
        from = at + 1;
        if short != 0 {
            out.extend_from_slice(&[b'\\', short]);
        } else {
            const HEX: &[u8; 16] = b"0123456789abcdef";
            out.extend_from_slice(b"\\u00");
            out.push(HEX[usize::from(byte >> 4)]);
            out.push(HEX[usize::from(byte & 15)]);
        }
    }
    out.extend_from_slice(&bytes[from..]);
    out.push(b'"');
}

/// Whether a control character stands in a text. It looks at all of them: that takes less time than to stop at one.
pub(crate) fn has_control(text: &[u8]) -> bool {
    text.iter().fold(false, |found, byte| found | (*byte < 0x20))
}

/// Writes a whole number.
pub(crate) fn write_integer(out: &mut Vec<u8>, number: i64) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

pub(crate) fn skip_space(text: &[u8], mut at: usize) -> usize {
    while matches!(text.get(at), Some(b' ' | b'\t' | b'\n' | b'\r')) {
        at += 1;
    }
    at
}

/// The end of the string that begins (with its quote) at `at`.
fn skip_string(text: &[u8], at: usize) -> Option<usize> {
    let mut at = at + 1;
    loop {
        at += memchr::memchr2(b'"', b'\\', text.get(at..)?)?;
        if text[at] == b'"' {
            return Some(at + 1);
        }
        at += 2;
    }
}

/// The end of the value that begins at `at`.
fn skip_value(text: &[u8], at: usize) -> Option<usize> {
    match text.get(at)? {
        b'"' => skip_string(text, at),
        b'{' | b'[' => skip_nested(text, at),
        _ => {
            let length = text[at..]
                .iter()
                .position(|byte| matches!(byte, b',' | b'}' | b']' | b' ' | b'\t' | b'\n' | b'\r'));
            Some(length.map_or(text.len(), |length| at + length))
        }
    }
}

fn skip_nested(text: &[u8], mut at: usize) -> Option<usize> {
    let mut depth = 0_usize;
    loop {
        match text.get(at)? {
            b'"' => {
                at = skip_string(text, at)?;
                continue;
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' => {
                depth -= 1;
                if depth == 0 {
                    return Some(at + 1);
                }
            }
            _ => {}
        }
        at += 1;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn nesting_outside_of_strings() {
        for (text, expected) in [
            ("1", 0),
            ("[]", 1),
            (r#"{"a":[{}],"b":[]}"#, 3),
            (r#"{"a":"[[[\"[["}"#, 1),
        ] {
            assert_eq!(nesting(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn endless_numbers() {
        for (text, expected) in [
            (format!("[{}]", "9".repeat(308)), false),
            (format!("[{}]", "9".repeat(309)), true),
            (r#"{"a":-1e999}"#.to_owned(), true),
            (
                r#"{"a":1E-999,"b":1.5e300,"c":[true,null,false]}"#.to_owned(),
                false,
            ),
            (r#"{"1e999":"\"1e999"}"#.to_owned(), false),
            (format!("0.{}", "0".repeat(400)), false),
            ("-".to_owned(), false),
        ] {
            assert_eq!(has_endless_number(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn members_of_an_object() {
        let text = br#" { "a" : 1 , "b\"":"x\\\"}", "c":{"d":[1,{"e":"]"}]},"f":null }"#;
        let found: Vec<_> = members(text)
            .map(|m| {
                (
                    String::from_utf8_lossy(m.key).into_owned(),
                    String::from_utf8_lossy(m.value).into_owned(),
                )
            })
            .collect();
        let expected = [
            ("a", "1"),
            ("b\\\"", r#""x\\\"}""#),
            ("c", r#"{"d":[1,{"e":"]"}]}"#),
            ("f", "null"),
        ];
        assert_eq!(found.len(), expected.len());
        for ((key, value), (expected_key, expected_value)) in found.iter().zip(expected) {
            assert_eq!((key.as_str(), value.as_str()), (expected_key, expected_value));
        }
        assert!(members(b"{}").next().is_none());
        assert!(members(b"[1]").next().is_none());
    }

    #[test]
    fn elements_of_an_array() {
        let found: Vec<_> = elements(br#"["a", 1,[2,3] ,{}]"#).collect();
        assert_eq!(found, [&b"\"a\""[..], b"1", b"[2,3]", b"{}"]);
        assert!(elements(b"[]").next().is_none());
        assert!(elements(b"{}").next().is_none());
    }

    #[test]
    fn strings_are_escaped_as_canonical_json_wants() {
        let check = |input: &str, expected: &str| {
            let mut out = Vec::new();
            write_string(&mut out, input);
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        };
        check("a/b", r#""a/b""#);
        check("\"\\\u{8}\t\n\u{c}\r", r#""\"\\\b\t\n\f\r""#);
        check("\u{0}\u{1f}\u{7f}ü", "\"\\u0000\\u001f\u{7f}ü\"");
    }

    proptest! {
        #![proptest_config(crate::oracle::config(1))]

        #[test]
        fn walking_never_panics(text in proptest::collection::vec(prop_oneof![Just(b'{'), Just(b'}'), Just(b'['), Just(b']'), Just(b'"'), Just(b'\\'), Just(b','), Just(b':'), Just(b'1'), any::<u8>()], 0..60)) {
            members(&text).for_each(|member| { let _ = string(member.value); });
            elements(&text).for_each(drop);
        }

        #[test]
        fn escaping_agrees_with_serde(text in any::<String>()) {
            let mut out = Vec::new();
            write_string(&mut out, &text);
            prop_assert_eq!(&out, &serde_json::to_vec(&text).unwrap());
            prop_assert_eq!(string(&out).unwrap().into_owned(), text);
        }
    }
}

use std::borrow::Cow;

use crate::Error;
use crate::canonical::{number_text, too_deep};
use crate::json::{has_control, skip_space, write_string};
use crate::limits::JSON_DEPTH_MAX;

/// A value that has been read.
pub(crate) enum Node<'a> {
    /// A literal or number in its canonical form.
    Plain(Cow<'a, str>),
    Text(Cow<'a, str>),
    Array(Vec<Node<'a>>),
    Object(Vec<(Cow<'a, str>, Node<'a>)>),
}

impl Node<'_> {
    pub fn write(&self, out: &mut Vec<u8>) {
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
pub(crate) struct Reader<'a> {
    pub text: &'a str,
    pub at: usize,
    pub strict: bool,
}

impl<'a> Reader<'a> {
    pub fn error(&self, what: &str) -> Error {
        Error::Json(format!("{what} at byte {}", self.at))
    }

    fn peek(&mut self) -> Option<u8> {
        self.at = skip_space(self.text.as_bytes(), self.at);
        self.text.as_bytes().get(self.at).copied()
    }

    pub fn value(&mut self, depth: usize) -> Result<Node<'a>, Error> {
        match self.peek() {
            Some(b'{' | b'[') if depth >= JSON_DEPTH_MAX => Err(too_deep()),
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
            let next = bytes
                .get(at..)
                .and_then(|rest| memchr::memchr2(b'"', b'\\', rest));
            at += next.ok_or_else(|| self.error("no quote ends the string"))?;
            if bytes[at] == b'"' {
                break;
            }
            escaped = true;
            at += 2;
        }
        let whole = &self.text[start..=at];
        if has_control(whole.as_bytes()) {
            return Err(self.error("a control character stands in the string"));
        }
        if !escaped {
            self.at = at + 1;
            return Ok(Cow::Borrowed(&whole[1..whole.len() - 1]));
        }
        let decoded = serde_json::from_str::<String>(whole)
            .map_err(|_| self.error("an escape is wrong in the string"))?;
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

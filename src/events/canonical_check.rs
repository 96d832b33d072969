use memchr::memchr2;

use crate::canonical::number_text;
use crate::json::has_control;
use crate::limits::{JSON_DEPTH_MAX, LAX_INTEGER_DIGITS_MAX};

/// Recognizes text that is canonical as it stands, in one pass and without allocating. `false` means only "not certain".
pub(crate) struct Checker<'a> {
    pub text: &'a [u8],
    pub at: usize,
    pub strict: bool,
}

impl<'a> Checker<'a> {
    pub fn whole(mut self) -> bool {
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
        match self.text.get(self.at) {
            Some(b'{' | b'[') if depth >= JSON_DEPTH_MAX => false,
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
            let Some((key, false)) = self.string() else {
                return false;
            };
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
            at += memchr2(b'"', b'\\', self.text.get(at..)?)?;
            if self.text[at] == b'"' {
                break;
            }
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
        self.at = at + 1;
        let raw = &self.text[start..at];
        (!has_control(raw)).then_some((raw, escaped))
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
        if !self.strict {
            return self.at - start <= LAX_INTEGER_DIGITS_MAX;
        }
        // Fifteen digits are always within the range.
        if length <= 15 {
            return true;
        }
        let text = std::str::from_utf8(&self.text[start..self.at]).unwrap_or("");
        number_text(text, true).is_ok()
    }
}

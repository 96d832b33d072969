//! Encoding of keys: integers big-endian, text so that its order is kept and its end is found.

use std::borrow::Cow;

use crate::{EntityKey, Slot};

/// Builds a key.
#[derive(Debug)]
pub struct KeyWriter(Vec<u8>);

impl KeyWriter {
    /// Starts an empty key for which about `capacity` bytes are needed.
    pub fn new(capacity: usize) -> KeyWriter {
        KeyWriter(Vec::with_capacity(capacity))
    }

    /// Starts a key of an entity, leaving room for `more` bytes.
    pub fn of(entity: EntityKey, more: usize) -> KeyWriter {
        KeyWriter::new(EntityKey::LEN + more).bytes(&entity.to_bytes())
    }

    /// Starts a key of a slot, leaving room for `more` bytes.
    pub fn of_slot(slot: Slot, more: usize) -> KeyWriter {
        KeyWriter::new(2 + more).bytes(&slot.to_bytes())
    }

    /// Appends one byte.
    pub fn u8(self, number: u8) -> KeyWriter {
        self.bytes(&[number])
    }

    /// Appends a big-endian number.
    pub fn u16(self, number: u16) -> KeyWriter {
        self.bytes(&number.to_be_bytes())
    }

    /// Appends a big-endian number.
    pub fn u32(self, number: u32) -> KeyWriter {
        self.bytes(&number.to_be_bytes())
    }

    /// Appends a big-endian number.
    pub fn u64(self, number: u64) -> KeyWriter {
        self.bytes(&number.to_be_bytes())
    }

    /// Appends a signed number so that the byte order is the numeric order.
    pub fn i32(self, number: i32) -> KeyWriter {
        self.u32((number as u32) ^ 0x8000_0000)
    }

    /// Appends bytes as they are.
    pub fn bytes(mut self, bytes: &[u8]) -> KeyWriter {
        self.0.extend_from_slice(bytes);
        self
    }

    /// Appends text that something follows: a NUL ends it. Inside, NUL is written `01 01` and the byte 01
    /// `01 02`, which keeps the order and leaves no doubt where the text ends.
    pub fn text(mut self, text: &str) -> KeyWriter {
        for byte in text.bytes() {
            match byte {
                0 => self.0.extend_from_slice(&[1, 1]),
                1 => self.0.extend_from_slice(&[1, 2]),
                _ => self.0.push(byte),
            }
        }
        self.0.push(0);
        self
    }

    /// Appends text as the last part of the key.
    pub fn rest(self, text: &str) -> KeyWriter {
        self.bytes(text.as_bytes())
    }

    /// The finished key.
    pub fn done(self) -> Vec<u8> {
        self.0
    }
}

/// Takes a key apart; every method gives `None` where the bytes do not fit.
#[derive(Debug)]
pub struct KeyReader<'a>(&'a [u8]);

impl<'a> KeyReader<'a> {
    /// Starts at the key's first byte.
    pub fn new(key: &'a [u8]) -> KeyReader<'a> {
        KeyReader(key)
    }

    /// Reads a fixed number of bytes.
    pub fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, tail) = self.0.split_first_chunk::<N>()?;
        self.0 = tail;
        Some(*head)
    }

    /// Reads an entity's address.
    pub fn entity(&mut self) -> Option<EntityKey> {
        EntityKey::from_bytes(self.array()?)
    }

    /// Reads a slot.
    pub fn slot(&mut self) -> Option<Slot> {
        Slot::new(self.u16()?)
    }

    /// Reads one byte.
    pub fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    /// Reads a big-endian number.
    pub fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    /// Reads a big-endian number.
    pub fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    /// Reads a big-endian number.
    pub fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    /// Reads an order-preserving signed number.
    pub fn i32(&mut self) -> Option<i32> {
        self.u32().map(|number| (number ^ 0x8000_0000) as i32)
    }

    /// Reads text up to its NUL.
    pub fn text(&mut self) -> Option<Cow<'a, str>> {
        let end = self.0.iter().position(|byte| *byte == 0)?;
        let (head, tail) = self.0.split_at(end);
        self.0 = &tail[1..];
        if !head.contains(&1) {
            return std::str::from_utf8(head).ok().map(Cow::Borrowed);
        }
        let mut plain = Vec::with_capacity(head.len());
        let mut bytes = head.iter();
        while let Some(byte) = bytes.next() {
            plain.push(match byte {
                1 => bytes.next()?.checked_sub(1).filter(|byte| *byte < 2)?,
                byte => *byte,
            });
        }
        String::from_utf8(plain).ok().map(Cow::Owned)
    }

    /// The remaining bytes, as text.
    pub fn rest(self) -> Option<&'a str> {
        std::str::from_utf8(self.0).ok()
    }

    /// The remaining bytes.
    pub fn rest_bytes(self) -> &'a [u8] {
        self.0
    }

    /// Succeeds only if nothing is left.
    pub fn end(self) -> Option<()> {
        self.0.is_empty().then_some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_round_trips_and_keeps_its_parts_apart() {
        for (first, second) in [
            ("a", "b"),
            ("", ""),
            ("a\0b", "c"),
            ("a", "b\0c"),
            ("\0", "\0\0"),
            ("ä\0\u{1}", "\u{1}"),
        ] {
            let key = KeyWriter::new(16).text(first).rest(second).done();
            let mut reader = KeyReader::new(&key);
            assert_eq!(reader.text().as_deref(), Some(first));
            assert_eq!(reader.rest(), Some(second));
        }
        let joined = |first, second| KeyWriter::new(16).text(first).rest(second).done();
        assert_ne!(joined("a\0b", "c"), joined("a", "b\0c"));
        assert!(joined("a", "z") < joined("aa", ""), "a type's rows stay together");
    }

    #[test]
    fn signed_numbers_sort() {
        let key = |number| KeyWriter::new(4).i32(number).done();
        let numbers = [i32::MIN, -2, -1, 0, 1, i32::MAX];
        for pair in numbers.windows(2) {
            assert!(key(pair[0]) < key(pair[1]));
        }
        for number in numbers {
            assert_eq!(KeyReader::new(&key(number)).i32(), Some(number));
        }
    }

    #[test]
    fn short_keys_are_refused() {
        assert_eq!(KeyReader::new(&[1]).u16(), None);
        assert_eq!(KeyReader::new(b"no end").text(), None);
        assert_eq!(KeyReader::new(&[0xFF; 6]).entity(), None);
    }
}

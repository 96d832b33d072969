//! Values: one tag byte that says the format, then the content.
//!
//! Cold values are JSON behind tag 1. Hot values are coded by hand behind tags of their own family;
//! the functions here are what they share.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::Error;

/// The tag of a value that is JSON.
pub const JSON_V1: u8 = 1;

/// Encodes a cold value.
///
/// # Panics
/// If the type cannot be JSON (a map with keys that are not text), which is a fault of the type, not
/// of the data.
pub fn encode<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(128);
    bytes.push(JSON_V1);
    serde_json::to_writer(&mut bytes, value).expect("stored types are representable as JSON");
    bytes
}

/// Decodes a cold value.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Error> {
    match bytes.split_first() {
        Some((&JSON_V1, json)) => serde_json::from_slice(json).map_err(|error| {
            tracing::error!(%error, record = std::any::type_name::<T>(), "a stored record is not readable");
            Error::Corrupt(std::any::type_name::<T>())
        }),
        _ => Err(Error::Corrupt(std::any::type_name::<T>())),
    }
}

/// Appends a number in 7-bit groups, low group first: small numbers take one byte.
pub fn put_varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Reads a number of [`put_varint`] from the front of `bytes`.
pub fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for (at, byte) in bytes.iter().enumerate().take(10) {
        let group = u64::from(byte & 0x7F);
        let shifted = group << (7 * at);
        if shifted >> (7 * at) != group {
            return None;
        }
        number |= shifted;
        if byte & 0x80 == 0 {
            *bytes = &bytes[at + 1..];
            return Some(number);
        }
    }
    None
}

/// Reads a fixed number of bytes from the front of `bytes`.
pub fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (head, tail) = bytes.split_first_chunk::<N>()?;
    *bytes = tail;
    Some(*head)
}

/// Reads `len` bytes from the front of `bytes`.
pub fn take_slice<'a>(bytes: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let (head, tail) = bytes.split_at_checked(len)?;
    *bytes = tail;
    Some(head)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_round_trips() {
        let value = vec![("a".to_owned(), 1_u64), ("b".to_owned(), 2)];
        assert_eq!(decode::<Vec<(String, u64)>>(&encode(&value)), Ok(value));
        assert!(matches!(decode::<u64>(&[]), Err(Error::Corrupt(_))));
        assert!(matches!(decode::<u64>(&[9, b'1']), Err(Error::Corrupt(_))));
        assert!(matches!(decode::<u64>(b"\x01x"), Err(Error::Corrupt(_))));
    }

    #[test]
    fn varints_round_trip() {
        for number in [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX] {
            let mut bytes = Vec::new();
            put_varint(&mut bytes, number);
            let mut rest = &bytes[..];
            assert_eq!(take_varint(&mut rest), Some(number));
            assert!(rest.is_empty());
        }
        assert_eq!(take_varint(&mut &[0x80_u8][..]), None, "cut off");
        assert_eq!(take_varint(&mut &[0xFF_u8; 11][..]), None, "too long");
    }
}

//! The stored format, one file a column family: the key's struct and byte layout, and who writes it.
//!
//! `docs/storage-keys.md` is generated from these files by [`render_docs`]; a test checks that it is
//! current, and writes it when `UPDATE_GENERATED` is set (`make docs`).

use std::borrow::Cow;
use std::fmt::Write as _;

use crate::family::Profile;
use crate::key::{KeyReader, KeyWriter};
use crate::{EntityKey, Family, ShardId, Slot};

/// The version of the whole data directory. A directory of another version is refused.
pub const SCHEMA_VERSION: u32 = 1;

/// What an operator or a reader of the code should know about a family.
#[derive(Debug)]
pub struct FamilyDoc {
    /// The key's bytes.
    pub key: &'static str,
    /// The value's bytes.
    pub value: &'static str,
    /// Who writes it.
    pub writer: &'static str,
    /// What makes it grow and what makes it shrink.
    pub growth: &'static str,
    /// How the engine is tuned for it.
    pub profile: Profile,
}

/// A part of a key with a fixed place and encoding.
pub(crate) trait Part<'a>: Sized {
    fn put(&self, key: KeyWriter) -> KeyWriter;
    fn take(key: &mut KeyReader<'a>) -> Option<Self>;
}

macro_rules! number_parts {
    ($($kind:ident),*) => {$(
        impl Part<'_> for $kind {
            fn put(&self, key: KeyWriter) -> KeyWriter { key.$kind(*self) }
            fn take(key: &mut KeyReader<'_>) -> Option<Self> { key.$kind() }
        }
    )*};
}
number_parts!(u8, u16, u32, u64, i32);

impl Part<'_> for EntityKey {
    fn put(&self, key: KeyWriter) -> KeyWriter {
        key.bytes(&self.to_bytes())
    }
    fn take(key: &mut KeyReader<'_>) -> Option<Self> {
        key.entity()
    }
}

impl Part<'_> for Slot {
    fn put(&self, key: KeyWriter) -> KeyWriter {
        key.bytes(&self.to_bytes())
    }
    fn take(key: &mut KeyReader<'_>) -> Option<Self> {
        key.slot()
    }
}

impl Part<'_> for ShardId {
    fn put(&self, key: KeyWriter) -> KeyWriter {
        key.u16(self.0)
    }
    fn take(key: &mut KeyReader<'_>) -> Option<Self> {
        key.u16().map(ShardId)
    }
}

impl<const N: usize> Part<'_> for [u8; N] {
    fn put(&self, key: KeyWriter) -> KeyWriter {
        key.bytes(self)
    }
    fn take(key: &mut KeyReader<'_>) -> Option<Self> {
        key.array()
    }
}

/// Text inside a key, ended by a NUL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text<'a>(pub Cow<'a, str>);

/// Text at the end of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rest<'a>(pub Cow<'a, str>);

/// Bytes at the end of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tail<'a>(pub Cow<'a, [u8]>);

impl<'a> From<&'a [u8]> for Tail<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Tail(Cow::Borrowed(bytes))
    }
}

impl<'a> Part<'a> for Tail<'a> {
    fn put(&self, key: KeyWriter) -> KeyWriter {
        key.bytes(&self.0)
    }
    fn take(key: &mut KeyReader<'a>) -> Option<Self> {
        Some(Tail(Cow::Borrowed(
            std::mem::replace(key, KeyReader::new(&[])).rest_bytes(),
        )))
    }
}

impl<'a> From<&'a str> for Text<'a> {
    fn from(text: &'a str) -> Self {
        Text(Cow::Borrowed(text))
    }
}

impl<'a> From<&'a str> for Rest<'a> {
    fn from(text: &'a str) -> Self {
        Rest(Cow::Borrowed(text))
    }
}

impl<'a> Part<'a> for Text<'a> {
    fn put(&self, key: KeyWriter) -> KeyWriter {
        key.text(&self.0)
    }
    fn take(key: &mut KeyReader<'a>) -> Option<Self> {
        key.text().map(Text)
    }
}

impl<'a> Part<'a> for Rest<'a> {
    fn put(&self, key: KeyWriter) -> KeyWriter {
        key.rest(&self.0)
    }
    fn take(key: &mut KeyReader<'a>) -> Option<Self> {
        std::mem::replace(key, KeyReader::new(&[]))
            .rest()
            .map(|text| Rest(Cow::Borrowed(text)))
    }
}

/// Defines a key: its fields in the order in which they are written. The first line of its
/// documentation is its byte layout.
macro_rules! key {
    ($(#[$doc:meta])* pub struct $name:ident $(<$life:lifetime>)? { $($(#[$field_doc:meta])* $field:ident: $kind:ty,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct $name $(<$life>)? { $($(#[$field_doc])* pub $field: $kind,)* }

        impl $(<$life>)? $name $(<$life>)? {
            /// The stored bytes.
            pub fn encode(&self) -> Vec<u8> {
                let key = $crate::key::KeyWriter::new(48);
                $(let key = $crate::schema::Part::put(&self.$field, key);)*
                key.done()
            }
        }

        $crate::schema::key!(@decode $name [$($life)?] $($field)*);
    };
    (@decode $name:ident [] $($field:ident)*) => {
        impl $name {
            /// Reads the stored bytes.
            pub fn decode(bytes: &[u8]) -> Option<Self> {
                let mut key = $crate::key::KeyReader::new(bytes);
                $(let $field = $crate::schema::Part::take(&mut key)?;)*
                key.end()?;
                Some($name { $($field,)* })
            }
        }
    };
    (@decode $name:ident [$life:lifetime] $($field:ident)*) => {
        impl<$life> $name<$life> {
            /// Reads the stored bytes.
            pub fn decode(bytes: &$life [u8]) -> Option<Self> {
                let mut key = $crate::key::KeyReader::new(bytes);
                $(let $field = $crate::schema::Part::take(&mut key)?;)*
                key.end()?;
                Some($name { $($field,)* })
            }
        }
    };
}
pub(crate) use key;

/// Tests that keys, given in their intended order, are written in that order and read back.
#[cfg(test)]
macro_rules! key_test {
    ($name:ident: $($key:expr),* $(,)?) => {
        #[cfg(test)]
        mod tests {
            use super::*;
            #[allow(unused_imports, reason = "not every key holds an entity")]
            use $crate::schema::tests::{entity, slot};

            #[test]
            fn keys_round_trip_in_order() {
                let keys = [$($key),*];
                for pair in keys.windows(2) {
                    assert!(pair[0].encode() < pair[1].encode(), "{:?} sorts before {:?}", pair[0], pair[1]);
                }
                for key in &keys {
                    let bytes = key.encode();
                    assert_eq!($name::decode(&bytes).as_ref(), Some(key));
                    for cut in 0..bytes.len() {
                        let _ = $name::decode(&bytes[..cut]);
                    }
                }
            }
        }
    };
}
#[cfg(not(test))]
macro_rules! key_test {
    ($($tokens:tt)*) => {};
}

pub mod alias;
pub mod cursor;
pub mod delayed_event;
pub mod destination;
pub mod device_key;
pub mod entity;
pub mod feed;
pub mod key_backup;
pub mod media;
pub mod meta;
pub mod one_time_key;
pub mod one_time_key_id;
pub mod outbox;
pub mod push_queue;
pub mod remote_user;
pub mod room;
pub mod room_event;
pub mod room_event_id;
pub mod room_inbound;
pub mod room_index;
pub mod room_receipt;
pub mod room_state;
pub mod room_state_at;
pub mod room_state_key;
pub mod room_state_node;
pub mod room_state_other;
pub mod room_timeline;
pub mod room_txn;
pub mod server_key;
pub mod sync_connection;
pub mod thread_subscription;
pub mod to_device;
pub mod to_device_mark;
pub mod token_misc;
pub mod uia_session;
pub mod user;
pub mod user_change;
pub mod user_data;
pub mod user_device;
pub mod user_room;
pub mod user_token;
pub mod view;

/// The range `[start, end)` that holds everything of one entity in a family.
pub fn entity_range(entity: EntityKey) -> (Vec<u8>, Vec<u8>) {
    let start = entity.to_bytes().to_vec();
    // A slot is below 0x4000, so the first byte never is 0xFF.
    let end = crate::prefix_end(&start);
    (start, end)
}

/// The page `docs/storage-keys.md`.
pub fn render_docs() -> String {
    let mut page = String::from(
        "# Storage keys\n\n\
         Generated from `src/storage/schema/` by `make docs`; do not edit.\n\n\
         Integers are big-endian. An *entity* is `slot u16 · number u32`, where the slot is `XXH3-64(name) & 0x3FFF` \
         and the number is never given twice. *Text* inside a key ends with a NUL; in it a NUL is written `01 01` and the byte 01 `01 02`. \
         Every value starts with a tag byte that names its format; tag 1 of a cold value is JSON.\n\n\
         In RocksDB the families of one profile share a column family, where the family's code byte precedes the key.\n\n",
    );
    let _ = writeln!(page, "The data directory has schema version {SCHEMA_VERSION}.");
    for family in Family::ALL {
        let doc = family.doc();
        let _ = write!(
            page,
            "\n## {}\n- Code: {}\n- Key: {}\n- Value: {}\n- Writer: {}\n- Growth: {}\n- Profile: {:?}\n",
            family.name(),
            family.code(),
            doc.key,
            doc.value,
            doc.writer,
            doc.growth,
            doc.profile,
        );
    }
    page
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn slot(number: u16) -> Slot {
        Slot::new(number).unwrap()
    }

    pub(crate) fn entity(number: u16, no: u32) -> EntityKey {
        EntityKey {
            slot: slot(number),
            no,
        }
    }

    #[test]
    fn the_generated_key_map_is_current() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/storage-keys.md");
        let page = render_docs();
        if std::env::var_os("UPDATE_GENERATED").is_some() {
            std::fs::create_dir_all(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs")).unwrap();
            std::fs::write(path, &page).unwrap();
        }
        let stored = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            stored == page,
            "docs/storage-keys.md is out of date; run `make docs` and commit the result"
        );
    }

    #[test]
    fn an_entity_range_holds_its_keys_alone() {
        let (start, end) = entity_range(entity(5, 7));
        let key = |no, rest: &[u8]| KeyWriter::of(entity(5, no), 4).bytes(rest).done();
        assert!(key(7, b"") >= start && key(7, &[0xFF; 4]) < end);
        assert!(key(6, &[0xFF; 4]) < start && key(8, b"") >= end);
    }
}

//! Relations between events: the index that `/relations`, the threads list and bundled
//! aggregations read (client-server API, "Forming relationships between events").

mod bundle;
mod threads;

use std::sync::LazyLock;

use hearth_storage::Family;
use memchr::memmem::Finder;
use ruma::OwnedEventId;

use crate::{
    Error, Room,
    event::{Place, Short},
    keys,
};

pub use bundle::Bundle;
pub use threads::Thread;
pub(crate) use threads::ThreadRows;

/// An event's `m.relates_to`, as far as the server reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relation {
    /// `m.annotation`, `m.replace`, `m.thread`, `m.reference`, or a custom type.
    pub rel_type: String,
    /// The event related to.
    pub event_id: OwnedEventId,
    /// The key of an annotation.
    pub key: Option<String>,
}

impl Relation {
    /// The relation that a content states; anything malformed states none.
    pub fn of_content(content: &[u8]) -> Option<Self> {
        #[derive(serde::Deserialize)]
        struct Content {
            #[serde(rename = "m.relates_to")]
            relates_to: Option<serde_json::Value>,
        }
        // Most contents have none: they are not parsed.
        static KEY: LazyLock<Finder<'_>> = LazyLock::new(|| Finder::new(b"\"m.relates_to\""));
        KEY.find(content)?;
        let relates_to = serde_json::from_slice::<Content>(content).ok()?.relates_to?;
        let text = |name: &str| relates_to.get(name)?.as_str().map(str::to_owned);
        Some(Self {
            rel_type: text("rel_type")?,
            event_id: OwnedEventId::try_from(text("event_id")?).ok()?,
            key: text("key"),
        })
    }

    /// The value of the relation's row.
    pub(crate) fn row(&self, kind: &str) -> Vec<u8> {
        keys::tagged(&[self.rel_type.as_bytes(), &[0], kind.as_bytes()].concat())
    }
}

/// A row of the relations index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelationRow {
    /// Where the related event stands in the timeline.
    pub place: Place,
    /// The related event.
    pub child: Short,
    /// Its relation's type.
    pub rel_type: String,
    /// Its event type.
    pub kind: String,
}

impl Room {
    /// Visits the relations of an event in the order of the timeline, or backwards from before a
    /// place (forwards: from after it); stop by returning false.
    pub fn visit_relations(
        &self,
        parent: Short,
        from: Option<Place>,
        backward: bool,
        visit: &mut dyn FnMut(RelationRow) -> bool,
    ) -> Result<(), Error> {
        let all = keys::index(self.0.key, keys::INDEX_RELATION, &[]);
        if parent > self.view().hints.related || !self.0.relations.be(|| self.has_rows(&all))? {
            return Ok(());
        }
        let prefix = keys::index(self.0.key, keys::INDEX_RELATION, &[&parent.to_be_bytes()]);
        let skip = prefix.len();
        let (mut start, mut end) = keys::range(prefix.clone());
        if let Some(place) = from {
            let bound = [prefix.as_slice(), &keys::place_bytes(place)].concat();
            match backward {
                true => end = bound,
                false => start = hearth_storage::prefix_end(&bound),
            }
        }
        self.reader()
            .scan(Family::RoomIndex, &start, &end, backward, &mut |key, value| {
                let Some(place) = keys::read_place(&key[skip..]) else {
                    return true;
                };
                let Ok(child) = keys::read_u32(&key[skip + 12..], "relation") else {
                    return true;
                };
                let Some(value) = keys::untagged(value) else {
                    return true;
                };
                let mut parts = value.splitn(2, |byte| *byte == 0);
                let mut text = || String::from_utf8_lossy(parts.next().unwrap_or_default()).into_owned();
                visit(RelationRow {
                    place,
                    child,
                    rel_type: text(),
                    kind: text(),
                })
            })?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relations_are_read_leniently() {
        for (content, expected) in [
            (r#"{"body":"m.relates_to"}"#, None),
            (r#"{"m.relates_to":5}"#, None),
            (r#"{"m.relates_to":{"rel_type":"m.thread"}}"#, None),
            (r#"{"m.relates_to":{"rel_type":"m.thread","event_id":5}}"#, None),
            (
                r#"{"m.relates_to":{"rel_type":"m.thread","event_id":"$a"}}"#,
                Some(("m.thread", None)),
            ),
            (
                r#"{"m.relates_to":{"rel_type":"m.annotation","event_id":"$a","key":"+"}}"#,
                Some(("m.annotation", Some("+"))),
            ),
        ] {
            let found = Relation::of_content(content.as_bytes());
            let found = found
                .as_ref()
                .map(|found| (found.rel_type.as_str(), found.key.as_deref()));
            assert_eq!(found, expected, "{content}");
        }
    }
}

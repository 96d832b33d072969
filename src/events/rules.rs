use std::ops::Deref;
use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use ruma::room_version_rules::{
    EventIdFormatVersion, EventsReferenceFormatVersion, RoomIdFormatVersion, RoomVersionRules,
};
use ruma::{EventId, OwnedEventId, OwnedRoomId, RoomId, RoomVersionId};

use crate::Error;
use crate::limits::INTEGER_MAX;

/// What a room version demands. Dereferences to Ruma's rules, so that code reads `rules.authorization.knocking`; no code compares versions.
#[derive(Debug)]
pub struct Rules {
    /// The version these rules are of.
    pub version: RoomVersionId,
    /// Whether the specification has the version; others are of proposals, and may go.
    pub stable: bool,
    /// Whether a state key that begins with a user id and an underscore is that user's too, and users with more power may
    /// set the state of others (MSC3757).
    pub owned_state: bool,
    inner: RoomVersionRules,
}

impl Deref for Rules {
    type Target = RoomVersionRules;
    fn deref(&self) -> &RoomVersionRules {
        &self.inner
    }
}

static ALL: LazyLock<Vec<Rules>> = LazyLock::new(|| {
    use RoomVersionId as V;
    [
        V::V1,
        V::V2,
        V::V3,
        V::V4,
        V::V5,
        V::V6,
        V::V7,
        V::V8,
        V::V9,
        V::V10,
        V::V11,
        V::V12,
    ]
    .into_iter()
    .filter_map(Rules::stable)
    .chain(Rules::with_owned_state())
    .collect()
});

/// Room version 10 with owned state events.
const OWNED_STATE: &str = "org.matrix.msc3757.10";

/// The rules of a room version, `None` for a version this server does not know.
pub fn rules(version: &RoomVersionId) -> Option<&'static Rules> {
    ALL.iter().find(|rules| rules.version == *version)
}

impl Rules {
    fn stable(version: RoomVersionId) -> Option<Rules> {
        Some(Rules {
            inner: version.rules()?,
            version,
            stable: true,
            owned_state: false,
        })
    }

    /// MSC3757 on top of room version 10.
    fn with_owned_state() -> Option<Rules> {
        Some(Rules {
            version: RoomVersionId::try_from(OWNED_STATE).ok()?,
            stable: false,
            owned_state: true,
            ..Rules::stable(RoomVersionId::V10)?
        })
    }

    /// The rules of every room version this server knows, oldest first, those of proposals at the end.
    pub fn all() -> &'static [Rules] {
        &ALL
    }

    /// Whether integers outside ±(2^53 - 1) and fractions make an event unacceptable.
    pub fn strict_json(&self) -> bool {
        self.authorization.strict_canonical_json
    }

    /// The greatest depth that an event may have.
    pub fn depth_max(&self) -> u64 {
        let max = if self.strict_json() { INTEGER_MAX } else { i64::MAX };
        max.unsigned_abs()
    }

    /// The depth of an event that follows others, of which the deepest has this one. There is none beyond the greatest.
    pub fn depth_after(&self, deepest: u64) -> u64 {
        deepest.saturating_add(1).min(self.depth_max())
    }

    /// Whether the fields of an event may have 255 characters instead of 255 bytes. The specification says bytes for all
    /// versions, but much of the network counted characters before version 11: such events are in rooms, and who refused
    /// them would have other rooms than the others. Events that are made here have at most 255 bytes in every version.
    pub fn counts_characters(&self) -> bool {
        use RoomVersionId as V;
        !matches!(self.version, V::V11 | V::V12)
    }

    /// Whether events carry their id (`$opaque:server`) instead of being named by their reference hash.
    pub fn explicit_event_ids(&self) -> bool {
        self.event_id_format == EventIdFormatVersion::V1
    }

    /// Whether references to events are `["$id", {"sha256": …}]` pairs instead of ids.
    pub fn paired_references(&self) -> bool {
        self.events_reference_format == EventsReferenceFormatVersion::V1
    }

    /// Whether the room is named by the hash of its create event, which then has no `room_id` and is never listed in `auth_events`.
    pub fn room_id_is_create_hash(&self) -> bool {
        self.room_id_format == RoomIdFormatVersion::V2
    }

    /// The reference hash in the base64 alphabet of this version's event ids.
    pub fn encode_reference_hash(&self, hash: &[u8; 32]) -> String {
        match self.event_id_format {
            EventIdFormatVersion::V1 | EventIdFormatVersion::V2 => STANDARD_NO_PAD.encode(hash),
            _ => URL_SAFE_NO_PAD.encode(hash),
        }
    }

    /// The id of an event with this reference hash; only for versions without explicit ids.
    pub(crate) fn event_id_of_hash(&self, hash: &[u8; 32]) -> Result<OwnedEventId, Error> {
        let id = ["$", &self.encode_reference_hash(hash)].concat();
        OwnedEventId::try_from(id)
            .map_err(|error| Error::Format(format!("an event id cannot be used ({error})")))
    }

    /// The id of the room that this create event makes, in versions where the room is named by the create event's hash.
    pub fn room_id_of_create(&self, create: &EventId) -> Result<OwnedRoomId, Error> {
        let id = format!("!{}", create.as_str().trim_start_matches('$'));
        RoomId::parse(&id)
            .map_err(|error| Error::Format(format!("the room id {id} cannot be used ({error})")))
    }

    /// The id of the create event of this room, where the room's id tells it.
    pub fn create_event_of_room(&self, room: &RoomId) -> Option<OwnedEventId> {
        if !self.room_id_is_create_hash() {
            return None;
        }
        EventId::parse(format!("${}", room.as_str().trim_start_matches('!'))).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_stable_version_has_rules() {
        assert_eq!(Rules::all().iter().filter(|rules| rules.stable).count(), 12);
        for number in 1..=12 {
            let version = RoomVersionId::try_from(number.to_string()).unwrap();
            assert_eq!(rules(&version).unwrap().version, version);
        }
        assert!(rules(&RoomVersionId::try_from("org.example.unknown").unwrap()).is_none());
    }

    #[test]
    fn owned_state_is_version_10_with_one_rule_more() {
        let rules = rules(&RoomVersionId::try_from(OWNED_STATE).unwrap()).unwrap();
        assert!(rules.owned_state && !rules.stable);
        assert!(rules.authorization.integer_power_levels && !rules.authorization.use_room_create_sender);
        assert!(
            Rules::all()
                .iter()
                .filter(|rules| rules.stable)
                .all(|rules| !rules.owned_state)
        );
    }

    #[test]
    fn what_changes_with_the_version() {
        let check = |version: &str, explicit: bool, strict: bool, hash_rooms: bool| {
            let rules = rules(&RoomVersionId::try_from(version).unwrap()).unwrap();
            assert_eq!(rules.explicit_event_ids(), explicit, "{version}");
            assert_eq!(rules.paired_references(), explicit, "{version}");
            assert_eq!(rules.strict_json(), strict, "{version}");
            assert_eq!(rules.room_id_is_create_hash(), hash_rooms, "{version}");
        };
        check("1", true, false, false);
        check("2", true, false, false);
        check("3", false, false, false);
        check("5", false, false, false);
        check("6", false, true, false);
        check("11", false, true, false);
        check("12", false, true, true);
    }

    #[test]
    fn nothing_is_deeper_than_the_deepest() {
        for (version, max) in [
            ("1", (1 << 63) - 1),
            ("5", (1 << 63) - 1),
            ("6", (1 << 53) - 1),
            ("12", (1 << 53) - 1),
        ] {
            let rules = rules(&RoomVersionId::try_from(version).unwrap()).unwrap();
            for (deepest, expected) in [(0, 1), (max - 1, max), (max, max), (u64::MAX, max)] {
                assert_eq!(rules.depth_after(deepest), expected, "{deepest} in {version}");
            }
        }
    }

    #[test]
    fn hashes_use_the_alphabet_of_the_version() {
        let hash = [0xfb; 32];
        let of = |version: &str| {
            rules(&RoomVersionId::try_from(version).unwrap())
                .unwrap()
                .encode_reference_hash(&hash)
        };
        assert!(of("3").contains('+'));
        assert!(of("4").contains('-'));
    }
}

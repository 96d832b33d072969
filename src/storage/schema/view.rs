//! Stores of feed consumers over all entities: directory, user search, reports.

use crate::family::Profile;
use crate::schema::{FamilyDoc, Tail, Text};

/// What this family holds and how.
pub const DOC: FamilyDoc = FamilyDoc {
    key: "view text · by view: directory network · 0 · room id; event_room hash of the event id; \
          user_search, pushers, reports, remote_user_rooms: by their owner",
    value: "by view: tag, then content",
    writer: "one feed consumer a view",
    growth: "by view; can be built again from the entities",
    profile: Profile::Scan,
};

key! {
    /// `view text · key of that view`
    pub struct ViewKey<'a> {
        /// The name of the view.
        view: Text<'a>,
        /// The key in the view.
        key: Tail<'a>,
    }
}

key_test!(ViewKey: ViewKey { view: "directory".into(), key: b"\xff"[..].into() }, ViewKey { view: "users".into(), key: b""[..].into() });

//! POST /_matrix/client/unstable/org.matrix.simplified_msc3575/sync — MSC4186 as matrix-rust-sdk speaks it.
//!
//! Nothing is sticky: what a request does not name is not wanted any more. So MSC4186 was merged (it gave the sticky
//! lists up), so matrix-rust-sdk relies on it: a room that it no longer subscribes to is just absent. matrix-js-sdk
//! sends its lists and extensions whole each time, and a subscription once, which is enough to get what it asks for
//! of the room. `txn_id` is not repeated, so that clients which know sticky parameters send them again.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use hearth_sync::sliding::{List, RoomConfig, StatePattern, StateRule, Wire};
use ruma::{OwnedRoomId, UserId};
use serde::Deserialize;

use super::body::{self, Asked, ExtensionsBody, Filters};
use crate::app::App;
use crate::error::Result;
use crate::extract::{Auth, OptionalJson, Query, or_default};

/// What the query says.
#[derive(Deserialize)]
pub struct SlidingQuery {
    pos: Option<String>,
    #[serde(default)]
    timeout: u64,
    set_presence: Option<String>,
}

/// What the body says.
#[derive(Deserialize)]
pub struct Body {
    conn_id: Option<String>,
    #[serde(default, deserialize_with = "or_default")]
    lists: BTreeMap<String, ListBody>,
    #[serde(default, deserialize_with = "or_default")]
    room_subscriptions: BTreeMap<OwnedRoomId, RoomBody>,
    #[serde(default, deserialize_with = "or_default")]
    extensions: ExtensionsBody,
}

#[derive(Deserialize)]
struct RoomBody {
    #[serde(default, deserialize_with = "or_default")]
    timeline_limit: u64,
    #[serde(default, deserialize_with = "or_default")]
    required_state: Vec<(String, String)>,
}

#[derive(Deserialize)]
struct ListBody {
    ranges: Option<Vec<(u64, u64)>>,
    filters: Option<Filters>,
    #[serde(flatten)]
    room: RoomBody,
}

/// The news within the client's windows; waits for some.
pub async fn post_sync_unstable(
    State(app): State<Arc<App>>,
    auth: Auth,
    Query(query): Query<SlidingQuery>,
    OptionalJson(body): OptionalJson<Body>,
) -> Result<Response> {
    let user = auth.user.clone();
    let asked = Asked {
        pos: query.pos,
        timeout_ms: query.timeout,
        set_presence: query.set_presence,
        conn_id: body.conn_id,
        lists: body::read_all(body.lists, |list| read_list(list, &user))?,
        subscriptions: body::read_all(body.room_subscriptions, |room| config(room, &user))?,
        extensions: body.extensions,
    };
    body::answer(&app, auth, Wire::Unstable, asked).await
}

fn read_list(body: ListBody, user: &UserId) -> Result<List> {
    Ok(List {
        ranges: body.ranges.map(body::ranges).transpose()?,
        config: config(body.room, user)?,
        filter: body.filters.unwrap_or_default().into_filter(),
    })
}

fn config(body: RoomBody, user: &UserId) -> Result<RoomConfig> {
    body::config(body.timeline_limit, rule(body.required_state, user))
}

/// Tuples of type and state key, either of which may be `*`; the key also `$ME`, that of members also `$LAZY`.
fn rule(tuples: Vec<(String, String)>, user: &UserId) -> StateRule {
    const MEMBER: &str = "m.room.member";
    let wants_all = tuples.iter().any(|(kind, key)| kind == MEMBER && key == "*");
    let mut rule = StateRule::default();
    for (kind, key) in tuples {
        if key == "$LAZY" {
            rule.lazy_members |= kind == MEMBER && !wants_all;
            continue;
        }
        rule.include.push(StatePattern {
            kind: (kind != "*").then_some(kind),
            state_key: match key.as_str() {
                "*" => None,
                "$ME" => Some(user.to_string()),
                _ => Some(key),
            },
        });
    }
    rule
}

#[cfg(test)]
mod tests {
    use ruma::user_id;

    #[test]
    fn tuples() {
        let rule = |tuples: &[(&str, &str)]| {
            let tuples = tuples
                .iter()
                .map(|(kind, key)| ((*kind).to_owned(), (*key).to_owned()));
            super::rule(tuples.collect(), user_id!("@me:x"))
        };
        let lazy = rule(&[("m.room.member", "$LAZY"), ("m.room.member", "$ME"), ("*", "")]);
        assert!(lazy.lazy_members);
        let patterns = lazy.include.iter();
        let patterns: Vec<_> = patterns
            .map(|pattern| (pattern.kind.as_deref(), pattern.state_key.as_deref()))
            .collect();
        assert_eq!(
            patterns,
            [(Some("m.room.member"), Some("@me:x")), (None, Some(""))]
        );
        assert!(!rule(&[("m.room.member", "*"), ("m.room.member", "$LAZY")]).lazy_members);
        assert!(rule(&[("m.room.name", "$LAZY")]).include.is_empty());
    }
}

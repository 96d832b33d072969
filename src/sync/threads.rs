//! Thread subscriptions as clients follow them (MSC4308): the newest changes, and pages of those before.

use hearth_storage::Position;
use hearth_users::{Change, ThreadSubscription, User};
use serde_json::{Map, Value, json};

use crate::{Error, SlidingPos, ThreadsToken};

/// The most changes in one page; the MSC's default is 100.
const PAGE_MAX: usize = 1_000;
const PAGE_DEFAULT: usize = 100;

/// Changes of subscriptions, the newest first.
#[derive(Clone, Debug, Default)]
pub struct ThreadsPage {
    /// The changes.
    pub threads: Vec<ThreadSubscription>,
    /// Where there are older ones that the client does not have.
    pub before: Option<ThreadsToken>,
}

impl ThreadsPage {
    /// The changes before what was read last, as far as the client does not have them from elsewhere. `to` is a position of
    /// sliding sync after which it has none.
    pub fn backwards(
        user: &User,
        from: Option<&str>,
        to: Option<&str>,
        limit: Option<usize>,
    ) -> Result<Self, Error> {
        let from = from.map(ThreadsToken::parse).transpose()?;
        let to = match to {
            Some(to) => {
                SlidingPos::read(user, to)?
                    .ok_or(Error::BadToken("to is no position of sliding sync"))?
                    .token
                    .user
            }
            None => 0,
        };
        let after = from.map_or(0, |from| from.after).max(to);
        let until = from.map_or(user.position(), |from| from.before.saturating_sub(1));
        let found = user.now().threads_between(after, until)?;
        Ok(Self::of(found, after, limit))
    }

    /// What changed after `since` up to `until`; all subscriptions where a client has none.
    pub(crate) fn news(
        user: &User,
        since: Option<Position>,
        until: Position,
        limit: Option<usize>,
    ) -> Result<Self, Error> {
        let view = user.now();
        let Some(since) = since else {
            let mut found = view.threads_between(0, until)?;
            found.retain(|thread| thread.subscribed);
            return Ok(Self::of(found, 0, limit));
        };
        let mut found = Vec::new();
        for (_, change) in view.changes_between(since, until)? {
            if let Change::Thread { room, root } = change {
                found.extend(view.thread(&room, &root)?);
            }
        }
        found.reverse();
        Ok(Self::of(found, since, limit))
    }

    fn of(mut threads: Vec<ThreadSubscription>, after: Position, limit: Option<usize>) -> Self {
        let limit = limit.unwrap_or(PAGE_DEFAULT).clamp(1, PAGE_MAX);
        let more = threads.len() > limit;
        threads.truncate(limit);
        let before = threads.last().filter(|_| more).map(|last| ThreadsToken {
            before: last.position,
            after,
        });
        Self { threads, before }
    }

    /// The members `subscribed` and `unsubscribed`, each only where there is something.
    pub fn to_json(&self) -> Map<String, Value> {
        let mut out = Map::new();
        for thread in &self.threads {
            let (name, value) = match thread.subscribed {
                true => (
                    "subscribed",
                    json!({ "automatic": thread.automatic, "bump_stamp": thread.position }),
                ),
                false => ("unsubscribed", json!({ "bump_stamp": thread.position })),
            };
            let rooms = out.entry(name).or_insert_with(|| json!({}));
            rooms[thread.room_id.as_str()][thread.root.as_str()] = value;
        }
        out
    }
}

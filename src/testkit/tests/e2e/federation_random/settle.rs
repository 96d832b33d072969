//! The end of a run: the network heals, what waits is delivered, and everybody says something.

use std::time::Duration;

use hearth_testkit::encode;
use serde_json::{Value, json};

use super::world::World;

/// The queues must be empty after so long: the longest pause of a queue is an hour.
const DRAINED_WITHIN: Duration = Duration::from_secs(6 * 3_600);
/// Nothing may happen for so long before all is quiet.
const QUIET_FOR: Duration = Duration::from_secs(90);
/// A room's history here is a few pages.
const PAGES_MAX: usize = 60;

impl World {
    /// Heals everything and waits until nothing is left to be delivered.
    pub async fn settle(&mut self) {
        self.heal();
        self.collect_all().await;
        self.drain().await;
        self.come_back().await;
        self.drain().await;
        // Twice: the first time may be soft-failed where a removal was heard of that was not the last word on it.
        for round in 0..2 {
            for at in 0..self.sites.len() {
                self.say_last(at, round).await;
                self.drain().await;
            }
        }
        for at in 0..self.sites.len() {
            self.read_all(at).await;
        }
        self.drain().await;
    }

    /// The sites that are in the room, as they and the creator's server see it.
    pub fn residents(&self) -> Vec<usize> {
        let first = self.sites[0].room(&self.room).expect("the room is there");
        let is_in = |at: &usize| {
            let site = &self.sites[*at];
            site.is_in(&self.room) && first.has_server(&site.name)
        };
        (0..self.sites.len()).filter(is_in).collect()
    }

    /// Waits until all queues are empty and nobody asks anybody anything.
    async fn drain(&mut self) {
        let begun = tokio::time::Instant::now();
        loop {
            let before = self.network.trace().len();
            tokio::time::sleep(QUIET_FOR).await;
            let waiting: Vec<String> = self
                .sites
                .iter()
                .flat_map(|site| {
                    let federation = &site.server().inner().parts().api.federation;
                    let status = federation.outbound.status();
                    status
                        .into_iter()
                        .map(|queue| format!("{}: {queue:?}", site.name))
                })
                .collect();
            if waiting.is_empty() && self.network.trace().len() == before {
                return;
            }
            if begun.elapsed() > DRAINED_WITHIN {
                self.fail(&format!("the queues do not empty: {waiting:#?}"));
            }
        }
    }

    /// A user whose join was accepted while the answer was lost joins again.
    async fn come_back(&mut self) {
        let first = self.sites[0].room(&self.room).expect("the room is there");
        for at in 0..self.sites.len() {
            let site = &self.sites[at];
            if site.is_in(&self.room) || !first.has_server(&site.name) {
                continue;
            }
            for user in &site.users {
                let user_id = <&ruma::UserId>::try_from(user.user_id.as_str()).expect("a user id");
                if first.membership(user_id).expect("it is read") != hearth_rooms::Membership::Join {
                    continue;
                }
                let path = format!("/join/{}?via=hs1", encode(self.room.as_str()));
                let answer = user.post(&path, json!({})).await;
                let line = format!("{} comes back: {} {}", user.user_id, answer.status, answer.text());
                if answer.status != 200 {
                    self.fail(&line);
                }
                self.note(line);
                break;
            }
        }
    }

    /// Somebody of a server that is in the room says something.
    async fn say_last(&mut self, at: usize, round: usize) {
        if !self.sites[at].is_in(&self.room) {
            return;
        }
        let mut line = format!("nobody of hs{} may speak", at + 1);
        for user in &self.sites[at].users {
            let path = format!(
                "/rooms/{}/send/m.room.message/last{round}{at}",
                encode(self.room.as_str())
            );
            let answer = user
                .put(&path, json!({ "msgtype": "m.text", "body": "last" }))
                .await;
            if answer.status == 200 {
                line = format!("{} says a last word: {}", user.user_id, answer.text());
                break;
            }
        }
        self.note(line);
    }

    /// Reads the room back to its beginning, so that what is missing is fetched.
    async fn read_all(&mut self, at: usize) {
        let site = &self.sites[at];
        if !site.is_in(&self.room) {
            return;
        }
        for user in &site.users {
            let mut from = String::new();
            for _ in 0..PAGES_MAX {
                let place = format!("/rooms/{}/messages?dir=b&limit=100", encode(self.room.as_str()));
                let answer = user.get(&format!("{place}{from}")).await;
                if answer.status != 200 {
                    break;
                }
                let page: Value = answer.json();
                let Some(end) = page["end"].as_str() else {
                    break;
                };
                from = format!("&from={}", encode(end));
            }
        }
    }
}

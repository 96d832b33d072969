//! What users do.

use hearth_testkit::{Answer, Client, encode};
use serde_json::{Value, json};

use super::world::World;

/// Something that a user is about to do.
pub struct Action {
    pub site: usize,
    pub user: usize,
    pub what: String,
    /// Whether its event must be everywhere at the end.
    pub counts: bool,
    request: Request,
}

enum Request {
    Call(&'static str, String, Value),
    /// Sets a user's power level beside those that the server knows.
    Power(String, String, i64),
}

impl Action {
    /// Draws what happens next. Refusals are fine.
    pub fn draw(world: &mut World) -> Self {
        let site = world.below(world.sites.len());
        let user = world.below(world.sites[site].users.len());
        let kind = if world.plan.acts {
            world.below(30)
        } else {
            world.below(12)
        };
        let (number, other_site) = (world.below(5), world.below(world.sites.len()));
        let other = world.below(world.sites[other_site].users.len());
        let who = world.sites[site].users[user].user_id.clone();
        let whom = world.sites[other_site].users[other].user_id.clone();
        let is_creator = |user: &str| user == "@ann:hs1";
        let place = format!("/rooms/{}", encode(world.room.as_str()));
        let about = json!({ "user_id": whom });
        let txn = world.sites[site].users[user].txn();
        let post = |verb: &str, body: Value| Request::Call("POST", format!("{place}/{verb}"), body);
        let (what, counts, request) = match kind {
            0..=6 => {
                let path = format!("{place}/send/m.room.message/{txn}");
                let body = json!({ "msgtype": "m.text", "body": txn });
                (
                    "says something".to_owned(),
                    true,
                    Request::Call("PUT", path, body),
                )
            }
            7..=9 => {
                // Through anybody, in any order.
                let mut via: Vec<String> = world.sites.iter().map(|site| site.name.clone()).collect();
                via.rotate_left(other_site);
                let via: Vec<String> = via.iter().map(|name| format!("via={name}")).collect();
                let path = format!("/join/{}?{}", encode(world.room.as_str()), via.join("&"));
                (
                    format!("joins by hs{}", other_site + 1),
                    false,
                    Request::Call("POST", path, json!({})),
                )
            }
            10 | 11 => {
                let path = format!("{place}/messages?dir=b&limit={}", 3 * number + 1);
                ("reads".to_owned(), false, Request::Call("GET", path, Value::Null))
            }
            12 | 13 => {
                let path = format!("{place}/state/m.room.topic/");
                let body = json!({ "topic": txn });
                (
                    "sets the topic".to_owned(),
                    true,
                    Request::Call("PUT", path, body),
                )
            }
            14 => {
                let path = format!("{place}/state/m.room.name/");
                (
                    "sets the name".to_owned(),
                    true,
                    Request::Call("PUT", path, json!({ "name": txn })),
                )
            }
            15 | 16 => {
                let path = format!("{place}/state/org.example.s/{number}");
                (
                    format!("sets s/{number}"),
                    true,
                    Request::Call("PUT", path, json!({ "v": txn })),
                )
            }
            17 if !is_creator(&who) => ("leaves".to_owned(), false, post("leave", json!({}))),
            18 | 19 => (format!("invites {whom}"), false, post("invite", about)),
            20 if who != whom => (format!("kicks {whom}"), false, post("kick", about)),
            21 if who != whom => (format!("bans {whom}"), false, post("ban", about)),
            22 | 23 => (format!("unbans {whom}"), false, post("unban", about)),
            24 | 25 if !is_creator(&whom) => {
                let level = [0, 0, 50, 50, 100][number];
                let path = format!("{place}/state/m.room.power_levels/");
                (
                    format!("gives {whom} the level {level}"),
                    false,
                    Request::Power(path, whom, level),
                )
            }
            26 | 27 if !world.said.is_empty() => {
                let at = world.below(world.said.len());
                let event = world.said[at].event.clone();
                let path = format!("{place}/redact/{}/{txn}", encode(&event));
                (
                    format!("redacts {event}"),
                    true,
                    Request::Call("PUT", path, json!({})),
                )
            }
            28 => {
                let path = format!("{place}/state/m.room.join_rules/");
                let rule = if number < 3 { "public" } else { "invite" };
                let body = json!({ "join_rule": rule });
                (
                    format!("sets the join rule {rule}"),
                    false,
                    Request::Call("PUT", path, body),
                )
            }
            _ => {
                let path = format!("{place}/joined_members");
                (
                    "looks around".to_owned(),
                    false,
                    Request::Call("GET", path, Value::Null),
                )
            }
        };
        Self {
            site,
            user,
            what: format!("{who} {what}"),
            counts,
            request,
        }
    }

    /// Does it.
    pub async fn perform(self, client: Client) -> Answer {
        match self.request {
            Request::Call(method, path, body) => client.call(method, &path, body).await,
            Request::Power(path, whom, level) => {
                let now = client.get(&path).await;
                if now.status != 200 {
                    return now;
                }
                let mut levels = now.json();
                levels["users"][&whom] = json!(level);
                client.put(&path, levels).await
            }
        }
    }
}

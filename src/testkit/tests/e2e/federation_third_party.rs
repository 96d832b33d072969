//! Invitations of people who are known by an address alone, once an identity server knows who they are.

use std::sync::Arc;

use hearth_events::{KeyPair, Pdu};
use hearth_testkit::{Client, SimNetwork, TestServer, encode};
use ruma::ServerName;
use serde_json::{Value, json};

use crate::federation::{public_room, until};
use crate::federation_hostile::peer::{Answer, Peer, json_of, rules_of};

const VERSION: &str = "11";
const IDENTITY: &str = "id.example";

/// The key of the identity server, or of somebody who pretends to be it.
fn key(seed: u8) -> KeyPair {
    KeyPair::from_seed([seed; 32], "0").expect("a key")
}

/// A room into which somebody is invited by an address.
async fn room(ann: &Client) -> String {
    let room = public_room(ann, VERSION).await;
    let public_key = key(7).public_key_base64();
    let validity = format!("https://{IDENTITY}/valid");
    let content = json!({ "display_name": "b...@example.org", "key_validity_url": validity, "public_key": public_key,
        "public_keys": [{ "public_key": public_key, "key_validity_url": validity }] });
    ann.set_state(&room, "m.room.third_party_invite", "token", content)
        .await;
    room
}

/// What an identity server signs when it knows who an address belongs to.
fn signed(user: &str, key: &KeyPair) -> Value {
    let Value::Object(mut signed) = json!({ "mxid": user, "token": "token", "sender": "@ann:hs1" }) else {
        panic!("it is an object")
    };
    hearth_events::sign_json(&mut signed, IDENTITY, key).expect("it can be signed");
    Value::Object(signed)
}

/// Has a server sign the invitations that it gets.
fn signs_invitations(peer: &Peer) {
    let (name, key) = (peer.name.clone(), peer.key.clone());
    let sign = move |_: &str, body: &Value| {
        let rules = rules_of(VERSION);
        let event = Pdu::parse(rules, body["event"].to_string().as_bytes()).expect("an event");
        let name = ServerName::parse(&name).expect("a name");
        let signed = event.countersign(rules, &key, &name).expect("it can be signed");
        json!({ "event": json_of(&signed) })
    };
    peer.says("/_matrix/federation/v2/invite/", Answer::Made(Arc::new(sign)));
}

#[tokio::test(start_paused = true)]
async fn another_server_exchanges_an_invitation() {
    let network = SimNetwork::new(51);
    let server = TestServer::simulated("hs1", 4, 51, &network);
    let ann = server.register("ann").await;
    let room = room(&ann).await;
    let peer = Peer::new("other", &network);
    signs_invitations(&peer);
    let path = format!(
        "/_matrix/federation/v1/exchange_third_party_invite/{}",
        encode(&room)
    );
    let exchange = async |user: &str, by: &KeyPair| {
        let invite = json!({ "display_name": "b...@example.org", "signed": signed("@bob:other", by) });
        let body = json!({ "type": "m.room.member", "room_id": room, "sender": "@ann:hs1", "state_key": user,
            "content": { "membership": "invite", "third_party_invite": invite } });
        peer.call("hs1", "PUT", &path, Some(body)).await
    };
    let (status, answer) = exchange("@bob:other", &key(8)).await;
    assert_eq!((status, &answer["errcode"]), (403, &json!("M_FORBIDDEN")));
    let (status, answer) = exchange("@mallory:other", &key(7)).await;
    assert_eq!((status, &answer["errcode"]), (403, &json!("M_FORBIDDEN")));
    let (status, answer) = exchange("@bob:other", &key(7)).await;
    assert_eq!((status, answer), (200, json!({})));
    let member = ann.state(&room, "m.room.member", "@bob:other").await.ok();
    assert_eq!(member["membership"], "invite");
    assert_eq!(member["third_party_invite"]["signed"]["token"], "token");
}

#[tokio::test(start_paused = true)]
async fn an_identity_server_tells_who_an_address_belongs_to() {
    let network = SimNetwork::new(52);
    let server = TestServer::simulated("hs1", 4, 52, &network);
    let ann = server.register("ann").await;
    let carol = server.register("carol").await;
    let room = room(&ann).await;
    let peer = Peer::new("other", &network);
    peer.says(
        "/_matrix/federation/v1/exchange_third_party_invite/",
        Answer::Json(json!({})),
    );
    let address = json!({ "medium": "email", "address": "carol@example.org", "mxid": "@carol:hs1" });
    let invite = |room: &str, sender: &str, user: &str, by: &KeyPair| {
        let mut invite = address.clone();
        invite["room_id"] = json!(room);
        invite["sender"] = json!(sender);
        invite["mxid"] = json!(user);
        invite["signed"] = signed(user, by);
        invite
    };
    let tell = async |invites: Value| {
        let mut body = address.clone();
        body["invites"] = invites;
        let path = "/_matrix/federation/v1/3pid/onbind";
        assert_eq!(server.call("PUT", path, None, body).await.ok(), json!({}));
    };
    tell(json!([
        invite(&room, "@ann:hs1", "@carol:hs1", &key(8)),
        invite("!unknown:hs1", "@ann:hs1", "@carol:hs1", &key(7)),
        invite(&room, "@ann:hs1", "@bob:other", &key(7)),
    ]))
    .await;
    let none = carol.sync("timeout=0").await;
    assert_eq!(none["rooms"]["invite"].get(&room), None, "{none}");
    tell(json!([
        invite("!elsewhere:other", "@mallory:other", "@carol:hs1", &key(7)),
        invite(&room, "@ann:hs1", "@carol:hs1", &key(7)),
    ]))
    .await;
    until("the invitation", async || {
        carol.sync("timeout=0").await["rooms"]["invite"]
            .get(&room)
            .cloned()
    })
    .await;
    let asked = peer.asked();
    let exchanged = asked
        .iter()
        .filter(|line| line.contains("exchange_third_party_invite/%21elsewhere%3Aother"));
    assert_eq!(exchanged.count(), 1, "{asked:?}");
    carol.join(&room).await;
}

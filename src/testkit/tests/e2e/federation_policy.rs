//! Rooms with a policy server, over the simulated network.

use std::sync::Arc;
use std::time::Duration;

use hearth_events::{KeyPair, Pdu};
use hearth_rooms::{Flags, POLICY_KEY_ID, Room};
use hearth_testkit::{Client, SimNetwork, TestServer, encode};
use ruma::{EventId, OwnedRoomId, ServerName};
use serde_json::{Value, json};

use super::federation_hostile::peer::{Answer, Known, Peer, json_of, rules_of};

const SIGN: &str = "/_matrix/policy/v1/sign";

/// Two servers with a user each in a room, and a server that recommends what has no "spam" in it.
struct Stage {
    servers: Vec<TestServer>,
    alice: Client,
    bob: Client,
    network: SimNetwork,
    policy: Peer,
    key: Arc<KeyPair>,
    version: &'static str,
    room: String,
}

impl Stage {
    async fn new(version: &'static str) -> Self {
        let network = SimNetwork::new(5);
        let servers: Vec<TestServer> = (1..=2)
            .map(|number| TestServer::simulated(&format!("hs{number}"), 4, number, &network))
            .collect();
        let alice = servers[0].register("alice").await;
        let bob = servers[1].register("bob").await;
        let room = alice.room().version(version).preset("public_chat").build().await;
        let policy = Peer::new("policy", &network);
        policy.join("hs1", &room, version).await;
        policy.says("/_matrix/federation/v1/send", Answer::Json(json!({ "pdus": {} })));
        let key = KeyPair::from_seed([9; 32], "policy_server").expect("a key");
        assert_eq!(key.key_id(), POLICY_KEY_ID);
        let stage = Self {
            servers,
            alice,
            bob,
            network,
            policy,
            key: Arc::new(key),
            version,
            room,
        };
        stage.policy.says(SIGN, stage.judge());
        let path = format!("/join/{}?via=hs1", stage.room);
        stage.bob.post(&path, json!({})).await.ok();
        stage.name_policy_server().await;
        stage
    }

    async fn name_policy_server(&self) {
        let content = json!({ "via": "policy", "public_keys": { "ed25519": self.key.public_key_base64() } });
        let event = self
            .alice
            .set_state(&self.room, "m.room.policy", "", content)
            .await;
        self.arrives(&self.bob, &event).await;
        assert_eq!(
            self.asked(),
            0,
            "nobody asks about the event that names the policy server"
        );
    }

    fn judge(&self) -> Answer {
        let (key, rules) = (self.key.clone(), rules_of(self.version));
        Answer::Judged(Arc::new(move |_: &str, event: &Value| {
            let pdu = Pdu::parse(rules, event.to_string().as_bytes()).expect("a whole event");
            if event["content"].to_string().contains("spam") {
                let error =
                    json!({ "errcode": "ORG.EXAMPLE.SPAM", "error": "It is spam", "org.example.score": 9 });
                return (400_u16, error);
            }
            let name = ServerName::parse("policy").expect("a name");
            let signed = json_of(&pdu.countersign(rules, &key, &name).expect("it can be signed"));
            let signature = &signed["signatures"]["policy"][POLICY_KEY_ID];
            (200_u16, json!({ "policy": { POLICY_KEY_ID: signature } }))
        }))
    }

    /// How often the policy server was asked since it was last counted.
    fn asked(&self) -> usize {
        self.policy
            .asked()
            .iter()
            .filter(|line| line.contains(SIGN))
            .count()
    }

    fn room_of(&self, server: usize) -> Room {
        let id = OwnedRoomId::try_from(self.room.as_str()).expect("a room id");
        let rooms = &self.servers[server].inner().parts().rooms;
        rooms.get(&id).expect("it is read").expect("the room")
    }

    fn flags(&self, server: usize, id: &str) -> Option<Flags> {
        let id = <&EventId>::try_from(id).expect("an id");
        let event = self.room_of(server).event_by_id(id).expect("it is read");
        event.map(|event| event.header.flags)
    }

    fn is_recommended(&self, server: usize, id: &str) -> bool {
        let id = <&EventId>::try_from(id).expect("an id");
        let event = self.room_of(server).event_by_id(id).expect("it is read");
        let event = json_of(&event.expect("an event").pdu);
        event["signatures"]["policy"][POLICY_KEY_ID].is_string()
    }

    async fn arrives(&self, client: &Client, event: &str) {
        let path = format!("/rooms/{}/event/{}", self.room, encode(event));
        for _ in 0..200 {
            if client.get(&path).await.status == 200 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("{event} did not arrive");
    }

    /// A message of another server that asks no policy server.
    fn careless(&self, peer: &Peer, known: &Known, body: &str) -> Pdu {
        let prev = [known.join.event_id.clone()];
        known.message(peer, body, &prev, known.join.depth() + 1)
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_sent_is_recommended_first() {
    for version in ["6", "12"] {
        let stage = Stage::new(version).await;
        let (alice, bob, room) = (&stage.alice, &stage.bob, &stage.room);
        let fine = alice.say(room, "fine").await;
        stage.arrives(bob, &fine).await;
        assert_eq!(
            stage.asked(),
            1,
            "{version}: the other server sees that it is signed"
        );
        assert!(
            stage.is_recommended(0, &fine) && stage.is_recommended(1, &fine),
            "{version}"
        );

        let message = json!({ "msgtype": "m.text", "body": "spam" });
        let refused = bob.send_txn(room, "m.room.message", "once", message).await;
        assert_eq!(refused.status, 400, "{version}: {refused:?}");
        let error = refused.json();
        assert_eq!(error["errcode"], "ORG.EXAMPLE.SPAM", "{version}: word for word");
        assert_eq!(
            (&error["error"], &error["org.example.score"]),
            (&json!("It is spam"), &json!(9))
        );
        assert_eq!(stage.asked(), 1);

        // The transaction was not done, and is done now, once.
        let message = || json!({ "msgtype": "m.text", "body": "ham" });
        let sent = bob.send_txn(room, "m.room.message", "once", message()).await.ok();
        let again = bob.send_txn(room, "m.room.message", "once", message()).await.ok();
        assert_eq!(sent, again, "{version}");
        assert_eq!(stage.asked(), 1, "{version}: nobody is asked about what was sent");
        let sent = sent["event_id"].as_str().expect("an id").to_owned();
        stage.arrives(alice, &sent).await;
        let own = bob
            .get(&format!("/rooms/{room}/event/{}", encode(&sent)))
            .await
            .ok();
        assert_eq!(own["unsigned"]["transaction_id"], "once", "{version}: {own}");

        let topic = alice
            .set_state(room, "m.room.topic", "", json!({ "topic": "tea" }))
            .await;
        stage.arrives(bob, &topic).await;
        let refused = alice
            .try_set_state(room, "m.room.topic", "", json!({ "topic": "spam" }))
            .await;
        assert_eq!(refused.status, 400, "{version}");
        let refused = alice
            .try_set_state(room, "m.room.policy", "x", json!({ "spam": 1 }))
            .await;
        assert_eq!(
            refused.status, 400,
            "{version}: only the empty state key is let through"
        );
        let refused = alice
            .act(
                room,
                "invite",
                json!({ "user_id": "@carol:hs2", "reason": "spam" }),
            )
            .await;
        assert_eq!(refused.status, 400, "{version}: {refused:?}");
        let carol = stage.servers[0].register("carol").await;
        carol.join(room).await;
        assert_eq!(stage.asked(), 5, "{version}");
        let redaction = alice.redact(room, &fine).await;
        stage.arrives(bob, &redaction).await;
        let gone = alice
            .get(&format!("/rooms/{room}/event/{}", encode(&fine)))
            .await
            .ok();
        assert_eq!(gone["content"], json!({}), "{version}");

        // The room can always rid itself of it.
        stage
            .policy
            .says(SIGN, Answer::Slow(Duration::from_secs(300), json!({})));
        let refused = alice.send_txn(room, "m.room.message", "t", message()).await;
        assert_eq!(
            (refused.status, &refused.json()["errcode"]),
            (502, &json!("M_UNKNOWN")),
            "{version}"
        );
        let off = alice.set_state(room, "m.room.policy", "", json!({})).await;
        stage.arrives(bob, &off).await;
        let spam = alice.say(room, "spam").await;
        stage.arrives(bob, &spam).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_comes_without_a_recommendation_is_asked_about() {
    for version in ["6", "12"] {
        let stage = Stage::new(version).await;
        let evil = Peer::new("evil", &stage.network);
        let known = evil.join("hs1", &stage.room, version).await;
        stage.arrives(&stage.bob, known.join.event_id.as_str()).await;
        assert!(
            stage.is_recommended(0, known.join.event_id.as_str()),
            "{version}: of the join, too"
        );
        stage.asked();

        let fine = stage.careless(&evil, &known, "fine");
        let spam = stage.careless(&evil, &known, "spam");
        let rules = rules_of(version);
        let wrong = KeyPair::from_seed([10; 32], "policy_server").expect("a key");
        let name = ServerName::parse("policy").expect("a name");
        let forged = stage.careless(&evil, &known, "forged spam");
        let forged = forged
            .countersign(rules, &wrong, &name)
            .expect("it can be signed");
        evil.send("hs1", "t1", &[json_of(&fine), json_of(&spam), json_of(&forged)])
            .await;
        stage.arrives(&stage.alice, fine.event_id.as_str()).await;
        assert!(
            stage.is_recommended(0, fine.event_id.as_str()),
            "{version}: it is kept with the event"
        );
        tokio::time::sleep(Duration::from_secs(5)).await;
        for event in [&spam, &forged] {
            let flags = stage.flags(0, event.event_id.as_str()).expect("it is kept");
            assert!(
                flags.has(Flags::SOFT_FAILED) && !flags.has(Flags::REJECTED),
                "{version}"
            );
            let path = format!("/rooms/{}/event/{}", stage.room, encode(event.event_id.as_str()));
            assert_eq!(
                stage.alice.get(&path).await.status,
                404,
                "{version}: nobody sees it"
            );
        }
        assert_eq!(stage.asked(), 3, "{version}");

        // Many extremities are merged by an event of ours, which is recommended as well.
        let prev = [known.join.event_id.clone()];
        let many: Vec<Value> = (0..12)
            .map(|number| json_of(&known.message(&evil, &format!("fine {number}"), &prev, 9)))
            .collect();
        evil.send("hs1", "many", &many).await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert!(stage.room_of(0).extremities() <= 10, "{version}");
        let after = stage.alice.say(&stage.room, "fine").await;
        stage.arrives(&stage.bob, &after).await;

        // One that does not answer costs its time, and nothing gets through unsigned.
        stage
            .policy
            .says(SIGN, Answer::Slow(Duration::from_secs(300), json!({})));
        let silent = stage.careless(&evil, &known, "into the silence");
        evil.send("hs1", "t2", &[json_of(&silent)]).await;
        tokio::time::sleep(Duration::from_secs(30)).await;
        let flags = stage
            .flags(0, silent.event_id.as_str())
            .expect("it was judged in time");
        assert!(flags.has(Flags::SOFT_FAILED), "{version}");

        // A policy server that nobody of is in the room is none.
        stage.policy.says(SIGN, stage.judge());
        tokio::time::sleep(Duration::from_secs(600)).await;
        let kick = json!({ "user_id": "@mallory:policy" });
        stage.alice.act(&stage.room, "kick", kick).await.ok();
        stage.asked();
        let late = stage.careless(&evil, &known, "spam at last");
        evil.send("hs1", "t3", &[json_of(&late)]).await;
        stage.arrives(&stage.alice, late.event_id.as_str()).await;
        let own = stage.alice.say(&stage.room, "spam of my own").await;
        stage.arrives(&stage.bob, &own).await;
        assert_eq!(stage.asked(), 0, "{version}");
    }
}

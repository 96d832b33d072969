//! Property tests against Ruma's implementation: canonical JSON, hashes, ids, signatures, redaction, authorization.

mod auth;
mod events;
mod forks;
pub(crate) mod history;
mod resolve;
mod robust;

use proptest::prelude::*;
use ruma::{OwnedUserId, UserId};
use serde_json::{Value, json};

use crate::*;

/// `times` as many cases as is usual (PROPTEST_CASES, or 256). Failing ones are kept beside the test: the default place is the folder above,
/// where Cargo looks for crates.
pub(crate) fn config(times: u32) -> ProptestConfig {
    let seeds = proptest::test_runner::FileFailurePersistence::WithSource("seeds");
    let usual = ProptestConfig::default();
    ProptestConfig {
        cases: usual.cases.saturating_mul(times),
        failure_persistence: Some(Box::new(seeds)),
        ..usual
    }
}

/// Decisions drawn from bytes, so that proptest can shrink them; all zeros once the bytes are used up.
pub(crate) struct Choices<'a>(pub &'a [u8]);

impl Choices<'_> {
    pub fn pick(&mut self, of: usize) -> usize {
        let Some((first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        usize::from(*first) % of
    }

    pub fn from<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.pick(of.len())].clone()
    }

    /// True once in `of` times.
    pub fn once_in(&mut self, of: usize) -> bool {
        self.pick(of) == of - 1
    }
}

pub(super) const USERS: [&str; 5] = ["@a:one", "@b:one", "@c:two", "@d:two", "@e:three"];
pub(super) const KINDS: [&str; 13] = [
    "m.room.message",
    "m.room.member",
    "m.room.power_levels",
    "m.room.join_rules",
    "m.room.create",
    "m.room.redaction",
    "m.room.aliases",
    "m.room.third_party_invite",
    "m.room.history_visibility",
    "m.room.name",
    "m.room.server_acl",
    "m.reaction",
    "org.example.\"odd\"",
];

pub(super) fn user(c: &mut Choices<'_>) -> OwnedUserId {
    UserId::parse(c.from(&USERS)).unwrap()
}

pub(super) fn level(c: &mut Choices<'_>) -> Value {
    match c.pick(16) {
        14 => json!("50"),
        15 => c.from(&[json!(" +100 "), json!("x"), json!(null), json!([])]),
        n => json!([0, 50, 100, 1, 49, 51, 99, 101, -1, 10, 25, 75, 0, 50][n]),
    }
}

pub(super) fn power_levels(c: &mut Choices<'_>) -> Value {
    let mut content = json!({});
    for field in PowerField::ALL {
        if c.once_in(2) {
            content[field.name()] = level(c);
        }
    }
    for (name, keys) in [
        ("users", &USERS[..]),
        ("events", &KINDS[..]),
        ("notifications", &["room", "other"][..]),
    ] {
        if c.once_in(4) {
            continue;
        }
        content[name] = json!({});
        for key in keys {
            if c.once_in(3) {
                content[name][*key] = level(c);
            }
        }
        if c.once_in(40) {
            content[name] = c.from(&[json!([]), json!({"nobody": 1}), json!(null)]);
        }
    }
    content
}

pub(super) fn identity_key() -> KeyPair {
    KeyPair::from_seed([7; 32], "0").unwrap()
}

pub(super) fn signed_invite(c: &mut Choices<'_>, target: &str) -> Value {
    let mut signed = json!({"mxid": target, "token": "token"});
    if c.once_in(6) {
        signed["token"] = json!("other");
    }
    if c.once_in(6) {
        signed["mxid"] = json!("@b:one");
    }
    sign_json(signed.as_object_mut().unwrap(), "identity", &identity_key()).unwrap();
    if c.once_in(6) {
        signed["more"] = json!(1);
    }
    if c.once_in(10) {
        signed.as_object_mut().unwrap().remove("mxid");
    }
    json!({"display_name": "x", "signed": signed})
}

pub(super) fn member(c: &mut Choices<'_>, target: &str) -> Value {
    let mut content = json!({"membership": c.from(&["join", "invite", "leave", "ban", "knock", "join", "leave", "other"]), "displayname": "ü\n"});
    if c.once_in(4) {
        content["join_authorised_via_users_server"] = json!(c.from(&USERS));
    }
    if c.once_in(30) {
        content["join_authorised_via_users_server"] = c.from(&[json!(null), json!("nobody")]);
    }
    if c.once_in(5) {
        content["third_party_invite"] = signed_invite(c, target);
    }
    if c.once_in(40) {
        content["membership"] = json!(5);
    }
    content
}

pub(super) fn content(c: &mut Choices<'_>, kind: &str, rules: &Rules, state_key: &str) -> Value {
    match kind {
        "m.room.member" => member(c, state_key),
        "m.room.power_levels" => power_levels(c),
        "m.room.join_rules" => json!({"join_rule": c.from(&["public", "invite"]), "allow": [], "x": 1}),
        "m.room.create" => {
            let mut content = json!({"creator": USERS[0], "room_version": rules.version.as_str(), "m.federate": !c.once_in(4)});
            if c.once_in(4) {
                content["additional_creators"] =
                    c.from(&[json!([USERS[1]]), json!(["x"]), json!([]), json!(5)]);
            }
            if c.once_in(8) {
                content.as_object_mut().unwrap().remove("creator");
            }
            content
        }
        "m.room.redaction" => json!({"reason": "r", "redacts": "$inner:one"}),
        "m.room.aliases" => json!({"aliases": ["#a:one"]}),
        "m.room.history_visibility" => json!({"history_visibility": "shared", "x": {"y": []}}),
        "m.room.third_party_invite" => {
            json!({"public_key": identity_key().public_key_base64(), "public_keys": [{"public_key": identity_key().public_key_base64()}]})
        }
        _ => {
            json!({"body": "te\"xt\u{1}日", "b": [1, {"z": null, "a": true}], "n": 9_007_199_254_740_991_i64, "a": -5})
        }
    }
}

//! What the work on one event costs, on an ordinary message of about 750 bytes.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use hearth_events::{
    AuthInput, CreateInfo, Draft, JoinRuleInfo, KeyPair, MemberInfo, Membership, Pdu, PowerLevels, Rules,
    StateView, ThirdPartyInviteInfo, authorize, build, canonical, redact, rules, verify_content_hash,
    verify_event_signatures,
};
use ruma::{EventId, OwnedEventId, OwnedUserId, RoomId, RoomVersionId, UserId};

struct View {
    create: Arc<CreateInfo>,
    levels: Arc<PowerLevels>,
}

impl StateView for View {
    fn create(&self) -> Option<Arc<CreateInfo>> {
        Some(self.create.clone())
    }
    fn power_levels(&self) -> Option<Arc<PowerLevels>> {
        Some(self.levels.clone())
    }
    fn join_rule(&self) -> JoinRuleInfo {
        JoinRuleInfo::default()
    }
    fn member(&self, _: &UserId) -> Option<MemberInfo> {
        Some(MemberInfo {
            membership: Membership::Join,
        })
    }
    fn third_party_invite(&self, _: &str) -> Option<Arc<ThirdPartyInviteInfo>> {
        None
    }
}

fn id(letter: char) -> OwnedEventId {
    EventId::parse(format!("${}", letter.to_string().repeat(43))).expect("a valid id")
}

fn events(c: &mut Criterion) {
    let rules: &Rules = rules(&RoomVersionId::V12).expect("a known version");
    let sender: OwnedUserId = UserId::parse("@alice:hearth.example.org").expect("a valid id");
    let room = RoomId::parse(format!("!{}", "r".repeat(43))).expect("a valid id");
    let body = "A message that somebody has written. ".repeat(4);
    let content = format!(r#"{{"body":"{body}","m.mentions":{{}},"msgtype":"m.text"}}"#);
    let (prev, auth) = ([id('p')], [id('a'), id('b')]);
    let draft = Draft {
        room_id: Some(&room),
        sender: &sender,
        kind: "m.room.message",
        state_key: None,
        content: content.as_bytes(),
        origin_server_ts: 1_700_000_000_000,
        depth: 1234,
        prev_events: &prev,
        auth_events: &auth,
        redacts: None,
    };
    let key = KeyPair::from_seed([1; 32], "a_bench").expect("a valid key");
    let pdu = build(rules, &draft, None)
        .expect("a valid event")
        .sign(&key, sender.server_name());
    println!("an event of {} bytes", pdu.json.len());
    let public = key.public_key();
    let view = View {
        create: Arc::new(
            CreateInfo::parse(rules, &id('c'), &sender, br#"{"room_version":"12"}"#).expect("a valid event"),
        ),
        levels: Arc::new(PowerLevels::parse(rules, br#"{"users":{"@bob:x":50}}"#).expect("valid levels")),
    };
    let loose = [&pdu.json[..], b" "].concat();

    c.bench_function("build and hash", |b| {
        b.iter(|| build(rules, black_box(&draft), None))
    });
    c.bench_function("sign", |b| {
        b.iter_batched(
            || build(rules, &draft, None).expect("a valid event"),
            |unsigned| unsigned.sign(&key, sender.server_name()),
            BatchSize::SmallInput,
        );
    });
    c.bench_function("verify", |b| {
        b.iter(|| verify_event_signatures(rules, black_box(&pdu), &|_, _| Some(public)))
    });
    c.bench_function("content hash", |b| {
        b.iter(|| verify_content_hash(black_box(&pdu)))
    });
    c.bench_function("parse received", |b| {
        b.iter(|| Pdu::parse(rules, black_box(&pdu.json)))
    });
    c.bench_function("parse stored", |b| {
        b.iter(|| Pdu::from_stored(rules, pdu.event_id.clone(), black_box(&pdu.json).clone()))
    });
    c.bench_function("canonicalize, canonical", |b| {
        b.iter(|| canonical::canonicalize(black_box(&pdu.json), true).map(|bytes| bytes.len()))
    });
    c.bench_function("canonicalize, not canonical", |b| {
        b.iter(|| canonical::canonicalize(black_box(&loose), true).map(|bytes| bytes.len()))
    });
    c.bench_function("authorize", |b| {
        b.iter(|| authorize(rules, &AuthInput::of_pdu(rules, black_box(&pdu)), &view))
    });
    c.bench_function("redact", |b| b.iter(|| redact(rules, black_box(&pdu))));
}

criterion_group!(benches, events);
criterion_main!(benches);

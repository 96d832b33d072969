//! Whatever stands in an event, reading and judging it ends in an answer.

use std::sync::Arc;

use proptest::prelude::*;
use ruma::{EventId, OwnedEventId, RoomId, UserId};

use super::{Choices, KINDS, USERS, config, content};
use crate::notification::class;
use crate::*;

/// A room whose every state event is read from the same bytes.
struct View<'a> {
    rules: &'a Rules,
    content: &'a [u8],
}

impl StateView for View<'_> {
    fn create(&self) -> Option<Arc<CreateInfo>> {
        let id = EventId::parse("$create").unwrap();
        let sender = UserId::parse(USERS[0]).unwrap();
        let read = CreateInfo::parse(self.rules, &id, &sender, self.content);
        read.or_else(|_| CreateInfo::parse(self.rules, &id, &sender, br#"{"creator":"@a:one"}"#))
            .ok()
            .map(Arc::new)
    }
    fn power_levels(&self) -> Option<Arc<PowerLevels>> {
        PowerLevels::parse(self.rules, self.content).ok().map(Arc::new)
    }
    fn join_rule(&self) -> JoinRuleInfo {
        JoinRuleInfo::parse(self.content)
    }
    fn member(&self, _: &UserId) -> Option<MemberInfo> {
        MemberInfo::parse(self.content).ok()
    }
    fn third_party_invite(&self, _: &str) -> Option<Arc<ThirdPartyInviteInfo>> {
        Some(Arc::new(ThirdPartyInviteInfo::parse(
            &UserId::parse(USERS[0]).unwrap(),
            self.content,
        )))
    }
}

fn is_send<T: Send + 'static>(_: &T) {}

proptest! {
    #![proptest_config(config(1))]

    #[test]
    fn nothing_panics(bytes in any::<Vec<u8>>(), choices in any::<[u8; 32]>(), places in any::<[(u16, u8); 2]>(), damage in 0_usize..3) {
        for rules in Rules::all() {
            let mut c = Choices(&choices);
            let kind = c.from(&KINDS);
            let mut text = content(&mut c, kind, rules, USERS[1]).to_string().into_bytes();
            for (place, byte) in &places[..damage] {
                let place = usize::from(*place) % text.len();
                text[place] = *byte;
            }
            for content in [&bytes[..], &text] {
                judge(rules, kind, content);
            }
        }
    }

    #[test]
    fn lines_of_keys(line in any::<String>()) {
        let _ = KeyPair::from_line(&line);
        let _ = KeyPair::from_line(&format!("ed25519 a {line}"));
        let _ = base64_decode(&line);
    }
}

fn judge(rules: &Rules, kind: &str, content: &[u8]) {
    let room = RoomId::parse("!r:one").unwrap();
    let (sender, prev): (_, [OwnedEventId; 1]) =
        (UserId::parse(USERS[0]).unwrap(), [EventId::parse("$p").unwrap()]);
    let nameless = kind == "m.room.create" && rules.room_id_is_create_hash();
    let draft = Draft {
        room_id: (!nameless).then_some(&*room),
        sender: &sender,
        kind,
        state_key: Some(USERS[1]),
        content,
        origin_server_ts: 0,
        depth: 0,
        prev_events: &prev,
        auth_events: &[],
        redacts: None,
    };
    let view = View { rules, content };
    let _ = authorize(rules, &AuthInput::of_draft(&draft), &view);
    auth_types(rules, &sender, kind, Some(USERS[1]), content);
    class(kind, None, content, true);
    let Ok(unsigned) = build(rules, &draft, Some("random")) else {
        return;
    };
    is_send(&unsigned);
    let pdu = unsigned.sign(&KeyPair::from_seed([1; 32], "a").unwrap(), sender.server_name());
    let _ = authorize(rules, &AuthInput::of_pdu(rules, &pdu), &view);
    let _ = verify_event_signatures(rules, &pdu, &|_, _| Some([1; 32]));
    redact(rules, &pdu).unwrap();
}

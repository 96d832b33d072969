//! The crate as a whole, on the memory engine: what survives, what is refused, what others are told.

use std::sync::Arc;

use hearth_cluster::{Cluster, OutboxHandler};
use hearth_core::Pool;
use hearth_core::clock::ManualClock;
use hearth_core::random::SeededRandom;
use hearth_storage::{Engine, Log, MemoryEngine, ShardId};
use ruma::{OwnedRoomId, RoomId, UserId, room_id, server_name, user_id};
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Map, Value, json};

use crate::room_list::MembershipHandler;
use crate::*;

pub(crate) const ALICE: &str = "@alice:example.org";
pub(crate) const PASSWORD: &str = "correct horse";

pub(crate) struct World {
    pub engine: Arc<MemoryEngine>,
    pub log: Arc<Log>,
    pub clock: Arc<ManualClock>,
    pub users: Arc<Users>,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::on(MemoryEngine::new(), 1)
    }

    pub(crate) fn on(engine: MemoryEngine, seed: u64) -> Self {
        Self::with(engine, seed, |_| {})
    }

    fn with(engine: MemoryEngine, seed: u64, configure: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = Settings::for_tests(server_name!("example.org").to_owned());
        configure(&mut settings);
        let engine = Arc::new(engine);
        let log = Log::open(engine.clone() as Arc<dyn Engine>, 4).unwrap();
        let cluster = Cluster::new(log.clone());
        let clock = Arc::new(ManualClock::new(1_700_000_000_000));
        let users = Users::new(
            log.clone(),
            cluster.clone(),
            clock.clone(),
            Arc::new(SeededRandom::new(seed)),
            Pool::inline(),
            settings,
        );
        cluster.start().unwrap();
        Self {
            engine,
            log,
            clock,
            users,
        }
    }

    /// The same data after the process died.
    pub(crate) fn restarted(self, seed: u64) -> Self {
        let engine = self.engine.crash();
        self.log.close();
        Self::on(engine, seed)
    }

    pub(crate) async fn alice(&self) -> User {
        let new = NewAccount {
            password: Some(PASSWORD.into()),
            ..NewAccount::default()
        };
        self.users.create(alice_id(), new).await.unwrap()
    }

    pub(crate) async fn deliver(&self, user: &UserId, update: &MembershipUpdate, source: (u16, u64)) {
        let handler = MembershipHandler::new(&self.users);
        let source = (ShardId(source.0), source.1, 0);
        handler
            .apply(user.as_str(), &update.row(user).payload, source)
            .await
            .unwrap();
    }
}

pub(crate) fn alice_id() -> &'static UserId {
    <&UserId>::try_from(ALICE).unwrap()
}

pub(crate) fn update(room_id: &RoomId, membership: Membership) -> MembershipUpdate {
    MembershipUpdate {
        room_id: room_id.to_owned(),
        membership,
        event_id: "$event".try_into().unwrap(),
        sender: alice_id().to_owned(),
        anchor: 2,
        ts: 5,
        is_direct: false,
        stripped_state: Vec::new(),
        predecessor: None,
        via: None,
    }
}

pub(crate) fn raw(value: &Value) -> Box<RawValue> {
    to_raw_value(value).unwrap()
}

#[tokio::test]
async fn new_users_are_named_as_the_settings_have_it() {
    let named = |displayname: Option<&str>| NewAccount {
        displayname: displayname.map(str::to_owned),
        ..NewAccount::default()
    };
    let guest = || NewAccount {
        guest: true,
        ..NewAccount::default()
    };
    for (displaynames, new, expected) in [
        (true, named(None), Some("alice")),
        (true, named(Some("Ali")), Some("Ali")),
        (true, named(Some("")), None),
        (true, guest(), None),
        (false, named(None), None),
        (false, named(Some("Ali")), Some("Ali")),
    ] {
        let world = World::with(MemoryEngine::new(), 1, |settings| {
            settings.displaynames = displaynames;
        });
        let told = format!("{displaynames} {new:?}");
        let alice = world.users.create(alice_id(), new).await.unwrap();
        assert_eq!(alice.profile().unwrap().displayname(), expected, "{told}");
    }
}

#[tokio::test]
async fn accounts_are_created_once_and_for_ever() {
    let world = World::new();
    let alice = world.alice().await;
    assert!(matches!(
        world.users.create(alice_id(), NewAccount::default()).await,
        Err(Error::UserInUse)
    ));
    assert!(matches!(
        world.users.check_available(alice_id()),
        Err(Error::UserInUse)
    ));
    for bad in [
        "@Alice:example.org",
        "@:example.org",
        "@a b:example.org",
        "@ä:example.org",
        "@bob:elsewhere.org",
    ] {
        let Ok(id) = UserId::parse(bad) else { continue };
        assert!(
            matches!(world.users.check_available(&id), Err(Error::InvalidUsername(_))),
            "{bad}"
        );
    }
    assert!(world.users.check_password(alice_id(), PASSWORD).await.is_ok());
    assert!(matches!(
        world.users.check_password(alice_id(), "wrong").await,
        Err(Error::WrongPassword)
    ));
    let nobody = user_id!("@nobody:example.org");
    assert!(matches!(
        world.users.check_password(nobody, PASSWORD).await,
        Err(Error::WrongPassword)
    ));
    let tokens = alice.login(Login::default()).await.unwrap();
    alice
        .set_profile_field("displayname", json!("Alice"))
        .await
        .unwrap();
    alice
        .set_account_data(None, "org.example", &raw(&json!({"a": 1})))
        .await
        .unwrap();
    alice.deactivate(true).await.unwrap();
    assert!(matches!(
        world.users.authenticate(&tokens.access_token).await,
        Err(Error::UnknownToken { soft_logout: false })
    ));
    let world = world.restarted(2);
    assert!(matches!(
        world.users.create(alice_id(), NewAccount::default()).await,
        Err(Error::UserInUse)
    ));
    assert!(matches!(
        world.users.check_password(alice_id(), PASSWORD).await,
        Err(Error::Deactivated)
    ));
    let alice = world.users.get(alice_id()).unwrap().unwrap();
    let account = alice.account().unwrap();
    assert!(account.deactivated && account.erased && !account.has_password());
    assert_eq!(erased_users(&*world.engine).unwrap(), [alice_id()]);
    assert!(alice.devices().unwrap().is_empty());
    assert!(alice.profile().unwrap().fields().is_empty());
    assert!(alice.account_data(None, "org.example").unwrap().is_none());
    assert!(matches!(
        alice.login(Login::default()).await,
        Err(Error::Deactivated)
    ));
}

#[tokio::test]
async fn two_who_want_one_name_at_once() {
    let world = World::new();
    let create = || world.users.create(alice_id(), NewAccount::default());
    let (one, two) = tokio::join!(create(), create());
    assert_eq!([one.is_ok(), two.is_ok()].iter().filter(|ok| **ok).count(), 1);
}

#[tokio::test]
async fn what_is_acknowledged_survives_a_crash() {
    let world = World::new();
    let alice = world.alice().await;
    let login = Login {
        device_id: Some("PHONE".into()),
        ..Login::default()
    };
    let tokens = alice.login(login).await.unwrap();
    alice
        .set_profile_field("displayname", json!("Alice"))
        .await
        .unwrap();
    alice.set_locked(true).await.unwrap();
    alice.set_suspended(true).await.unwrap();
    let world = world.restarted(2);
    let session = world.users.authenticate(&tokens.access_token).await.unwrap();
    assert_eq!(session.user_id(), ALICE);
    assert_eq!(session.device_id, "PHONE");
    assert!(session.account.locked && session.account.suspended);
    assert_eq!(session.user.profile().unwrap().displayname(), Some("Alice"));
    session.user.set_locked(false).await.unwrap();
    assert!(!session.user.account().unwrap().locked);
}

#[tokio::test]
async fn concurrent_operations_of_one_user_all_count() {
    let world = World::new();
    let alice = world.alice().await;
    let mut set = tokio::task::JoinSet::new();
    for n in 0..50_u64 {
        let alice = alice.clone();
        set.spawn(async move {
            let change = move |content: &mut Option<Value>| {
                let mut object = content
                    .take()
                    .and_then(|value| value.as_object().cloned())
                    .unwrap_or_default();
                object.insert(n.to_string(), n.into());
                *content = Some(object.into());
                Ok::<(), ()>(())
            };
            alice
                .update_account_data(None, "org.example.set", change)
                .await
                .unwrap()
                .unwrap();
        });
    }
    while let Some(done) = set.join_next().await {
        done.unwrap();
    }
    let content = alice.account_data(None, "org.example.set").unwrap().unwrap();
    assert_eq!(
        serde_json::from_str::<Map<String, Value>>(content.get())
            .unwrap()
            .len(),
        50
    );
    assert_eq!(
        alice
            .changes_since(0)
            .unwrap()
            .iter()
            .filter(|(_, c)| matches!(c, Change::AccountData { .. }))
            .count(),
        1
    );
}

#[tokio::test]
async fn profiles_tell_what_changed() {
    let world = World::new();
    let alice = world.alice().await;
    let before = alice.position();
    let change = alice.set_profile_field("displayname", json!("Al")).await.unwrap();
    assert!(change.concerns_members());
    assert_eq!(
        (change.old, change.new),
        (Some(json!("alice")), Some(json!("Al")))
    );
    assert!(
        !alice
            .set_profile_field("displayname", json!("Al"))
            .await
            .unwrap()
            .is_change()
    );
    assert!(
        !alice
            .set_profile_field("m.tz", json!("Europe/Berlin"))
            .await
            .unwrap()
            .concerns_members()
    );
    alice
        .set_profile_field("org.example.odd", Value::Null)
        .await
        .unwrap();
    assert_eq!(
        alice.profile().unwrap().get("org.example.odd"),
        Some(&Value::Null)
    );
    let gone = alice.delete_profile_field("displayname").await.unwrap();
    assert_eq!((gone.old, gone.new), (Some(json!("Al")), None));
    assert!(
        !alice
            .delete_profile_field("displayname")
            .await
            .unwrap()
            .is_change()
    );
    // An empty text stands for none, as a client says it that takes a picture away.
    for field in ["displayname", "avatar_url"] {
        alice.set_profile_field(field, json!("mxc://a/b")).await.unwrap();
        let emptied = alice.set_profile_field(field, json!("")).await.unwrap();
        assert_eq!(
            (emptied.old, emptied.new),
            (Some(json!("mxc://a/b")), None),
            "{field}"
        );
        assert_eq!(alice.profile().unwrap().get(field), None, "{field}");
    }
    let large = json!("x".repeat(70_000));
    assert!(matches!(
        alice.set_profile_field("org.example.big", large).await,
        Err(Error::ProfileTooLarge)
    ));
    let changes: Vec<Change> = alice
        .changes_since(before)
        .unwrap()
        .into_iter()
        .map(|(_, change)| change)
        .collect();
    assert_eq!(changes, [Change::Profile]);
}

#[tokio::test]
async fn account_data_by_position() {
    let world = World::new();
    let alice = world.alice().await;
    let room = room_id!("!room:example.org");
    let start = alice.position();
    alice
        .set_account_data(None, "org.example.a", &raw(&json!({"n": 1})))
        .await
        .unwrap();
    alice
        .set_account_data(Some(room), "org.example.a", &raw(&json!({"n": 2})))
        .await
        .unwrap();
    let middle = alice.position();
    alice
        .set_account_data(None, "org.example.a", &raw(&json!({"n": 1})))
        .await
        .unwrap();
    assert_eq!(alice.position(), middle, "the same content is no change");
    alice
        .set_account_data(None, "org.example.a", &raw(&json!({"n": 3})))
        .await
        .unwrap();
    let since = |position| {
        let found = alice.now().account_data_between(position, u64::MAX).unwrap();
        found
            .into_iter()
            .map(|(room, data)| (room, data.content.get().to_owned()))
            .collect::<Vec<_>>()
    };
    let of_room: (Option<OwnedRoomId>, String) = (Some(room.to_owned()), r#"{"n":2}"#.into());
    assert_eq!(since(start), [of_room, (None, r#"{"n":3}"#.into())]);
    assert_eq!(since(middle), [(None, r#"{"n":3}"#.into())]);
    assert_eq!(alice.now().all_account_data(Some(room)).unwrap().len(), 1);
    let end = alice.position();
    alice.delete_account_data(None, "org.example.a").await.unwrap();
    assert!(alice.account_data(None, "org.example.a").unwrap().is_none());
    assert_eq!(since(end), [(None, "{}".into())]);
    assert!(alice.now().all_account_data(None).unwrap().is_empty());
    for bad in [json!([]), json!("x"), json!(1)] {
        assert!(
            alice
                .set_account_data(None, "org.example.a", &raw(&bad))
                .await
                .is_err()
        );
    }
}

#[tokio::test]
async fn tags_push_rules_and_ignored_users() {
    let world = World::new();
    let alice = world.alice().await;
    let room = room_id!("!room:example.org");
    alice
        .set_tag(
            room,
            "m.favourite",
            json!({"order": 0.5}).as_object().cloned().unwrap(),
        )
        .await
        .unwrap();
    alice.set_tag(room, "u.work", Map::new()).await.unwrap();
    alice.delete_tag(room, "m.favourite").await.unwrap();
    assert_eq!(alice.tags(room).unwrap().keys().collect::<Vec<_>>(), ["u.work"]);
    let default = |_: &UserId| json!({"global": {"room": []}});
    let rules = || {
        let stored = alice.account_data(None, PUSH_RULES).unwrap();
        stored.map(|raw| serde_json::from_str::<Value>(raw.get()).unwrap())
    };
    let refused: Result<std::result::Result<(), &str>> =
        alice.update_push_rules(default, |_| Err("no")).await;
    assert_eq!(refused.unwrap(), Err("no"));
    assert_eq!(rules(), None, "a refusal changes nothing");
    let add = |rules: &mut Value| {
        rules["global"]["room"] = json!([{"rule_id": room, "actions": []}]);
        Ok::<(), ()>(())
    };
    alice.update_push_rules(default, add).await.unwrap().unwrap();
    assert_eq!(rules().unwrap()["global"]["room"][0]["rule_id"], room.as_str());
    let bob = user_id!("@bob:elsewhere.org");
    assert!(!alice.ignores(bob).unwrap());
    alice
        .set_account_data(None, IGNORED_USERS, &raw(&json!({"ignored_users": {bob: {}}})))
        .await
        .unwrap();
    assert!(alice.ignores(bob).unwrap());
}

#[tokio::test]
async fn filters_have_stable_ids() {
    let world = World::new();
    let alice = world.alice().await;
    let one = alice.put_filter(&json!({"a": 1, "b": {"c": 2}})).await.unwrap();
    let again = alice.put_filter(&json!({"b": {"c": 2}, "a": 1})).await.unwrap();
    assert_eq!(one, again);
    assert!(!one.starts_with('{'));
    assert_ne!(alice.put_filter(&json!({})).await.unwrap(), one);
    assert_eq!(alice.filter(&one).unwrap().unwrap()["a"], 1);
    assert!(alice.filter("other").unwrap().is_none());
    assert!(alice.put_filter(&json!([])).await.is_err());
}

#[tokio::test]
async fn a_full_disk_stops_neither_effects_nor_removals() {
    let world = World::new();
    let alice = world.alice().await;
    let login = Login {
        device_id: Some("PHONE".into()),
        ..Login::default()
    };
    alice.login(login).await.unwrap();
    let engine = world.engine.crash();
    world.log.close();
    engine.set_free_bytes(Some(0));
    let world = World::on(engine, 2);
    let alice = world.users.get(alice_id()).unwrap().unwrap();
    let content = raw(&json!({}));
    let refused = alice.set_account_data(None, "org.example", &content).await;
    assert!(
        matches!(refused, Err(Error::Storage(hearth_storage::Error::DiskFull))),
        "{refused:?}"
    );
    // What a room has promised comes, and what makes room goes on.
    let room = room_id!("!room:example.org");
    world
        .deliver(alice_id(), &update(room, Membership::Join), (1, 10))
        .await;
    assert_eq!(alice.rooms(&[Membership::Join]).unwrap().len(), 1);
    assert_eq!(alice.logout_all().await.unwrap().len(), 1);
}

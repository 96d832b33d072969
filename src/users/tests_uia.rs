//! Registration tokens and user-interactive authentication on the memory engine.

use ruma::{device_id, user_id};
use serde_json::{Map, Value, json};

use crate::tests::{ALICE, PASSWORD, World, alice_id};
use crate::*;

#[tokio::test]
async fn registration_tokens_are_counted() {
    let world = World::new();
    let tokens = world.users.registration_tokens();
    let bootstrap = tokens.bootstrap().await.unwrap().unwrap();
    assert_eq!(
        tokens.bootstrap().await.unwrap().as_ref(),
        Some(&bootstrap),
        "the same until it is used"
    );
    assert!(tokens.is_valid(&bootstrap).unwrap());
    let held = tokens.hold(&bootstrap).unwrap();
    assert!(
        matches!(tokens.hold(&bootstrap), Err(Error::InvalidRegistrationToken)),
        "its one use is held"
    );
    let admin = world
        .users
        .create_with_token(alice_id(), NewAccount::default(), held)
        .await
        .unwrap();
    assert!(admin.account().unwrap().admin);
    assert!(!tokens.is_valid(&bootstrap).unwrap());
    assert_eq!(tokens.bootstrap().await.unwrap(), None);
    let twice = tokens.create(Some("twice".into()), Some(2), None).await.unwrap();
    assert!(tokens.create(Some("twice".into()), None, None).await.is_err());
    assert!(tokens.create(Some("no good!".into()), None, None).await.is_err());
    let held = tokens.hold(&twice.token).unwrap();
    let taken = world
        .users
        .create_with_token(alice_id(), NewAccount::default(), held)
        .await;
    assert!(matches!(taken, Err(Error::UserInUse)));
    assert_eq!(tokens.get("twice").unwrap().unwrap().completed, 0, "given back");
    drop(tokens.hold("twice").unwrap());
    assert_eq!(tokens.pending("twice"), 0);
    let until = world.users.now_ms() + 5;
    tokens
        .change(
            "twice",
            TokenChange {
                expires_at: Some(Some(until)),
                ..TokenChange::default()
            },
        )
        .await
        .unwrap();
    world.clock.advance(5);
    assert!(!tokens.is_valid("twice").unwrap());
    assert_eq!(tokens.list().unwrap().len(), 2);
    tokens.delete("twice").await.unwrap();
    assert!(tokens.get("twice").unwrap().is_none());
    assert!(matches!(
        tokens.delete("twice").await,
        Err(Error::InvalidRegistrationToken)
    ));
}

fn request<'a>(
    user: Option<&'a User>,
    body: &'a Map<String, Value>,
    flows: &'a [Vec<Stage>],
) -> UiaRequest<'a> {
    UiaRequest {
        user,
        device: None,
        method: "POST",
        path: "/x",
        body,
        bind_body: true,
        flows,
        params: json!({}),
    }
}

fn body(value: Value) -> Map<String, Value> {
    value.as_object().cloned().unwrap()
}

async fn challenge(world: &World, request: UiaRequest<'_>) -> Value {
    match world.users.uia().check(&world.users, request).await.unwrap() {
        UiaOutcome::Challenge(challenge) => challenge,
        UiaOutcome::Complete(_) => panic!("completed too early"),
    }
}

async fn complete(world: &World, request: UiaRequest<'_>) -> Completed {
    match world.users.uia().check(&world.users, request).await.unwrap() {
        UiaOutcome::Complete(completed) => completed,
        UiaOutcome::Challenge(challenge) => panic!("not complete: {challenge}"),
    }
}

#[tokio::test]
async fn a_password_authenticates_one_request() {
    let world = World::new();
    let alice = world.alice().await;
    let flows = [vec![Stage::Password]];
    let plain = body(json!({"devices": ["A"]}));
    let asked = challenge(&world, request(Some(&alice), &plain, &flows)).await;
    assert_eq!(asked["flows"], json!([{"stages": ["m.login.password"]}]));
    let session = asked["session"].clone();
    let auth = |password: &str, user: &str| {
        let identifier = json!({"type": "m.id.user", "user": user});
        json!({"type": "m.login.password", "identifier": identifier, "password": password, "session": session})
    };
    for (password, user) in [
        ("wrong", "alice"),
        (PASSWORD, "bob"),
        (PASSWORD, "@alice:elsewhere.org"),
    ] {
        let tried = body(json!({"devices": ["A"], "auth": auth(password, user)}));
        let refused = challenge(&world, request(Some(&alice), &tried, &flows)).await;
        assert_eq!(
            (&refused["errcode"], &refused["session"]),
            (&json!("M_FORBIDDEN"), &session)
        );
    }
    let other = body(json!({"devices": ["B"], "auth": auth(PASSWORD, ALICE)}));
    let changed = world
        .users
        .uia()
        .check(&world.users, request(Some(&alice), &other, &flows))
        .await;
    assert!(matches!(changed, Err(Error::RequestChanged)));
    let good = body(json!({"auth": auth(PASSWORD, ALICE)}));
    let elsewhere = UiaRequest {
        path: "/y",
        ..request(Some(&alice), &good, &flows)
    };
    let changed = world.users.uia().check(&world.users, elsewhere).await;
    assert!(matches!(changed, Err(Error::RequestChanged)));
    let completed = complete(&world, request(Some(&alice), &good, &flows)).await;
    assert_eq!(completed.body, plain, "the body of the first request");
    assert_eq!(completed.stages, [Stage::Password]);
    let replayed = challenge(&world, request(Some(&alice), &good, &flows)).await;
    assert_ne!(replayed["session"], session, "a session is used up");
}

#[tokio::test]
async fn stages_come_in_order_and_are_remembered() {
    let world = World::new();
    world
        .users
        .registration_tokens()
        .create(Some("token".into()), Some(1), None)
        .await
        .unwrap();
    let flows = [vec![Stage::RegistrationToken, Stage::Terms, Stage::Dummy]];
    let empty = body(json!({"username": "bob"}));
    let session = challenge(&world, request(None, &empty, &flows)).await["session"].clone();
    let with = |auth: Value| {
        let mut auth = body(auth);
        auth.insert("session".into(), session.clone());
        body(json!({"username": "bob", "auth": auth}))
    };
    let dummy = with(json!({"type": "m.login.dummy"}));
    let early = challenge(&world, request(None, &dummy, &flows)).await;
    assert!(early["completed"] == json!([]) && early["errcode"] == "M_FORBIDDEN");
    let wrong = with(json!({"type": "m.login.registration_token", "token": "other"}));
    assert_eq!(
        challenge(&world, request(None, &wrong, &flows)).await["errcode"],
        "M_UNAUTHORIZED"
    );
    let right = with(json!({"type": "m.login.registration_token", "token": "token"}));
    let after = challenge(&world, request(None, &right, &flows)).await;
    assert_eq!(after["completed"], json!(["m.login.registration_token"]));
    assert_eq!(
        challenge(&world, request(None, &right, &flows)).await["completed"],
        after["completed"],
        "replayed"
    );
    let page = world.users.uia().answer_page(
        &world.users,
        session.as_str().unwrap(),
        Stage::Terms,
        PageAnswer::Agreed,
    );
    assert_eq!(page.await.unwrap(), PageOutcome::State(PageState::Done));
    let look = with(json!({}));
    let shown = challenge(&world, request(None, &look, &flows)).await;
    assert_eq!(
        shown["completed"],
        json!(["m.login.registration_token", "m.login.terms"])
    );
    let unknown = with(json!({"type": "m.login.sso"}));
    assert_eq!(
        challenge(&world, request(None, &unknown, &flows)).await["errcode"],
        "M_UNRECOGNIZED"
    );
    let completed = complete(&world, request(None, &dummy, &flows)).await;
    let held = completed.registration_token.unwrap();
    assert_eq!(world.users.registration_tokens().pending("token"), 1);
    world
        .users
        .create_with_token(user_id!("@bob:example.org"), NewAccount::default(), held)
        .await
        .unwrap();
    assert_eq!(world.users.registration_tokens().pending("token"), 0);
}

#[tokio::test]
async fn sessions_of_authentication_end() {
    let world = World::new();
    let flows = [vec![Stage::Dummy]];
    let session = challenge(&world, request(None, &Map::new(), &flows)).await["session"].clone();
    world.clock.advance(24 * 60 * 60 * 1000);
    let late = body(json!({"auth": {"type": "m.login.dummy", "session": session}}));
    let refused = challenge(&world, request(None, &late, &flows)).await;
    assert_eq!(refused["errcode"], "M_UNKNOWN");
    assert_ne!(refused["session"], session);
    assert_eq!(world.users.uia().len(), 1, "the ended session is gone");
    let at_once = body(json!({"auth": {"type": "m.login.dummy"}}));
    complete(&world, request(None, &at_once, &flows)).await;
    for bad in [json!({"auth": 3}), json!({"auth": {"type": 1}})] {
        let bad = body(bad);
        let outcome = world
            .users
            .uia()
            .check(&world.users, request(None, &bad, &flows))
            .await;
        assert!(!matches!(outcome, Ok(UiaOutcome::Complete(_))));
    }
}

#[tokio::test]
async fn sessions_of_strangers_take_bounded_memory() {
    let world = World::new();
    let flows = [vec![Stage::Dummy]];
    let large = body(json!({"x": "x".repeat(60_000)}));
    let first = challenge(&world, request(None, &large, &flows)).await["session"].clone();
    let mut last = first.clone();
    for _ in 0..300 {
        last = challenge(&world, request(None, &large, &flows)).await["session"].clone();
    }
    assert!(world.users.uia().len() < 200, "{}", world.users.uia().len());
    // What gave way leaves the disk too.
    world.users.uia().sweep().await.unwrap();
    let with = |session: &Value| body(json!({"auth": {"type": "m.login.dummy", "session": session}}));
    let gone = challenge(&world, request(None, &with(&first), &flows)).await;
    assert_eq!(gone["errcode"], "M_UNKNOWN", "the oldest gave way");
    let completed = complete(&world, request(None, &with(&last), &flows)).await;
    assert_eq!(completed.body, large);
    // What is small is not pushed out by what was large and is gone.
    world.clock.advance(24 * 60 * 60 * 1000);
    for _ in 0..300 {
        challenge(&world, request(None, &Map::new(), &flows)).await;
    }
    assert_eq!(world.users.uia().len(), 300);
}

#[tokio::test]
async fn an_authentication_survives_a_restart() {
    let world = World::new();
    let tokens = world.users.registration_tokens();
    tokens.create(Some("token".into()), Some(1), None).await.unwrap();
    let flows = [vec![Stage::RegistrationToken, Stage::Terms]];
    let wanted = body(json!({"username": "bob", "password": PASSWORD}));
    let session = challenge(&world, request(None, &wanted, &flows)).await["session"].clone();
    let token = json!({"type": "m.login.registration_token", "token": "token", "session": session});
    challenge(&world, request(None, &body(json!({"auth": token})), &flows)).await;
    let world = world.restarted(2);
    let uia = world.users.uia();
    uia.sweep().await.unwrap();
    let only_session = body(json!({"auth": {"session": session}}));
    let shown = challenge(&world, request(None, &only_session, &flows)).await;
    assert_eq!(
        (&shown["session"], &shown["completed"]),
        (&session, &json!(["m.login.registration_token"]))
    );
    assert_eq!(
        world.users.registration_tokens().pending("token"),
        1,
        "held again"
    );
    let terms = body(json!({"auth": {"type": "m.login.terms", "session": session}}));
    let completed = complete(&world, request(None, &terms, &flows)).await;
    assert_eq!(completed.body, wanted, "the body of the first request");
    drop(completed);
    let world = world.restarted(3);
    let again = challenge(&world, request(None, &terms, &flows)).await;
    assert_eq!(again["errcode"], "M_UNKNOWN", "a session is used up for good");
    let late = again["session"].clone();
    world.clock.advance(24 * 60 * 60 * 1000);
    world.users.uia().sweep().await.unwrap();
    let late = body(json!({"auth": {"type": "m.login.terms", "session": late}}));
    assert_eq!(
        challenge(&world, request(None, &late, &flows)).await["errcode"],
        "M_UNKNOWN"
    );
}

#[tokio::test]
async fn an_authentication_belongs_to_a_device() {
    let world = World::new();
    let alice = world.alice().await;
    let flows = [vec![Stage::Password]];
    let of_device = |device, body| UiaRequest {
        device: Some(device),
        ..request(Some(&alice), body, &flows)
    };
    let nothing = Map::new();
    let asked = challenge(&world, of_device(device_id!("ONE"), &nothing)).await;
    let auth = |identifier: Value| {
        let mut auth =
            body(json!({"type": "m.login.password", "password": PASSWORD, "session": asked["session"]}));
        if !identifier.is_null() {
            auth.insert("identifier".into(), identifier);
        }
        body(json!({"auth": auth}))
    };
    let right = auth(json!({"type": "m.id.user", "user": "Alice"}));
    let other = challenge(&world, of_device(device_id!("TWO"), &right)).await;
    assert_eq!(other["errcode"], "M_UNKNOWN");
    assert_ne!(other["session"], asked["session"]);
    let strangers = ["m.id.thirdparty", "m.id.phone"]
        .map(|kind| auth(json!({"type": kind, "medium": "email", "address": "a@b"})));
    for stranger in &strangers {
        let refused = world
            .users
            .uia()
            .check(&world.users, of_device(device_id!("ONE"), stranger))
            .await;
        assert!(matches!(refused, Err(Error::Forbidden(_))));
    }
    complete(&world, of_device(device_id!("ONE"), &right)).await;
    let asked_again = challenge(&world, of_device(device_id!("ONE"), &nothing)).await;
    assert_ne!(asked_again["session"], asked["session"]);
    let unnamed = body(json!({"auth": {"type": "m.login.password", "password": PASSWORD}}));
    complete(&world, of_device(device_id!("ONE"), &unnamed)).await;
}

#[tokio::test]
async fn stages_are_completed_on_pages() {
    let world = World::new();
    let alice = world.alice().await;
    let (users, uia) = (&world.users, world.users.uia());
    users
        .registration_tokens()
        .create(Some("token".into()), Some(1), None)
        .await
        .unwrap();
    let flows = [vec![Stage::Terms, Stage::RegistrationToken]];
    let wanted = body(json!({"username": "bob"}));
    let session = challenge(&world, request(None, &wanted, &flows)).await["session"].clone();
    let session = session.as_str().unwrap();
    let state = |stage| uia.page(users, session, stage).unwrap();
    assert_eq!(state(Stage::Terms), PageState::Open(None));
    assert_eq!(state(Stage::RegistrationToken), PageState::Later);
    assert_eq!(state(Stage::Password), PageState::Unknown, "it is not asked for");
    assert_eq!(
        uia.page(users, "other", Stage::Terms).unwrap(),
        PageState::Unknown
    );
    let answer = async |stage, answer| uia.answer_page(users, session, stage, answer).await.unwrap();
    assert_eq!(
        answer(Stage::RegistrationToken, PageAnswer::Token("token")).await,
        PageOutcome::State(PageState::Later)
    );
    answer(Stage::Terms, PageAnswer::Agreed).await;
    assert!(matches!(
        answer(Stage::RegistrationToken, PageAnswer::Token("other")).await,
        PageOutcome::Wrong(_)
    ));
    assert!(matches!(
        answer(Stage::RegistrationToken, PageAnswer::Agreed).await,
        PageOutcome::Wrong(_)
    ));
    answer(Stage::RegistrationToken, PageAnswer::Token("token")).await;
    assert_eq!(state(Stage::RegistrationToken), PageState::Done);
    let only_session = body(json!({"auth": {"session": session}}));
    let completed = complete(&world, request(None, &only_session, &flows)).await;
    assert!(completed.registration_token.is_some());
    assert_eq!(
        uia.page(users, session, Stage::Terms).unwrap(),
        PageState::Unknown
    );

    let flows = [vec![Stage::Password]];
    let asked = challenge(&world, request(Some(&alice), &wanted, &flows)).await;
    let session = asked["session"].as_str().unwrap();
    let open = uia.page(users, session, Stage::Password).unwrap();
    assert_eq!(open, PageState::Open(Some(alice_id().to_owned())));
    let answer = async |password| {
        let answer = PageAnswer::Password(password);
        uia.answer_page(users, session, Stage::Password, answer)
            .await
            .unwrap()
    };
    assert!(matches!(answer("wrong").await, PageOutcome::Wrong(_)));
    assert_eq!(answer(PASSWORD).await, PageOutcome::State(PageState::Done));
    let only_session = body(json!({"auth": {"session": session}}));
    complete(&world, request(Some(&alice), &only_session, &flows)).await;
}

//! Sessions, their tokens, passwords and devices on the memory engine.

use ruma::device_id;

use crate::tests::{ALICE, PASSWORD, World, alice_id};
use crate::*;

#[tokio::test]
async fn sessions_begin_and_end() {
    let world = World::new();
    let alice = world.alice().await;
    let named = Login {
        initial_display_name: Some("phone".into()),
        ip: Some("::1".into()),
        ..Login::default()
    };
    let one = alice.login(named).await.unwrap();
    assert!(
        one.access_token.starts_with("hth_") && one.refresh_token.is_none() && one.expires_in_ms.is_none()
    );
    let two = alice
        .login(Login {
            device_id: Some("TWO".into()),
            ..Login::default()
        })
        .await
        .unwrap();
    let session = world.users.authenticate(&one.access_token).await.unwrap();
    assert_eq!(
        (session.user_id(), &session.device_id),
        (alice_id(), &one.device_id)
    );
    assert_eq!(alice.devices().unwrap().len(), 2);
    let again = alice
        .login(Login {
            device_id: Some("TWO".into()),
            ..Login::default()
        })
        .await
        .unwrap();
    assert!(
        world.users.authenticate(&two.access_token).await.is_err(),
        "a device has one session"
    );
    assert!(world.users.authenticate(&again.access_token).await.is_ok());
    alice.rename_device(&one.device_id, Some("laptop")).await.unwrap();
    let device = alice.device(&one.device_id).unwrap().unwrap();
    assert_eq!(
        (device.display_name.as_deref(), device.last_seen_ip.as_deref()),
        (Some("laptop"), Some("::1"))
    );
    assert!(matches!(
        alice.rename_device(device_id!("NONE"), None).await,
        Err(Error::NotFound(_))
    ));
    alice.logout(&one.device_id).await.unwrap();
    assert!(matches!(
        world.users.authenticate(&one.access_token).await,
        Err(Error::UnknownToken { soft_logout: false })
    ));
    assert_eq!(alice.logout_all().await.unwrap(), ["TWO"]);
    assert!(world.users.authenticate(&again.access_token).await.is_err());
    for bad in ["", "hth_", "x", &one.access_token[1..]] {
        assert!(world.users.authenticate(bad).await.is_err());
    }
}

#[tokio::test]
async fn tokens_are_refreshed_without_losing_the_device() {
    let world = World::new();
    let alice = world.alice().await;
    let users = &world.users;
    let first = alice
        .login(Login {
            refreshable: true,
            ..Login::default()
        })
        .await
        .unwrap();
    world.clock.advance(first.expires_in_ms.unwrap());
    assert!(matches!(
        users.authenticate(&first.access_token).await,
        Err(Error::UnknownToken { soft_logout: true })
    ));
    let refresh = first.refresh_token.unwrap();
    let lost = users.refresh(&refresh).await.unwrap();
    let second = users.refresh(&refresh).await.unwrap();
    assert!(
        users.authenticate(&lost.access_token).await.is_err(),
        "its answer never came, so it was made again"
    );
    assert_eq!(second.device_id, first.device_id);
    let session = users.authenticate(&second.access_token).await.unwrap();
    assert_eq!(session.device_id, first.device_id);
    assert!(
        users.refresh(&refresh).await.is_err(),
        "ended by the first use of the new access token"
    );
    assert!(matches!(
        users.authenticate(&first.access_token).await,
        Err(Error::UnknownToken { soft_logout: false })
    ));
    let third = users
        .refresh(second.refresh_token.as_deref().unwrap())
        .await
        .unwrap();
    assert!(
        users.authenticate(&second.access_token).await.is_ok(),
        "good until the new one is used"
    );
    let fourth = users
        .refresh(third.refresh_token.as_deref().unwrap())
        .await
        .unwrap();
    assert!(
        users.authenticate(&second.access_token).await.is_err(),
        "using the new refresh token ends it too"
    );
    assert!(users.authenticate(&fourth.access_token).await.is_ok());
    assert!(users.refresh(&fourth.access_token).await.is_err());
    assert_eq!(alice.devices().unwrap().len(), 1);
}

#[tokio::test]
async fn login_tokens_work_once() {
    let world = World::new();
    let alice = world.alice().await;
    let (token, lifetime) = alice.issue_login_token().await.unwrap();
    assert_eq!(world.users.redeem_login_token(&token).await.unwrap().id(), ALICE);
    assert!(world.users.redeem_login_token(&token).await.is_err());
    let (late, _) = alice.issue_login_token().await.unwrap();
    world.clock.advance(lifetime);
    assert!(world.users.redeem_login_token(&late).await.is_err());
    let (open, _) = alice.issue_login_token().await.unwrap();
    assert!(
        world.users.authenticate(&open).await.is_err(),
        "it is no access token"
    );
    alice.deactivate(false).await.unwrap();
    assert!(world.users.redeem_login_token(&open).await.is_err());
}

#[tokio::test]
async fn passwords_change() {
    let world = World::new();
    let alice = world.alice().await;
    let keep = alice.login(Login::default()).await.unwrap();
    let other = alice.login(Login::default()).await.unwrap();
    assert!(matches!(
        alice.set_password("short", false, None).await,
        Err(Error::WeakPassword(_))
    ));
    let deleted = alice
        .set_password("battery staple", true, Some(&keep.device_id))
        .await
        .unwrap();
    assert_eq!(deleted, [other.device_id]);
    assert!(world.users.authenticate(&keep.access_token).await.is_ok());
    assert!(world.users.authenticate(&other.access_token).await.is_err());
    assert!(!alice.verify_password(PASSWORD).await.unwrap());
    assert!(alice.verify_password("battery staple").await.unwrap());
}

#[tokio::test]
async fn when_devices_were_seen_is_flushed() {
    let world = World::new();
    let alice = world.alice().await;
    let tokens = alice.login(Login::default()).await.unwrap();
    let session = world.users.authenticate(&tokens.access_token).await.unwrap();
    world.clock.advance(1000);
    session.seen(Some([10, 0, 0, 1].into()), Some("client"));
    let seen = |device: Device| (device.last_seen_ts, device.last_seen_ip, device.user_agent);
    let expected = (
        Some(world.users.now_ms()),
        Some("10.0.0.1".to_owned()),
        Some("client".to_owned()),
    );
    assert_eq!(seen(alice.device(&tokens.device_id).unwrap().unwrap()), expected);
    world.users.flush_last_seen().await.unwrap();
    let world = world.restarted(2);
    let alice = world.users.get(alice_id()).unwrap().unwrap();
    assert_eq!(seen(alice.devices().unwrap().remove(0)), expected);
}

#[tokio::test]
async fn application_services_make_devices() {
    let world = World::new();
    let alice = world.alice().await;
    assert!(alice.put_device(device_id!("BOT"), Some("Bridge")).await.unwrap());
    assert!(!alice.put_device(device_id!("BOT"), None).await.unwrap());
    let name = || alice.device(device_id!("BOT")).unwrap().unwrap().display_name;
    assert_eq!(name().as_deref(), Some("Bridge"));
    assert!(!alice.put_device(device_id!("BOT"), Some("Other")).await.unwrap());
    assert_eq!(name().as_deref(), Some("Other"));
}

#[tokio::test]
async fn who_ends_all_sessions_ends_the_tokens_that_begin_one() {
    let world = World::new();
    let alice = world.alice().await;
    let (kept, _) = alice.issue_login_token().await.unwrap();
    alice.set_password("another horse", false, None).await.unwrap();
    assert!(world.users.redeem_login_token(&kept).await.is_ok());
    let (old, _) = alice.issue_login_token().await.unwrap();
    alice.set_password(PASSWORD, true, None).await.unwrap();
    assert!(world.users.redeem_login_token(&old).await.is_err());
    let (old, _) = alice.issue_login_token().await.unwrap();
    alice.logout_all().await.unwrap();
    assert!(world.users.redeem_login_token(&old).await.is_err());
}

//! Encrypted chat between matrix-sdk and matrix-js-sdk: this is Alice; js_sdk_meet.mjs is Bob, and says what is agreed.

use std::sync::{Arc, Mutex};

use anyhow::{Context, Result, bail, ensure};
use matrix_sdk::attachment::AttachmentConfig;
use matrix_sdk::media::{MediaFormat, MediaRequestParameters};
use matrix_sdk::room::edit::EditedContent;
use matrix_sdk::ruma::events::key::verification::request::ToDeviceKeyVerificationRequestEvent;
use matrix_sdk::ruma::events::room::message::{
    MessageType, RoomMessageEventContent, RoomMessageEventContentWithoutRelation,
};
use matrix_sdk::ruma::{OwnedRoomId, OwnedUserId};

use crate::device::{Device, read_in_thread, until};
use crate::{encrypted_room, verify};

/// Who asked for a verification, and by which name.
type Requests = Arc<Mutex<Vec<(OwnedUserId, String)>>>;

/// The whole meeting.
pub async fn run(url: &str) -> Result<()> {
    let alice = Device::register(url, "alice").await?;
    let requests = watch_requests(&alice);
    let bob = OwnedUserId::try_from("@bob:localhost")?;
    let room = encrypted_room(&alice, "Both", &bob).await?;
    until("bob in the room", async || {
        let room = alice.client.get_room(&room);
        Ok(room
            .filter(|room| room.joined_members_count() == 2)
            .map(|_| ()))
    })
    .await?;
    alice.say(&room, "Hello from Rust").await?;
    alice.read(&room, "Hello from JS").await?;
    relate(&alice, &room).await?;
    share(&alice, &room).await?;
    verify_bob(&alice, &bob, &room, &requests).await?;
    alice.read(&room, "after the server was killed").await?;
    alice.read(&room, "before the server was killed").await?;
    alice.client.send_queue().set_enabled(true).await;
    alice
        .say(&room, "from Rust after the server was killed")
        .await?;
    let fresh = fresh_device(url, alice, &room).await?;
    fresh.read(&room, "welcome back").await?;
    fresh.say(&room, "goodbye from Rust").await?;
    fresh.read(&room, "goodbye from Rust").await?;
    Ok(())
}

/// Notes requests for verification.
fn watch_requests(alice: &Device) -> Requests {
    let requests = Requests::default();
    let noted = requests.clone();
    alice
        .client
        .add_event_handler(move |event: ToDeviceKeyVerificationRequestEvent| {
            let noted = noted.clone();
            async move {
                let mut noted = noted.lock().expect("nobody panics with it");
                noted.push((event.sender, event.content.transaction_id.to_string()));
            }
        });
    requests
}

/// Reactions, edits and threads in both directions.
async fn relate(alice: &Device, room: &OwnedRoomId) -> Result<()> {
    let his = alice.read(room, "Hello from JS").await?;
    let mine = alice.read(room, "Hello from Rust").await?;
    let timeline = alice.timeline(room).await?;
    timeline.toggle_reaction(&his.identifier(), "🦀").await?;
    let text = RoomMessageEventContentWithoutRelation::text_plain("Hello from Rust!");
    timeline
        .edit(&mine.identifier(), EditedContent::RoomMessage(text))
        .await?;
    alice.read(room, "Hello from JS!").await?;
    until("his reaction", async || {
        let item = alice.read(room, "Hello from Rust!").await?;
        let reactions = item.content().reactions();
        Ok(reactions
            .is_some_and(|reactions| reactions.contains_key("🟨"))
            .then_some(()))
    })
    .await?;
    let root = mine.event_id().context("an event id")?.to_owned();
    let thread = alice.thread(room, root).await?;
    read_in_thread(&thread, "thread from JS").await?;
    thread
        .send(RoomMessageEventContent::text_plain("thread from Rust").into())
        .await?;
    read_in_thread(&thread, "thread from Rust").await
}

fn bytes(modulus: u32) -> Vec<u8> {
    (0..100_000_u32).map(|at| (at % modulus) as u8).collect()
}

/// Attachments in both directions.
async fn share(alice: &Device, room: &OwnedRoomId) -> Result<()> {
    let joined = alice.client.get_room(room).context("the room")?;
    let kind = &mime::APPLICATION_OCTET_STREAM;
    joined
        .send_attachment("rust.bin", kind, bytes(251), AttachmentConfig::new())
        .await?;
    let item = alice.read(room, "js.bin").await?;
    let message = item.content().as_message().context("a message")?;
    let MessageType::File(file) = message.msgtype() else {
        bail!("not a file")
    };
    let request = MediaRequestParameters {
        source: file.source.clone(),
        format: MediaFormat::File,
    };
    let got = alice.client.media().get_media_content(&request, false).await?;
    ensure!(got == bytes(241), "another file came out");
    Ok(())
}

/// Bob asks to compare emoji.
async fn verify_bob(
    alice: &Device,
    bob: &OwnedUserId,
    room: &OwnedRoomId,
    requests: &Requests,
) -> Result<()> {
    let flow = until("his request", async || {
        let requests = requests.lock().expect("nobody panics with it");
        let his = requests.iter().find(|(sender, _)| sender == bob);
        Ok(his.map(|(_, flow)| flow.clone()))
    })
    .await?;
    verify::accepted(alice, bob, &flow).await?;
    let sas = verify::started(alice, bob, &flow).await?;
    sas.accept().await?;
    let emoji = verify::shown(&sas).await?;
    // The libraries differ in whether a symbol says that it is an emoji.
    let emoji = emoji.join(" ").replace('\u{fe0f}', "");
    alice.say(room, &format!("I see {emoji}")).await?;
    alice.read(room, "So do I").await?;
    sas.confirm().await?;
    verify::done(&sas).await?;
    until("bob verified", async || {
        let identity = alice.client.encryption().get_user_identity(bob).await?;
        Ok(identity
            .is_some_and(|identity| identity.is_verified())
            .then_some(()))
    })
    .await
}

/// Alice loses her device; a fresh one has nothing but the recovery key, and reads everything.
async fn fresh_device(url: &str, alice: Device, room: &OwnedRoomId) -> Result<Device> {
    let before = alice.texts(room).await?;
    let recovery = alice
        .client
        .encryption()
        .recovery()
        .enable()
        .wait_for_backups_to_upload()
        .await?;
    alice
        .client
        .encryption()
        .backups()
        .wait_for_steady_state()
        .await?;
    alice.log_out().await?;
    let fresh = Device::login(url, "alice").await?;
    fresh.recover(&recovery).await?;
    until("all that was said", async || {
        let now = fresh.texts(room).await?;
        Ok(before.iter().all(|text| now.contains(text)).then_some(()))
    })
    .await?;
    fresh.say(room, "from a fresh device").await?;
    Ok(fresh)
}

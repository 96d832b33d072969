//! Server notices: the one room in which a user hears from the operator (Client-Server API, "Server Notices").
//!
//! Nothing is stored about these rooms: a user's notices room is the one that the notices user made and the user
//! has an entry for, so that a crash between making it and noting it cannot leave a second one.

use hearth_core::error::{MatrixError, errcode};
use hearth_rooms::{CreateRoom, Membership, NewEvent, Preset, Room, Txn};
use hearth_users::User;
use ruma::{OwnedEventId, OwnedUserId, UserId};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::app::App;
use crate::client::rooms::member_profile;
use crate::error::Result;

/// The tag by which clients know the room.
const TAG: &str = "m.server_notice";

/// What an administrator sends; everything that is needed is asked for only once it is known that he is one.
#[derive(Default, Deserialize)]
pub struct Notice {
    user_id: Option<OwnedUserId>,
    #[serde(rename = "type")]
    kind: Option<String>,
    state_key: Option<String>,
    content: Option<Map<String, Value>>,
}

/// Sends a notice: finds or makes the user's room, invites the user if need be, and adds the event.
pub async fn send_notice(app: &App, notice: Notice, txn: Option<Txn>) -> Result<OwnedEventId> {
    let user_id = notice
        .user_id
        .ok_or_else(|| MatrixError::missing_param("user_id is missing"))?;
    let content = notice
        .content
        .ok_or_else(|| MatrixError::missing_param("content is missing"))?;
    // Two notices at once must make neither the user nor the room twice.
    let one_at_a_time = app.notices.lock().await;
    let speaker = app.users.server_user().await?.ok_or_else(|| {
        MatrixError::unknown("Server notices are off: server_notices.localpart is not configured")
    })?;
    if !app.rooms.is_local(&user_id) {
        return Err(MatrixError::invalid_param("Notices go to users of this server only").into());
    }
    let target = app.user(&user_id)?;
    if target.account()?.deactivated || speaker.id() == user_id {
        return Err(MatrixError::not_found("There is no such user who could read a notice").into());
    }
    dress(app, &speaker).await?;
    let room = match find_room(app, &speaker, &target)? {
        Some(room) => {
            let profile = member_profile(app, speaker.id())?;
            room.update_profile(speaker.id(), &profile).await?;
            bring_in(app, &room, &speaker, &target).await?;
            room
        }
        None => create_room(app, &speaker, &target).await?,
    };
    drop(one_at_a_time);
    if !target.tags(room.id())?.contains_key(TAG) {
        target.set_tag(room.id(), TAG, Map::new()).await?;
    }
    let event = NewEvent {
        sender: speaker.id().to_owned(),
        kind: notice.kind.unwrap_or_else(|| "m.room.message".to_owned()),
        state_key: notice.state_key,
        content: Value::Object(content).to_string().into_bytes(),
        redacts: None,
        timestamp_ms: None,
    };
    Ok(room.send(event, txn).await?.event_id)
}

/// Refuses that a user declines the invitation to the notices room. Who joined it may leave.
pub fn must_not_decline(app: &App, room: &Room, user: &UserId) -> Result<()> {
    let is_notices = app.users.server_user_id() == Some(&*room.create_info().sender);
    if is_notices && room.membership(user)? == Membership::Invite {
        let sentence = "The invitation to the server notices room cannot be declined";
        return Err(MatrixError::new(403, errcode::CANNOT_LEAVE_SERVER_NOTICE_ROOM, sentence).into());
    }
    Ok(())
}

/// Gives the notices user the name and picture of the settings.
async fn dress(app: &App, speaker: &User) -> Result<()> {
    let settings = &app.config.server_notices;
    let profile = speaker.profile()?;
    if profile.displayname() != Some(&settings.display_name) {
        speaker
            .set_profile_field("displayname", json!(settings.display_name))
            .await?;
    }
    if profile.avatar_url() != settings.avatar_url.as_deref() {
        speaker
            .set_profile_field("avatar_url", json!(settings.avatar_url))
            .await?;
    }
    Ok(())
}

/// The user's notices room; also one that he forgot.
fn find_room(app: &App, speaker: &User, target: &User) -> Result<Option<Room>> {
    for entry in target.now().rooms_with_forgotten()? {
        let Some(room) = app.rooms.get(&entry.room_id)? else {
            continue;
        };
        if room.create_info().sender == speaker.id() && room.membership(speaker.id())? == Membership::Join {
            return Ok(Some(room));
        }
    }
    Ok(None)
}

async fn create_room(app: &App, speaker: &User, target: &User) -> Result<Room> {
    let settings = &app.config.server_notices;
    let mut power_levels = Map::new();
    // Nobody would read what is written there, nor see who is invited.
    power_levels.insert("events_default".to_owned(), json!(50));
    power_levels.insert("invite".to_owned(), json!(50));
    let avatar = settings
        .avatar_url
        .iter()
        .map(|url| ("m.room.avatar".to_owned(), String::new(), json!({ "url": url })));
    let spec = CreateRoom {
        creator_profile: member_profile(app, speaker.id())?,
        name: Some(settings.room_name.clone()),
        invite: vec![(target.id().to_owned(), member_profile(app, target.id())?)],
        initial_state: avatar.collect(),
        power_levels: Some(power_levels),
        ..CreateRoom::new(speaker.id().to_owned(), Preset::PrivateChat)
    };
    Ok(app.rooms.create(spec).await?)
}

/// Invites a user who is out of the room.
async fn bring_in(app: &App, room: &Room, speaker: &User, target: &User) -> Result<()> {
    match room.membership(target.id())? {
        Membership::Join | Membership::Invite => return Ok(()),
        Membership::Ban => drop(room.unban(speaker.id(), target.id(), None).await?),
        Membership::Leave | Membership::Knock | Membership::None => {}
    }
    let profile = member_profile(app, target.id())?;
    room.invite(speaker.id(), target.id(), profile, None).await?;
    Ok(())
}

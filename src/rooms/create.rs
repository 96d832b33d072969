//! Creating a room (client-server API, `POST /createRoom`): all of its first events are one batch.

use std::sync::Arc;

use hearth_storage::{Batch, EntityKind, Family, record};
use ruma::{OwnedRoomAliasId, OwnedRoomId, OwnedUserId, RoomId, RoomVersionId};
use serde_json::{Map, Value, json};

use crate::{Error, NewEvent, Room, Rooms, head::HeadRecord, input::Outcome, keys, load::RoomRecord};

/// Length of the opaque part of a room id that is drawn at random (room versions before 12).
const ROOM_ID_CHARS: usize = 18;

/// The most invitations that one createRoom may carry.
const INVITES_MAX: usize = 500;

/// The most initial state events that one createRoom may carry.
const INITIAL_STATE_MAX: usize = 500;

/// The presets of `createRoom`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preset {
    /// `private_chat`: by invitation.
    PrivateChat,
    /// `trusted_private_chat`: by invitation, invited users have the creator's power.
    TrustedPrivateChat,
    /// `public_chat`: open to all.
    PublicChat,
}

/// What a new room shall be.
#[derive(Clone, Debug)]
pub struct CreateRoom {
    /// Who creates it; a user of this server.
    pub creator: OwnedUserId,
    /// The creator's profile, as member events carry it.
    pub creator_profile: Map<String, Value>,
    /// The room version; the configured default where none is named.
    pub version: Option<RoomVersionId>,
    /// The preset.
    pub preset: Preset,
    /// Whether the room is listed in the public directory.
    pub listed: bool,
    /// An alias of this server for the room.
    pub alias: Option<OwnedRoomAliasId>,
    /// `m.room.name`.
    pub name: Option<String>,
    /// `m.room.topic`.
    pub topic: Option<String>,
    /// Users to invite, with the profile their member event carries.
    pub invite: Vec<(OwnedUserId, Map<String, Value>)>,
    /// More content of the create event.
    pub creation_content: Map<String, Value>,
    /// Type, state key and content of further state events.
    pub initial_state: Vec<(String, String, Value)>,
    /// Members that replace those of the default power levels.
    pub power_levels: Option<Map<String, Value>>,
    /// Whether the invitations say that the room is a direct chat.
    pub is_direct: bool,
    /// The room that this one replaces, for its history of permissions: set by an upgrade.
    pub extra_bans: Vec<(OwnedUserId, Value)>,
    /// Power levels that hold once the room is set up, where they differ from those it is set up with.
    pub last_power_levels: Option<Value>,
}

impl CreateRoom {
    /// A room of one's own with a preset and nothing else.
    pub fn new(creator: OwnedUserId, preset: Preset) -> Self {
        Self {
            creator,
            creator_profile: Map::new(),
            version: None,
            preset,
            listed: false,
            alias: None,
            name: None,
            topic: None,
            invite: Vec::new(),
            creation_content: Map::new(),
            initial_state: Vec::new(),
            power_levels: None,
            is_direct: false,
            extra_bans: Vec::new(),
            last_power_levels: None,
        }
    }
}

impl Rooms {
    /// Creates a room; returns when it is on disk, its alias points to it, and the users it
    /// concerns have it in their lists.
    pub async fn create(self: &Arc<Self>, spec: CreateRoom) -> Result<Room, Error> {
        self.log.check_writable()?;
        if spec.invite.len() > INVITES_MAX || spec.initial_state.len() > INITIAL_STATE_MAX {
            return Err(Error::Invalid(format!(
                "a room can be created with at most {INVITES_MAX} invitations and {INITIAL_STATE_MAX} state events"
            )));
        }
        let version = spec
            .version
            .clone()
            .unwrap_or_else(|| self.default_version.clone());
        let rules =
            hearth_events::rules(&version).ok_or_else(|| Error::UnsupportedVersion(version.to_string()))?;
        let mut now = self.clock.now_ms();
        let (create, room_id) = loop {
            let create = self.create_event(&spec, &version, now)?;
            let room_id = self.new_room_id(rules, &create)?;
            // Two rooms made alike in one millisecond would have one id where it is a hash.
            let taken = hearth_storage::entity(self.reader(), EntityKind::Room, room_id.as_str())?;
            if taken.is_none() && self.starting.lock().insert(room_id.clone()) {
                break (create, room_id);
            }
            now += 1;
        };
        let _starting = Starting {
            rooms: self.as_ref(),
            id: &room_id,
        };
        if let Some(alias) = &spec.alias {
            self.reserve_alias(alias, &room_id, &spec.creator).await?;
        }
        let outcome = self.create_with(&spec, &version, create, &room_id, now).await;
        if let (Err(_), Some(alias)) = (&outcome, &spec.alias) {
            self.release_alias(alias).await?;
        }
        outcome
    }

    async fn create_with(
        self: &Arc<Self>,
        spec: &CreateRoom,
        version: &RoomVersionId,
        create: NewEvent,
        room_id: &RoomId,
        now: u64,
    ) -> Result<Room, Error> {
        let mut rows = Batch::new();
        let key = self.log.allocate(EntityKind::Room, room_id.as_str(), &mut rows)?;
        let room = self.assemble(room_id, key, version, HeadRecord::default(), Default::default())?;
        let mut events = vec![create];
        events.extend(self.first_events(&room, spec)?);
        for event in &mut events {
            event.timestamp_ms = Some(now);
        }
        let stored = RoomRecord {
            room_id: room_id.to_string(),
            version: version.to_string(),
        };
        rows.put(
            Family::Room,
            keys::room(key, keys::ROOM_RECORD),
            record::encode(&stored),
        );
        if let Some(alias) = &spec.alias {
            let row = keys::index(key, keys::INDEX_ALIAS, &[alias.as_bytes()]);
            rows.put(Family::RoomIndex, row, keys::tagged(&[]));
        }
        let prepared = events
            .into_iter()
            .map(|event| room.prepare(event, None))
            .collect::<Result<Vec<_>, _>>()?;
        match room.stage(&prepared, None) {
            Outcome::Staged(staged) => {
                let staged = staged.with_rows(rows);
                room.learn_create()?;
                self.loaded.insert(room_id.to_owned(), room.clone());
                room.finish(staged).await?;
            }
            Outcome::Refused(Error::Forbidden(why), _) => return Err(Error::InvalidRoomState(why)),
            Outcome::Refused(error, _) => return Err(error),
            Outcome::Repeat(..) | Outcome::Wait(_) => return Err(Error::Damaged("new room")),
        }
        if spec.listed {
            self.set_listed(&room, true).await?;
        }
        self.invite_remotes(&room, spec).await;
        Ok(room)
    }

    /// Invites the users of other servers, at once. The room stands whether their servers answer or not.
    async fn invite_remotes(&self, room: &Room, spec: &CreateRoom) {
        let remotes = spec.invite.iter().filter(|(user, _)| !self.is_local(user));
        let invitations = remotes.map(|(user, profile)| async move {
            let mut content = profile.clone();
            if spec.is_direct {
                content.insert("is_direct".to_owned(), json!(true));
            }
            if let Err(error) = room.invite_remote(&spec.creator, user, content).await {
                tracing::info!(%error, %user, room = %room.id(), "a user of another server is not invited");
            }
        });
        futures::future::join_all(invitations).await;
    }

    fn create_event(&self, spec: &CreateRoom, version: &RoomVersionId, now: u64) -> Result<NewEvent, Error> {
        let rules =
            hearth_events::rules(version).ok_or_else(|| Error::UnsupportedVersion(version.to_string()))?;
        let mut content = spec.creation_content.clone();
        content.insert("room_version".to_owned(), json!(version.as_str()));
        match !rules.authorization.use_room_create_sender {
            true => content.insert("creator".to_owned(), json!(spec.creator)),
            false => content.remove("creator"),
        };
        if rules.authorization.additional_room_creators
            && spec.preset == Preset::TrustedPrivateChat
            && !spec.invite.is_empty()
        {
            let list = content.entry("additional_creators").or_insert_with(|| json!([]));
            let list = list
                .as_array_mut()
                .ok_or_else(|| Error::Invalid("additional_creators is not a list".to_owned()))?;
            for (user, _) in &spec.invite {
                if !list.iter().any(|known| known == user.as_str()) {
                    list.push(json!(user));
                }
            }
        }
        let mut event = NewEvent::state(&spec.creator, "m.room.create", "", &Value::Object(content));
        event.timestamp_ms = Some(now);
        Ok(event)
    }

    fn new_room_id(
        &self,
        rules: &'static hearth_events::Rules,
        create: &NewEvent,
    ) -> Result<OwnedRoomId, Error> {
        if !rules.room_id_is_create_hash() {
            let opaque = hearth_core::random::alphanumeric(&*self.random, ROOM_ID_CHARS);
            return OwnedRoomId::try_from(format!("!{opaque}:{}", self.server_name))
                .map_err(|_| Error::Damaged("server name"));
        }
        let content = hearth_events::canonical::canonicalize(&create.content, rules.strict_json())?;
        let draft = hearth_events::Draft {
            room_id: None,
            sender: &create.sender,
            kind: &create.kind,
            state_key: Some(""),
            content: &content,
            origin_server_ts: create.timestamp_ms.unwrap_or_default(),
            depth: 1,
            prev_events: &[],
            auth_events: &[],
            redacts: None,
        };
        Ok(hearth_events::build(rules, &draft, None)?.room_id().to_owned())
    }

    /// All events after the create event, in the specification's order.
    fn first_events(&self, room: &Room, spec: &CreateRoom) -> Result<Vec<NewEvent>, Error> {
        let creator = &spec.creator;
        let state = |kind: &str, key: &str, content: &Value| NewEvent::state(creator, kind, key, content);
        let mut join = spec.creator_profile.clone();
        join.insert("membership".to_owned(), json!("join"));
        let mut events = vec![
            state("m.room.member", creator.as_str(), &Value::Object(join)),
            state("m.room.power_levels", "", &power_levels(room, spec)),
        ];
        if let Some(alias) = &spec.alias {
            events.push(state("m.room.canonical_alias", "", &json!({ "alias": alias })));
        }
        let given = |kind: &str| {
            spec.initial_state
                .iter()
                .any(|(found, key, _)| found == kind && key.is_empty())
        };
        let (join_rule, guests) = match spec.preset {
            Preset::PublicChat => ("public", "forbidden"),
            Preset::PrivateChat | Preset::TrustedPrivateChat => ("invite", "can_join"),
        };
        for (kind, content) in [
            ("m.room.join_rules", json!({ "join_rule": join_rule })),
            (
                "m.room.history_visibility",
                json!({ "history_visibility": "shared" }),
            ),
            ("m.room.guest_access", json!({ "guest_access": guests })),
        ] {
            // Without the event guests are kept out anyway.
            let is_default = content.get("guest_access") == Some(&json!("forbidden"));
            if !given(kind) && !is_default {
                events.push(state(kind, "", &content));
            }
        }
        for (kind, key, content) in &spec.initial_state {
            if !(kind == "m.room.power_levels" && key.is_empty() && spec.power_levels.is_some()) {
                events.push(state(kind, key, content));
            }
        }
        if let Some(name) = &spec.name {
            events.push(state("m.room.name", "", &json!({ "name": name })));
        }
        if let Some(topic) = &spec.topic {
            let content = json!({
                "topic": topic,
                "m.topic": { "m.text": [{ "body": topic, "mimetype": "text/plain" }] },
            });
            events.push(state("m.room.topic", "", &content));
        }
        for (user, content) in &spec.extra_bans {
            events.push(state("m.room.member", user.as_str(), content));
        }
        if let Some(content) = &spec.last_power_levels {
            events.push(state("m.room.power_levels", "", content));
        }
        for (user, profile) in spec.invite.iter().filter(|(user, _)| self.is_local(user)) {
            let mut content = profile.clone();
            content.insert("membership".to_owned(), json!("invite"));
            if spec.is_direct {
                content.insert("is_direct".to_owned(), json!(true));
            }
            events.push(state("m.room.member", user.as_str(), &Value::Object(content)));
        }
        Ok(events)
    }
}

/// An id that a room is being created with.
struct Starting<'a> {
    rooms: &'a Rooms,
    id: &'a RoomId,
}

impl Drop for Starting<'_> {
    fn drop(&mut self) {
        self.rooms.starting.lock().remove(self.id);
    }
}

/// The first power levels: the defaults, then what the preset and the client say.
fn power_levels(room: &Room, spec: &CreateRoom) -> Value {
    let privileged = room.rules().authorization.explicitly_privilege_room_creators;
    let mut users = Map::new();
    if !privileged {
        users.insert(spec.creator.to_string(), json!(100));
        if spec.preset == Preset::TrustedPrivateChat {
            for (user, _) in &spec.invite {
                users.insert(user.to_string(), json!(100));
            }
        }
    }
    let given = |name: &str| spec.power_levels.as_ref()?.get(name);
    // From room version 12 on, to replace a room takes more power than its state does.
    let tombstone = match privileged {
        true => {
            let state = given("state_default").and_then(Value::as_i64).unwrap_or(50);
            state.saturating_add(1).max(150)
        }
        false => 100,
    };
    let mut content = json!({
        "ban": 50,
        "events": {
            "m.room.avatar": 50,
            "m.room.canonical_alias": 50,
            "m.room.encryption": 100,
            "m.room.history_visibility": 100,
            "m.room.name": 50,
            "m.room.power_levels": 100,
            "m.room.server_acl": 100,
            "m.room.tombstone": tombstone,
        },
        "events_default": 0,
        "historical": 100,
        // Into a room that all may find, moderators invite.
        "invite": if matches!(spec.preset, Preset::PublicChat) { 50 } else { 0 },
        "kick": 50,
        "notifications": { "room": 50 },
        "redact": 50,
        "state_default": 50,
        "users": users,
        "users_default": 0,
    });
    if let (Some(members), Some(given)) = (content.as_object_mut(), &spec.power_levels) {
        for (name, value) in given {
            members.insert(name.clone(), value.clone());
        }
    }
    // Also where the client has levels of its own and says nothing of that.
    if let (true, Some(events)) = (privileged, content["events"].as_object_mut()) {
        events.entry("m.room.tombstone").or_insert(json!(tombstone));
    }
    content
}

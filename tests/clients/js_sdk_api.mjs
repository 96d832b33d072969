// The larger client API through a running server with matrix-js-sdk: what Element asks beside chatting.
// Usage: node js_sdk_api.mjs URL PICTURE.png (js_sdk.py starts the server).
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { logger, login, passwordAuth, register, sdk, SlidingSync, until } from "./js_sdk.mjs";

const [url, picture] = process.argv.slice(2);

const refused = (errcode, promise) => promise.then(
    (answer) => assert.fail(`not refused: ${JSON.stringify(answer)}`),
    (error) => assert.equal(error.errcode, errcode, String(error.stack)),
);

/** Asks until the answer is as wanted: for what the server does a little later, such as indexing. */
async function eventually(what, ask, isWanted) {
    for (let tries = 0; tries < 100; tries += 1) {
        const answer = await ask();
        if (isWanted(answer)) return answer;
        await new Promise((resolve) => setTimeout(resolve, 100));
    }
    return assert.fail(`never saw ${what}`);
}

async function start(client) {
    await client.startClient({ threadSupport: true, initialSyncLimit: 20, lazyLoadMembers: true });
    await until(client, "the first sync", () => client.isInitialSyncComplete());
    return client;
}

const membershipOf = (client, room) => client.getRoom(room)?.getMyMembership();
const isMember = (client, room, membership) =>
    until(client, `${membership} in the room`, () => membershipOf(client, room) === membership);

/** A room of each preset, with the bystander invited and joined. */
async function makeRooms(alice, bob) {
    const rooms = {};
    for (const preset of ["private_chat", "trusted_private_chat", "public_chat"]) {
        const { room_id: room } = await alice.createRoom({
            preset, name: preset, topic: `about ${preset}`, invite: [bob.getUserId()], room_alias_name: preset,
            is_direct: preset === "trusted_private_chat", visibility: preset === "public_chat" ? "public" : "private",
        });
        await isMember(bob, room, "invite");
        assert.equal(bob.getRoom(room).getDMInviter() !== undefined, preset === "trusted_private_chat");
        await bob.joinRoom(room);
        await isMember(bob, room, "join");
        await until(bob, "its name", () => bob.getRoom(room).name === preset);
        rooms[preset] = room;
    }
    return rooms;
}

async function profiles(alice, bob, mxc) {
    await alice.setDisplayName("Alice Ä.");
    await alice.setAvatarUrl(mxc);
    await alice.setExtendedProfileProperty("m.tz", "Europe/Berlin");
    await alice.setExtendedProfileProperty("org.example.drink", ["tea"]);
    await alice.deleteExtendedProfileProperty("m.tz");
    assert.deepEqual(await bob.getExtendedProfile(alice.getUserId()),
        { "displayname": "Alice Ä.", "avatar_url": mxc, "org.example.drink": ["tea"] });
    const { results } = await bob.searchUserDirectory({ term: "alic" });
    assert.deepEqual(results.map((user) => user.user_id), [alice.getUserId()]);
}

/** Aliases, the directory, summaries, an avatar; tags and account data, which other devices see. */
async function directory(alice, bob, room, mxc) {
    await alice.createAlias("#tea:localhost", room);
    assert.equal((await bob.getRoomIdForAlias("#tea:localhost")).room_id, room);
    assert.ok((await alice.getLocalAliases(room)).aliases.includes("#tea:localhost"));
    await alice.deleteAlias("#tea:localhost");
    await refused("M_NOT_FOUND", bob.getRoomIdForAlias("#tea:localhost"));
    const listed = async (filter) => (await bob.publicRooms({ filter })).chunk.map((entry) => entry.room_id);
    assert.deepEqual(await listed({ generic_search_term: "PUBLIC" }), [room]);
    assert.deepEqual(await listed({ room_types: ["m.space"] }), []);
    assert.equal((await alice.getRoomDirectoryVisibility(room)).visibility, "public");
    await alice.sendStateEvent(room, "m.room.avatar", { url: mxc }, "");
    await until(bob, "the avatar", () => bob.getRoom(room).getMxcAvatarUrl() === mxc);
    assert.equal((await bob.getRoomSummary("#public_chat:localhost")).membership, "join");

    await alice.setRoomTag(room, "m.favourite", { order: 0.25 });
    await until(alice, "the tag", () => alice.getRoom(room).tags["m.favourite"]?.order === 0.25);
    await alice.setRoomAccountData(room, "org.example.room", { colour: "blue" });
    await until(alice, "account data of the room", () => alice.getRoom(room).getAccountData("org.example.room"));
    await alice.setAccountData("org.example.all", { a: 1 });
    assert.deepEqual(await alice.getAccountDataFromServer("org.example.all"), { a: 1 });
    await alice.deleteAccountData("org.example.all");
    assert.deepEqual(await alice.getAccountDataFromServer("org.example.all") ?? {}, {});
}

/** Receipts, counts, threads, reactions, edits, redactions; the texts are found again by search, date and page. */
async function timeline(alice, bob, carol, room) {
    const sent = [];
    for (let number = 0; number < 12; number += 1) {
        sent.push((await alice.sendTextMessage(room, `needle ${number} hay${number}`)).event_id);
    }
    const eventAt = (client, id) => until(client, "the event", () => client.getRoom(room).findEventById(id));
    await bob.sendReadReceipt(await eventAt(bob, sent[11]));
    await until(alice, "the receipt", () => alice.getRoom(room).getEventReadUpTo(bob.getUserId()) === sent[11]);
    await alice.sendMessage(room, { msgtype: "m.text", body: "Bob!", "m.mentions": { user_ids: [bob.getUserId()] } });
    await until(bob, "the highlight", () => bob.getRoom(room).getUnreadNotificationCount("highlight") === 1);
    await bob.setRoomReadMarkers(room, sent[11], undefined, bob.getRoom(room).getLastLiveEvent());
    await until(bob, "no more", () => bob.getRoom(room).getUnreadNotificationCount("total") === 0);
    await bob.sendTyping(room, true, 20_000);
    await until(alice, "typing", () => alice.getRoom(room).getMember(bob.getUserId())?.typing);

    const reaction = { "m.relates_to": { rel_type: "m.annotation", event_id: sent[0], key: "👍" } };
    await bob.sendEvent(room, "m.reaction", reaction);
    // Past the library's queue, which does not bear a refusal here.
    const again = `/rooms/${encodeURIComponent(room)}/send/m.reaction/again`;
    await refused("M_DUPLICATE_ANNOTATION", bob.http.authedRequest("PUT", again, undefined, reaction));
    await alice.sendMessage(room, {
        msgtype: "m.text", body: "* edited", "m.new_content": { msgtype: "m.text", body: "edited" },
        "m.relates_to": { rel_type: "m.replace", event_id: sent[1] },
    });
    const edited = await bob.fetchRoomEvent(room, sent[1]);
    assert.equal(edited.unsigned["m.relations"]["m.replace"].content["m.new_content"].body, "edited");

    // Who begins a thread makes it himself, as Element does.
    bob.getRoom(room).createThread(sent[2], await eventAt(bob, sent[2]), [], true);
    for (const [from, body] of [[bob, "one"], [alice, "two"], [bob, "three"]]) {
        await from.sendMessage(room, sent[2], { msgtype: "m.text", body, "m.mentions": { user_ids: [alice.getUserId()] } });
    }
    const thread = await until(alice, "the thread", () => alice.getRoom(room).getThread(sent[2]));
    const unread = (kind) => alice.getRoom(room).getThreadUnreadNotificationCount(sent[2], kind);
    await until(alice, "its answers", () => thread.replyToEvent?.getContent().body === "three");
    await until(alice, "its highlight", () => unread("highlight") >= 1);
    await alice.sendReadReceipt(thread.replyToEvent);
    await until(alice, "it is read", () => unread("total") === 0);
    const threads = await alice.createThreadListMessagesRequest(room, null, 10, "b", "My");
    assert.deepEqual(threads.chunk.map((event) => [event.event_id, event.unsigned["m.relations"]["m.thread"].count]), [[sent[2], 3]]);
    const { chunk } = await alice.fetchRelations(room, sent[2], "m.thread", null, { dir: "f", limit: 2 });
    assert.deepEqual(chunk.map((event) => event.content.body), ["one", "two"]);

    await alice.redactEvent(room, sent[3], undefined, { reason: "a slip" });
    await until(bob, "the redaction", () => bob.getRoom(room).findEventById(sent[3])?.isRedacted());
    const { origin_server_ts: when } = await bob.fetchRoomEvent(room, sent[5]);
    const nearest = await bob.timestampToEvent(room, when, "f");
    assert.equal(nearest.origin_server_ts, when);

    // Who comes later opens the timeline in the middle, and reads in both directions to the ends.
    await carol.joinRoom(room);
    await isMember(carol, room, "join");
    const middle = await carol.getEventTimeline(carol.getRoom(room).getUnfilteredTimelineSet(), sent[5]);
    for (const backwards of [true, false]) {
        // Bounded: where it has met the live timeline the library always says that there may be more.
        for (let page = 0; page < 10; page += 1) {
            if (!await carol.paginateEventTimeline(middle, { backwards, limit: 5 })) break;
        }
    }
    const live = carol.getRoom(room).getLiveTimeline();
    const seen = [...middle.getEvents(), ...live.getEvents()].map((event) => event.getId());
    assert.deepEqual(sent.filter((id) => !seen.includes(id)), [], "all messages");
    assert.equal(middle.getEvents()[0].getType(), "m.room.create");

    const filter = { rooms: [room], limit: 3 };
    const found = await eventually("all in the index", () => bob.searchRoomEvents({ term: "needle", filter }),
        (results) => results.count >= 10);
    assert.equal(found.results.length, 3);
    await bob.backPaginateRoomEventsSearch(found);
    assert.equal(found.results.length, 6);
    return sent;
}

async function memberships(alice, bob, carol, room) {
    await alice.setPowerLevel(room, bob.getUserId(), 50);
    await until(bob, "the power", () => bob.getRoom(room).getMember(bob.getUserId()).powerLevel === 50);
    await bob.kick(room, carol.getUserId(), "out");
    await isMember(carol, room, "leave");
    await carol.joinRoom(room);
    await isMember(carol, room, "join");
    await bob.ban(room, carol.getUserId(), "really");
    await isMember(carol, room, "ban");
    await refused("M_FORBIDDEN", carol.joinRoom(room));
    await bob.unban(room, carol.getUserId());
    const { room_id: closed } = await alice.createRoom({
        initial_state: [{ type: "m.room.join_rules", state_key: "", content: { join_rule: "knock" } }],
    });
    await carol.knockRoom(closed, { reason: "please", viaServers: ["localhost"] });
    await isMember(carol, closed, "knock");
    await until(alice, "the knock", () => alice.getRoom(closed)?.getMember(carol.getUserId())?.membership === "knock");
    await alice.invite(closed, carol.getUserId());
    await isMember(carol, closed, "invite");
    await carol.leave(closed);
    await carol.forget(closed);
}

/** A space, its pages, and a room that is open to its members. */
async function spaces(alice, carol, rooms) {
    const { room_id: space } = await alice.createRoom({
        name: "Space", preset: "public_chat", creation_content: { type: "m.space" },
    });
    for (const room of Object.values(rooms)) {
        await alice.sendStateEvent(space, "m.space.child", { via: ["localhost"] }, room);
    }
    const first = await alice.getRoomHierarchy(space, 2, 3);
    const second = await alice.getRoomHierarchy(space, 10, 3, false, first.next_batch);
    const names = [...first.rooms, ...second.rooms].map((room) => room.name);
    assert.deepEqual([names[0], ...names.slice(1).sort()], ["Space", ...Object.keys(rooms).sort()]);
    const join_rules = { join_rule: "restricted", allow: [{ type: "m.room_membership", room_id: space }] };
    const { room_id: restricted } = await alice.createRoom({
        initial_state: [{ type: "m.room.join_rules", state_key: "", content: join_rules }],
    });
    await refused("M_FORBIDDEN", carol.joinRoom(restricted));
    await carol.joinRoom(space);
    await carol.joinRoom(restricted);
}

async function settings(alice, bob, room) {
    await alice.addPushRule("global", "content", "tea", { pattern: "tea", actions: ["notify"] });
    await alice.setPushRuleEnabled("global", "content", "tea", false);
    await alice.setPushRuleActions("global", "content", "tea", ["notify", { set_tweak: "highlight" }]);
    const rule = (await alice.getPushRules()).global.content.find((each) => each.rule_id === "tea");
    assert.deepEqual([rule.enabled, rule.actions.length], [false, 2]);
    await alice.deletePushRule("global", "content", "tea");
    await alice.setRoomMutePushRule("global", room, true);
    await until(alice, "the mute", () => alice.getRoomPushRule("global", room));

    const others = [await login(url, "bob"), await login(url, "bob")].map((client) => client.getDeviceId());
    await bob.setDeviceDetails(others[0], { display_name: "phone" });
    assert.equal((await bob.getDevice(others[0])).display_name, "phone");
    const session = await bob.deleteMultipleDevices(others).catch((error) => error.data.session);
    await bob.deleteMultipleDevices(others, passwordAuth("bob", session));
    assert.equal((await bob.getDevices()).devices.length, 1);
    const challenge = await bob.requestLoginToken().catch((error) => error.data.session);
    const { login_token: token } = await bob.requestLoginToken(passwordAuth("bob", challenge));
    const anonymous = sdk.createClient({ baseUrl: url, logger });
    assert.equal((await anonymous.loginRequest({ type: "m.login.token", token })).user_id, bob.getUserId());
    assert.deepEqual((await bob._unstable_getSharedRooms(alice.getUserId())).includes(room), true);
}

async function later(alice, bob, room) {
    const delay = { delay: 3_600_000 };
    const content = (body) => ({ msgtype: "m.text", body });
    const send = (body) => alice._unstable_sendDelayedEvent(room, delay, null, "m.room.message", content(body));
    const { delay_id: now } = await send("sent early");
    const { delay_id: never } = await send("never sent");
    await alice._unstable_restartScheduledDelayedEvent(now);
    await alice._unstable_sendScheduledDelayedEvent(now);
    await alice._unstable_cancelScheduledDelayedEvent(never);
    const bodies = () => bob.getRoom(room).timeline.map((event) => event.getContent().body);
    await until(bob, "the delayed event", () => bodies().includes("sent early"));
    assert.ok(!bodies().includes("never sent"));
}

/** A third device whose rooms come by sliding sync, in the library's own form. */
async function slidingSync(alice, room) {
    const all = { ranges: [[0, 19]], timeline_limit: 5, required_state: [["*", "*"]] };
    const client = await login(url, "alice");
    const slidingSync = new SlidingSync(url, new Map([["all", all]]), all, client, 2_000);
    await client.startClient({ slidingSync });
    await isMember(client, room, "join");
    await alice.sendTextMessage(room, "by sliding sync");
    await until(client, "the message", () => client.getRoom(room).timeline
        .some((event) => event.getContent().body === "by sliding sync"));
    client.stopClient();
}

async function upgrade(alice, bob, room) {
    const { replacement_room: next } = await alice.upgradeRoom(room, "12");
    await bob.joinRoom(next);
    await isMember(bob, next, "join");
    await until(bob, "the tombstone", () => bob.getRoom(room).currentState.getStateEvents("m.room.tombstone", ""));
    const history = bob.getRoomUpgradeHistory(next, true).map((each) => each.roomId);
    assert.deepEqual(history, [room, next]);
}

const [alice, bob, carol] = await Promise.all(["alice", "bob", "carol"].map(async (name) =>
    start(await register(url, name, { timelineSupport: true }))));
const { content_uri: mxc } = await alice.uploadContent(await readFile(picture), { type: "image/png", name: "tea.png" });
const rooms = await makeRooms(alice, bob);
const room = rooms.public_chat;
await profiles(alice, bob, mxc);
await directory(alice, bob, room, mxc);
await timeline(alice, bob, carol, room);
await memberships(alice, bob, carol, room);
await spaces(alice, carol, rooms);
await settings(alice, bob, room);
await later(alice, bob, room);
await slidingSync(alice, room);
await upgrade(alice, bob, room);
for (const client of [alice, bob, carol]) client.stopClient();
process.stdout.write("matrix-js-sdk, the larger API: presets, directory, profiles, threads, history, search, spaces, devices,\n"
    + "    settings, delayed events, sliding sync, an upgrade: passed\n");
process.exit(0);

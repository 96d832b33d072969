// Chat by sliding sync through a running server with matrix-js-sdk and its Rust crypto, as Element Web does it: one user
// syncs by windows, the other by /sync. Usage: node js_sdk_sliding.mjs URL (js_sdk.py starts the server).
import assert from "node:assert/strict";
import { load, register, restartServer, until } from "./js_sdk.mjs";
import { allReadable, bootstrapCrossSigning, device, read, say, stopAll } from "./js_sdk_device.mjs";

const { SlidingSync } = await load("matrix-js-sdk/lib/sliding-sync.js");
const [url] = process.argv.slice(2);

const STATE = [["*", "*"], ["m.room.member", "$LAZY"], ["m.room.member", "$ME"]];

/** A window over the newest rooms, and more of those that are looked at. */
async function windows(client) {
    const lists = new Map([["all rooms", { ranges: [[0, 19]], timeline_limit: 5, required_state: STATE, filters: {} }]]);
    const subscription = { timeline_limit: 30, required_state: STATE };
    client.windows = new SlidingSync(url, lists, subscription, client, 10_000);
    return { slidingSync: client.windows, lazyLoadMembers: true };
}

const encrypted = [{ type: "m.room.encryption", state_key: "", content: { algorithm: "m.megolm.v1.aes-sha2" } }];

const invited = (client, room) => until(client, "the invitation", () => client.getRoom(room)?.getMyMembership() === "invite");
const joined = (client, room) => until(client, "the room", () => client.getRoom(room)?.getMyMembership() === "join"
    && client.getRoom(room).currentState.getStateEvents("m.room.create", ""));

/** Encrypted rooms, invitations in both directions. */
async function meet(alice, bob) {
    const rooms = [];
    for (const [from, to] of [[alice, bob], [bob, alice]]) {
        const { room_id: room } = await from.createRoom({ name: `of ${from.getUserId()}`, initial_state: encrypted, invite: [to.getUserId()] });
        await invited(to, room);
        await to.joinRoom(room);
        for (const client of [alice, bob]) {
            await joined(client, room);
            await until(client, "encryption", () => client.getRoom(room).hasEncryptionStateEvent());
            assert.equal(client.getRoom(room).name, `of ${from.getUserId()}`);
        }
        await say(alice, room, "Hello Bob", [alice, bob]);
        await say(bob, room, "Hello Alice", [alice, bob]);
        rooms.push(room);
    }
    assert.equal(alice.windows.getListData("all rooms").joinedCount, 2);
    return rooms;
}

/** What is said while a room is not looked at comes when it is. */
async function lookAt(alice, bob, room) {
    for (let number = 0; number < 12; number += 1) await bob.sendTextMessage(room, `number ${number}`);
    await read(alice, room, "number 11");
    alice.windows.modifyRoomSubscriptions(new Set([room]));
    await read(alice, room, "number 0");
    await allReadable(room, [alice, bob]);
}

/** Typing, receipts, account data, what is unread. */
async function besides(alice, bob) {
    const { room_id: room } = await bob.createRoom({ name: "Plain", preset: "private_chat", invite: [alice.getUserId()] });
    await invited(alice, room);
    await alice.joinRoom(room);
    await joined(alice, room);
    await bob.sendTyping(room, true, 20_000);
    const { event_id: said } = await bob.sendMessage(room, {
        msgtype: "m.text", body: "Alice!", "m.mentions": { user_ids: [alice.getUserId()] },
    });
    await read(alice, room, "Alice!");
    await until(alice, "bob typing", () => alice.getRoom(room).getMember(bob.getUserId())?.typing);
    const unread = (kind) => alice.getRoom(room).getRoomUnreadNotificationCount(kind);
    await until(alice, "a highlight", () => unread("highlight") === 1 && unread("total") >= 1);
    await alice.sendReadReceipt(alice.getRoom(room).findEventById(said));
    await until(alice, "that it is read", () => unread("highlight") === 0 && unread("total") === 0);
    const { event_id: answer } = await alice.sendTextMessage(room, "Bob!");
    const event = await read(bob, room, "Bob!");
    await bob.sendReadReceipt(event);
    await until(alice, "that bob has read it", () => alice.getRoom(room).hasUserReadEvent(bob.getUserId(), answer));
    await alice.setAccountData("org.example.test", { v: 1 });
    await until(alice, "account data", () => alice.getAccountData("org.example.test")?.getContent().v === 1);
    await alice.setRoomTag(room, "m.favourite", { order: 0.5 });
    await until(alice, "a tag", () => alice.getRoom(room).tags["m.favourite"]?.order === 0.5);
    await bob.setRoomTopic(room, "A topic");
    await until(alice, "the topic", () => alice.getRoom(room).currentState
        .getStateEvents("m.room.topic", "")?.getContent().topic === "A topic");
}

try {
    const alice = await device(register, url, "alice", windows);
    const bob = await device(register, url, "bob");
    for (const client of [alice, bob]) await bootstrapCrossSigning(client);
    const [room, other] = await meet(alice, bob);
    await lookAt(alice, bob, room);
    await besides(alice, bob);
    await restartServer();
    await say(bob, other, "after the server was killed", [alice, bob]);
    await say(alice, other, "by windows too", [alice, bob]);
    await allReadable(other, [alice, bob]);
} finally {
    stopAll();
}
process.stdout.write("matrix-js-sdk, sliding sync: invitations, encrypted chat, subscriptions, typing, receipts, counts, data: passed\n");
process.exit(0);

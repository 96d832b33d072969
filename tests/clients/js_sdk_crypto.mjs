// Encrypted chat through a running server with matrix-js-sdk and its Rust crypto: what Element's users do.
// Usage: node js_sdk_crypto.mjs URL PICTURE.png (js_sdk.py starts the server).
//
// Each step ends by looking for messages that some device cannot read: there must be none.
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { cryptoApi, login, register, restartServer, until } from "./js_sdk.mjs";
import {
    allEvents, allReadable, bootstrapCrossSigning, bootstrapRecovery, compareEmoji, device, forget, open, read, say, seal,
    stopAll, withPassword,
} from "./js_sdk_device.mjs";

const [url, picture] = process.argv.slice(2);

async function makeRoom(alice, bob) {
    const { room_id: room } = await alice.createRoom({
        name: "Secret tea", invite: [bob.getUserId()],
        initial_state: [{ type: "m.room.encryption", state_key: "", content: { algorithm: "m.megolm.v1.aes-sha2" } }],
    });
    await until(bob, "the invitation", () => bob.getRoom(room)?.getMyMembership() === "invite");
    await bob.joinRoom(room);
    await until(alice, "bob join", () => alice.getRoom(room)?.getMember(bob.getUserId())?.membership === "join");
    await until(bob, "the room", () => bob.getRoom(room)?.getMyMembership() === "join"
        && bob.getRoom(room).hasEncryptionStateEvent());
    await say(alice, room, "Hello Bob", [alice, bob]);
    await say(bob, room, "Hello Alice, çay? 🍵", [alice, bob]);
    return room;
}

/** Reactions, edits, threads and redactions: their relations are in the clear, their texts are not. */
async function relate(alice, bob, room) {
    const hello = await read(bob, room, "Hello Bob");
    await bob.sendEvent(room, "m.reaction", {
        "m.relates_to": { rel_type: "m.annotation", event_id: hello.getId(), key: "👍" },
    });
    await until(alice, "the reaction", () => alice.getRoom(room).relations
        .getChildEventsForEvent(hello.getId(), "m.annotation", "m.reaction")?.getRelations().length === 1);

    await alice.sendEvent(room, "m.room.message", {
        msgtype: "m.text", body: "* Hello Bob!", "m.new_content": { msgtype: "m.text", body: "Hello Bob!" },
        "m.relates_to": { rel_type: "m.replace", event_id: hello.getId() },
    });
    await until(bob, "the edit", () => hello.getContent().body === "Hello Bob!");
    const { events: edits } = await bob.relations(room, hello.getId(), "m.replace", "m.room.message");
    assert.deepEqual(edits.map((event) => event.getContent()["m.new_content"]?.body), ["Hello Bob!"]);

    // Who begins a thread makes it himself, as Element does: the library makes only those that others began.
    const root = hello.getId();
    bob.getRoom(room).createThread(root, hello, [], true);
    for (const [from, body] of [[bob, "in the thread"], [alice, "thread answer"], [bob, "thread end"]]) {
        await from.sendEvent(room, root, "m.room.message", { msgtype: "m.text", body });
        for (const reader of [alice, bob]) await read(reader, room, body);
    }
    for (const client of [alice, bob]) {
        const thread = await until(client, "the thread", () => client.getRoom(room).getThread(root));
        await until(client, "its length", () => thread.length === 3);
        await until(client, "its last answer", () => thread.replyToEvent?.getContent().body === "thread end");
    }
    const { event_id: slip } = await alice.sendTextMessage(room, "a slip");
    await read(bob, room, "a slip");
    await alice.redactEvent(room, slip);
    await until(bob, "the redaction", () => bob.getRoom(room).findEventById(slip)?.isRedacted());
    await allReadable(room, [alice, bob]);
}

/** An encrypted attachment. */
async function share(alice, bob, room) {
    const plain = await readFile(picture);
    await alice.sendEvent(room, "m.room.message", {
        msgtype: "m.image", body: "tea.png", info: { mimetype: "image/png", size: plain.length },
        file: await seal(alice, plain),
    });
    const event = await read(bob, room, "tea.png");
    assert.deepEqual(await open(bob, event.getContent().file), plain);
}

/** Waits until a device knows another one's keys. */
const knows = (client, other) => until(client, `${other.getDeviceId()} in the list`, async () => {
    const devices = await client.getCrypto().getUserDeviceInfo([other.getUserId()], true);
    return devices.get(other.getUserId())?.has(other.getDeviceId());
});

/** Waits until the server has every room key of a device: the library lets up to ten seconds pass. */
const backedUp = (client) => until(client, `everything of ${client.getDeviceId()} backed up`, async () => {
    const { count } = await client.http.authedRequest("GET", "/room_keys/version");
    const keys = await client.getCrypto().exportRoomKeys();
    return keys.length > 0 && count >= keys.length;
});

/** A new device that the old one verifies gets the secrets from it, and with the backup's key the history. */
async function secondDevice(bob, alice, room) {
    const phone = await device(login, url, "bob");
    const crypto = phone.getCrypto();
    // Who does not know the sender's device yet ignores its request.
    await knows(bob, phone);
    await knows(phone, bob);
    const status = await bob.getCrypto().getDeviceVerificationStatus(bob.getUserId(), phone.getDeviceId());
    assert.equal(status.isVerified(), false, "a new device is not trusted by itself");
    await compareEmoji(bob, phone,
        () => bob.getCrypto().requestDeviceVerification(bob.getUserId(), phone.getDeviceId()),
        () => crypto.getVerificationRequestsToDeviceInProgress(bob.getUserId())[0]);
    for (const [at, of] of [[bob, phone], [phone, bob], [alice, phone]]) {
        await until(at, "the device signed by its owner", async () => {
            const status = await at.getCrypto().getDeviceVerificationStatus(bob.getUserId(), of.getDeviceId());
            return status?.signedByOwner;
        });
    }
    await until(phone, "the secrets", async () => {
        const { privateKeysCachedLocally: cached } = await crypto.getCrossSigningStatus();
        return cached.masterKey && cached.selfSigningKey && cached.userSigningKey;
    });
    await until(phone, "the backup's key", () => crypto.getSessionBackupPrivateKey());
    await crypto.checkKeyBackupAndEnable();
    assert.ok(await crypto.getActiveSessionBackupVersion(), "the backup is trusted");
    await backedUp(bob);
    const restored = await crypto.restoreKeyBackup();
    assert.ok(restored.total > 0 && restored.imported === restored.total, JSON.stringify(restored));
    await read(phone, room, "tea.png");
    await allReadable(room, [phone]);
    await say(alice, room, "to both your devices", [alice, bob, phone]);
    await say(phone, room, "from the phone", [alice, bob, phone]);
    return phone;
}

/** Two users verify each other by messages in the encrypted room. */
async function verifyUsers(alice, bob, room) {
    await compareEmoji(alice, bob,
        () => alice.getCrypto().requestVerificationDM(bob.getUserId(), room),
        () => bob.getCrypto().findVerificationRequestDMInProgress(room, alice.getUserId()));
    for (const [one, other] of [[alice, bob], [bob, alice]]) {
        await until(one, "the user verified", async () =>
            (await one.getCrypto().getUserVerificationStatus(other.getUserId())).isCrossSigningVerified());
    }
}

/**
 * The only device is lost: a fresh one has nothing but the recovery key, and must read everything; also what was said
 * while there was none, of which a dehydrated device got the keys.
 */
async function recover(lost, recovery, bob, room) {
    const bodies = (client) => allEvents(client.getRoom(room)).map((event) => event.getContent().body).sort();
    const before = bodies(lost);
    await backedUp(lost);
    assert.ok(await lost.getCrypto().isDehydrationSupported(), "dehydrated devices");
    await lost.getCrypto().startDehydration();
    await until(bob, "the dehydrated device", async () => {
        const devices = await bob.getCrypto().getUserDeviceInfo([lost.getUserId()], true);
        return [...devices.get(lost.getUserId()).values()].some((each) => each.dehydrated);
    });
    await lost.logout(true);
    forget(lost);
    await say(bob, room, "are you there?", [bob]);

    const fresh = await device(login, url, "alice");
    fresh.vault.recovery = cryptoApi.decodeRecoveryKey(recovery);
    const crypto = fresh.getCrypto();
    await crypto.bootstrapCrossSigning({});
    assert.ok(await crypto.isCrossSigningReady(), "cross-signing came out of secret storage");
    await crypto.loadSessionBackupPrivateKeyFromSecretStorage();
    await crypto.checkKeyBackupAndEnable();
    const { imported, total } = await crypto.restoreKeyBackup();
    assert.ok(total > 0 && imported === total, `${imported} of ${total} keys`);
    await crypto.startDehydration();
    await allReadable(room, [fresh]);
    await until(fresh, "the history", () => ["are you there?", ...before].every((body) => bodies(fresh).includes(body)));
    await until(bob, "the fresh device signed", async () => {
        const status = await bob.getCrypto().getDeviceVerificationStatus(fresh.getUserId(), fresh.getDeviceId());
        return status?.isVerified();
    });
    await say(bob, room, "welcome back", [bob, fresh]);
    await say(fresh, room, "with a new phone", [bob, fresh]);
    return fresh;
}

/** Bob has lost his recovery key, and begins anew: nobody may do that without his password, and Alice is warned. */
async function reset(bob, alice, room) {
    let asked = 0;
    const before = await bob.getCrypto().getCrossSigningKeyId();
    await bob.getCrypto().resetEncryption(withPassword(bob, () => { asked += 1; }));
    assert.equal(asked, 1, "new cross-signing keys need the password");
    assert.notEqual(await bob.getCrypto().getCrossSigningKeyId(), before);
    assert.equal(await bob.secretStorage.getDefaultKeyId(), null);
    await until(alice, "that he is not who he was", async () => {
        const status = await alice.getCrypto().getUserVerificationStatus(bob.getUserId());
        return !status.isCrossSigningVerified() && status.wasCrossSigningVerified();
    });
    await alice.getCrypto().withdrawVerificationRequirement(bob.getUserId());
    await bootstrapRecovery(bob);
    await say(bob, room, "with new keys", [alice, bob]);
}

try {
    const alice = await device(register, url, "alice");
    const bob = await device(register, url, "bob");
    await bootstrapCrossSigning(alice);
    await bootstrapCrossSigning(bob);
    const recovery = await bootstrapRecovery(alice);
    await bootstrapRecovery(bob);
    const room = await makeRoom(alice, bob);
    await relate(alice, bob, room);
    await share(alice, bob, room);
    const phone = await secondDevice(bob, alice, room);
    await verifyUsers(alice, bob, room);
    await allReadable(room, [alice, bob, phone]);
    await alice.sendTextMessage(room, "before the server was killed");
    await restartServer();
    await say(bob, room, "after the server was killed", [alice, bob, phone]);
    for (const reader of [bob, phone]) await read(reader, room, "before the server was killed");
    await allReadable(room, [alice, bob, phone]);
    const fresh = await recover(alice, recovery, bob, room);
    await say(phone, room, "goodbye", [bob, phone, fresh]);
    await reset(bob, fresh, room);
} finally {
    stopAll();
}
process.stdout.write("matrix-js-sdk, encrypted: cross-signing, backup and recovery, second and dehydrated device, emoji\n"
    + "    comparison, reactions, edits, threads, media, a reset: passed\n");
process.exit(0);

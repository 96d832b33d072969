// Encrypted chat through a running server with matrix-js-sdk and its Rust crypto: what Element's users do.
// Usage: node js_sdk_crypto.mjs URL PICTURE.png (js_sdk.py starts the server).
//
// Each step ends by looking for messages that some device cannot read: there must be none.
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { webcrypto } from "node:crypto";
import { cryptoApi, login, passwordAuth, register, restartServer, until } from "./js_sdk.mjs";

const [url, picture] = process.argv.slice(2);
const { VerificationPhase } = cryptoApi;
const running = [];

const nameOf = (client) => client.getUserId().slice(1).split(":")[0];

/** A running device. What it keeps of secret storage is the recovery key that it made or was told. */
async function device(make, name) {
    const vault = {};
    const getSecretStorageKey = async ({ keys }) => {
        const id = Object.keys(keys).find((each) => vault[each]) ?? Object.keys(keys)[0];
        const key = vault[id] ?? vault.recovery;
        return key ? [id, key] : null;
    };
    const cacheSecretStorageKey = (id, _info, key) => { vault[id] = key; };
    const client = await make(url, name, {
        cryptoCallbacks: { getSecretStorageKey, cacheSecretStorageKey }, verificationMethods: ["m.sas.v1"],
    });
    client.vault = vault;
    await client.initRustCrypto({ useIndexedDB: false });
    await client.startClient({ initialSyncLimit: 100, threadSupport: true });
    running.push(client);
    await until(client, `${name}'s first sync`, () => client.isInitialSyncComplete());
    return client;
}

function stop(client) {
    client.stopClient();
    running.splice(running.indexOf(client), 1);
}

/** The upload of cross-signing keys: where the server asks for the password, it gets it. */
const withPassword = (client, note) => async (upload) => {
    try {
        return await upload(null);
    } catch (error) {
        assert.equal(error.httpStatus, 401, String(error));
        note?.(error);
        return await upload(passwordAuth(nameOf(client), error.data.session));
    }
};

async function bootstrapCrossSigning(client) {
    await client.getCrypto().bootstrapCrossSigning({ authUploadDeviceSigningKeys: withPassword(client) });
    assert.ok(await client.getCrypto().isCrossSigningReady(), "cross-signing is ready");
}

/** Makes secret storage and a key backup; gives the recovery key. */
async function bootstrapRecovery(client) {
    const recovery = await client.getCrypto().createRecoveryKeyFromPassphrase();
    await client.getCrypto().bootstrapSecretStorage({
        createSecretStorageKey: async () => recovery, setupNewSecretStorage: true, setupNewKeyBackup: true,
    });
    await until(client, "secret storage", () => client.getCrypto().isSecretStorageReady());
    await until(client, "the backup", () => client.getCrypto().getActiveSessionBackupVersion());
    return recovery.encodedPrivateKey;
}

const allEvents = (room) => [
    ...room.getLiveTimeline().getEvents(),
    ...room.getThreads().flatMap((thread) => thread.timeline),
];

/** Waits until a device shows a message with this text, decrypted. */
const read = (client, room, body) => until(client, `${client.getUserId()} ${client.getDeviceId()} read "${body}"`,
    () => allEvents(client.getRoom(room)).find((event) => event.getContent().body === body));

/** Says something, and waits until all these devices have read it. */
async function say(from, room, body, readers) {
    await from.sendTextMessage(room, body);
    for (const reader of readers) {
        const event = await read(reader, room, body);
        assert.equal(event.getWireType(), "m.room.encrypted", body);
        assert.equal(event.getWireContent().body, undefined);
    }
}

const isReadable = (event) => event.isRedacted()
    || !(event.isBeingDecrypted() || event.isDecryptionFailure() || event.getType() === "m.room.encrypted");

/** Nothing that these devices show is unreadable. */
async function allReadable(room, clients) {
    for (const client of clients) {
        await until(client, `everything readable for ${client.getUserId()} ${client.getDeviceId()}`,
            () => allEvents(client.getRoom(room)).every(isReadable));
    }
}

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

const base64 = (bytes) => Buffer.from(bytes).toString("base64").replace(/=+$/, "");
const digest = async (bytes) => base64(await webcrypto.subtle.digest("SHA-256", bytes));

/** An attachment as the specification has it: AES-CTR, the hash of the ciphertext, both in the encrypted event. */
async function share(alice, bob, room) {
    const plain = await readFile(picture);
    const key = await webcrypto.subtle.generateKey({ name: "AES-CTR", length: 256 }, true, ["encrypt", "decrypt"]);
    const iv = new Uint8Array(16);
    webcrypto.getRandomValues(iv.subarray(0, 8));
    const sealed = await webcrypto.subtle.encrypt({ name: "AES-CTR", counter: iv, length: 64 }, key, plain);
    const { content_uri: uri } = await alice.uploadContent(new Uint8Array(sealed), {
        type: "application/octet-stream", includeFilename: false,
    });
    const jwk = await webcrypto.subtle.exportKey("jwk", key);
    await alice.sendEvent(room, "m.room.message", {
        msgtype: "m.image", body: "tea.png", info: { mimetype: "image/png", size: plain.length },
        file: {
            v: "v2", url: uri, iv: base64(iv), hashes: { sha256: await digest(sealed) },
            key: { ...jwk, kty: "oct", alg: "A256CTR", ext: true },
        },
    });
    const event = await read(bob, room, "tea.png");
    const { file } = event.getContent();
    const link = bob.mxcUrlToHttp(file.url, undefined, undefined, undefined, false, true, true);
    const answer = await fetch(link, { headers: { Authorization: `Bearer ${bob.getAccessToken()}` } });
    assert.equal(answer.status, 200);
    const got = await answer.arrayBuffer();
    assert.equal(await digest(got), file.hashes.sha256);
    const opener = await webcrypto.subtle.importKey("jwk", file.key, { name: "AES-CTR" }, false, ["decrypt"]);
    const counter = Buffer.from(file.iv, "base64");
    const opened = await webcrypto.subtle.decrypt({ name: "AES-CTR", counter, length: 64 }, opener, got);
    assert.deepEqual(Buffer.from(opened), plain);
}

/** Waits until a device knows another one's keys. */
const knows = (client, other) => until(client, `${other.getDeviceId()} in the list`, async () => {
    const devices = await client.getCrypto().getUserDeviceInfo([other.getUserId()], true);
    return devices.get(other.getUserId())?.has(other.getDeviceId());
});

/** Two devices compare emoji; `request` asks from `one`, `incoming` finds the request at `other`. */
async function compareEmoji(one, other, request, incoming) {
    const asked = await request();
    const seen = await until(other, "the request", incoming);
    await seen.accept();
    await until(one, "its acceptance", () => asked.phase === VerificationPhase.Ready);
    const verifiers = [await asked.startVerification("m.sas.v1")];
    verifiers.push(await until(other, "the start", () => seen.verifier));
    const shown = verifiers.map((verifier) => new Promise((resolve) => verifier.once("show_sas", resolve)));
    const verified = verifiers.map((verifier) => verifier.verify());
    const failed = Promise.all(verified).then(() => assert.fail("verified before anybody confirmed"));
    const sas = await Promise.race([Promise.all(shown), failed]);
    assert.deepEqual(sas[0].sas.emoji, sas[1].sas.emoji);
    assert.equal(sas[0].sas.emoji.length, 7);
    failed.catch(() => {});
    await Promise.all(sas.map((each) => each.confirm()));
    await Promise.all(verified);
    await until(one, "the end", () => asked.phase === VerificationPhase.Done);
    await until(other, "the end", () => seen.phase === VerificationPhase.Done);
}

/** Waits until the server has every room key of a device: the library lets up to ten seconds pass. */
const backedUp = (client) => until(client, `everything of ${client.getDeviceId()} backed up`, async () => {
    const { count } = await client.http.authedRequest("GET", "/room_keys/version");
    const keys = await client.getCrypto().exportRoomKeys();
    return keys.length > 0 && count >= keys.length;
});

/** A new device that the old one verifies gets the secrets from it, and with the backup's key the history. */
async function secondDevice(bob, alice, room) {
    const phone = await device(login, "bob");
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
    running.splice(running.indexOf(lost), 1);
    await say(bob, room, "are you there?", [bob]);

    const fresh = await device(login, "alice");
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
    const alice = await device(register, "alice");
    const bob = await device(register, "bob");
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
    for (const client of [...running]) stop(client);
}
process.stdout.write("matrix-js-sdk, encrypted: cross-signing, backup and recovery, second and dehydrated device, emoji\n"
    + "    comparison, reactions, edits, threads, media, a reset: passed\n");
process.exit(0);

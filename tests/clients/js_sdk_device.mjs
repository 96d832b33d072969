// What the scripts of encrypted chat with matrix-js-sdk share: running devices, their keys, what they read.
import assert from "node:assert/strict";
import { webcrypto } from "node:crypto";
import { cryptoApi, passwordAuth, until } from "./js_sdk.mjs";

export const { VerificationPhase } = cryptoApi;
const running = [];

export const nameOf = (client) => client.getUserId().slice(1).split(":")[0];

/**
 * A running device. What it keeps of secret storage is the recovery key that it made or was told. `syncing` gives the
 * options that it syncs with, if not those of /sync.
 */
export async function device(make, url, name, syncing = () => ({ initialSyncLimit: 100 })) {
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
    await client.startClient({ ...await syncing(client), threadSupport: true });
    running.push(client);
    await until(client, `${name}'s first sync`, () => client.isInitialSyncComplete());
    return client;
}

export function stop(client) {
    client.stopClient();
    forget(client);
}

/** The client has stopped by itself. */
export function forget(client) {
    running.splice(running.indexOf(client), 1);
}

export function stopAll() {
    for (const client of [...running]) stop(client);
}

/** The upload of cross-signing keys: where the server asks for the password, it gets it. */
export const withPassword = (client, note) => async (upload) => {
    try {
        return await upload(null);
    } catch (error) {
        assert.equal(error.httpStatus, 401, String(error));
        note?.(error);
        return await upload(passwordAuth(nameOf(client), error.data.session));
    }
};

export async function bootstrapCrossSigning(client) {
    await client.getCrypto().bootstrapCrossSigning({ authUploadDeviceSigningKeys: withPassword(client) });
    assert.ok(await client.getCrypto().isCrossSigningReady(), "cross-signing is ready");
}

/** Makes secret storage and a key backup; gives the recovery key. */
export async function bootstrapRecovery(client) {
    const recovery = await client.getCrypto().createRecoveryKeyFromPassphrase();
    await client.getCrypto().bootstrapSecretStorage({
        createSecretStorageKey: async () => recovery, setupNewSecretStorage: true, setupNewKeyBackup: true,
    });
    await until(client, "secret storage", () => client.getCrypto().isSecretStorageReady());
    await until(client, "the backup", () => client.getCrypto().getActiveSessionBackupVersion());
    return recovery.encodedPrivateKey;
}

export const allEvents = (room) => [
    ...room.getLiveTimeline().getEvents(),
    ...room.getThreads().flatMap((thread) => thread.timeline),
];

/** Waits until a device shows a message with this text, decrypted. */
export const read = (client, room, body) => until(client, `${client.getUserId()} ${client.getDeviceId()} read "${body}"`,
    () => allEvents(client.getRoom(room)).find((event) => event.getContent().body === body));

/** Says something, and waits until all these devices have read it. */
export async function say(from, room, body, readers) {
    await from.sendTextMessage(room, body);
    for (const reader of readers) {
        const event = await read(reader, room, body);
        assert.equal(event.getWireType(), "m.room.encrypted", body);
        assert.equal(event.getWireContent().body, undefined);
    }
}

const isReadable = (event) => event.isRedacted()
    || !(event.isBeingDecrypted() || event.isDecryptionFailure() || event.getType() === "m.room.encrypted");

/**
 * Nothing that these devices show is unreadable. What sliding sync brings from before the user's own receipt the library
 * decrypts only when the room is opened.
 */
export async function allReadable(room, clients) {
    for (const client of clients) {
        await client.getRoom(room).decryptAllEvents();
        await until(client, `everything readable for ${client.getUserId()} ${client.getDeviceId()}`,
            () => allEvents(client.getRoom(room)).every(isReadable));
    }
}

const base64 = (bytes) => Buffer.from(bytes).toString("base64").replace(/=+$/, "");
const digest = async (bytes) => base64(await webcrypto.subtle.digest("SHA-256", bytes));

/** Uploads an attachment as the specification has it: AES-CTR, and the hash of the ciphertext; gives its `file`. */
export async function seal(client, plain) {
    const key = await webcrypto.subtle.generateKey({ name: "AES-CTR", length: 256 }, true, ["encrypt", "decrypt"]);
    const iv = new Uint8Array(16);
    webcrypto.getRandomValues(iv.subarray(0, 8));
    const sealed = await webcrypto.subtle.encrypt({ name: "AES-CTR", counter: iv, length: 64 }, key, plain);
    const { content_uri: url } = await client.uploadContent(new Uint8Array(sealed), {
        type: "application/octet-stream", includeFilename: false,
    });
    const jwk = await webcrypto.subtle.exportKey("jwk", key);
    return {
        v: "v2", url, iv: base64(iv), hashes: { sha256: await digest(sealed) },
        key: { ...jwk, kty: "oct", alg: "A256CTR", ext: true },
    };
}

/** Downloads and opens an attachment. */
export async function open(client, file) {
    const link = client.mxcUrlToHttp(file.url, undefined, undefined, undefined, false, true, true);
    const answer = await fetch(link, { headers: { Authorization: `Bearer ${client.getAccessToken()}` } });
    assert.equal(answer.status, 200);
    const got = await answer.arrayBuffer();
    assert.equal(await digest(got), file.hashes.sha256.replace(/=+$/, ""));
    const opener = await webcrypto.subtle.importKey("jwk", file.key, { name: "AES-CTR" }, false, ["decrypt"]);
    const counter = Buffer.from(file.iv, "base64");
    return Buffer.from(await webcrypto.subtle.decrypt({ name: "AES-CTR", counter, length: 64 }, opener, got));
}

/** Two devices compare emoji; `request` asks from `one`, `incoming` finds the request at `other`. */
export async function compareEmoji(one, other, request, incoming) {
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

// Encrypted chat between matrix-js-sdk and matrix-sdk: this is Bob, the program of rust_sdk/ is Alice.
// Usage: node js_sdk_meet.mjs URL (js_sdk.py starts the server, and the program when this is READY).
//
// The two agree on what is said when, and on nothing else: rust_sdk/src/meet.rs is the other half.
import assert from "node:assert/strict";
import { register, restartServer, until } from "./js_sdk.mjs";
import {
    VerificationPhase, allReadable, bootstrapCrossSigning, bootstrapRecovery, device, open, read, seal, stopAll,
} from "./js_sdk_device.mjs";

const [url] = process.argv.slice(2);
const ALICE = "@alice:localhost";

/** The room that Alice invites to. */
async function meet(bob) {
    const room = await until(bob, "the invitation", () => bob.getRooms().find((each) => each.getMyMembership() === "invite"));
    await bob.joinRoom(room.roomId);
    await until(bob, "the room", () => room.getMyMembership() === "join" && room.hasEncryptionStateEvent());
    await read(bob, room.roomId, "Hello from Rust");
    await bob.sendTextMessage(room.roomId, "Hello from JS");
    return room;
}

/** Reactions, edits and threads in both directions. */
async function relate(bob, room) {
    const own = await read(bob, room.roomId, "Hello from JS");
    const hers = await read(bob, room.roomId, "Hello from Rust");
    const reactions = (event) => room.relations.getChildEventsForEvent(event.getId(), "m.annotation", "m.reaction")?.getRelations() ?? [];
    await until(bob, "her reaction", () => reactions(own).some((each) => each.getContent()["m.relates_to"].key === "🦀"));
    await until(bob, "her edit", () => hers.getContent().body === "Hello from Rust!");
    await bob.sendEvent(room.roomId, "m.reaction", {
        "m.relates_to": { rel_type: "m.annotation", event_id: hers.getId(), key: "🟨" },
    });
    await bob.sendEvent(room.roomId, "m.room.message", {
        msgtype: "m.text", body: "* Hello from JS!", "m.new_content": { msgtype: "m.text", body: "Hello from JS!" },
        "m.relates_to": { rel_type: "m.replace", event_id: own.getId() },
    });
    room.createThread(hers.getId(), hers, [], true);
    await bob.sendEvent(room.roomId, hers.getId(), "m.room.message", { msgtype: "m.text", body: "thread from JS" });
    await read(bob, room.roomId, "thread from Rust");
    await until(bob, "both in the thread", () => room.getThread(hers.getId())?.length === 2);
}

const bytes = (modulus) => Buffer.from(Array.from({ length: 100_000 }, (_, at) => at % modulus));

/** Attachments in both directions. */
async function share(bob, room) {
    const hers = await read(bob, room.roomId, "rust.bin");
    assert.deepEqual(await open(bob, hers.getContent().file), bytes(251));
    const plain = bytes(241);
    await bob.sendEvent(room.roomId, "m.room.message", {
        msgtype: "m.file", body: "js.bin", info: { size: plain.length }, file: await seal(bob, plain),
    });
}

/**
 * The two compare emoji: she says which she sees. They do so by messages to their devices: what matrix-sdk has to answer
 * to a verification in a room goes out only when its encryption sync comes round, half a minute later.
 */
async function verify(bob, room) {
    const crypto = bob.getCrypto();
    await until(bob, "her keys", () => crypto.userHasCrossSigningKeys(ALICE, true));
    const hers = (await crypto.getUserDeviceInfo([ALICE], true)).get(ALICE);
    assert.equal(hers.size, 1, "she has one device");
    const request = await crypto.requestDeviceVerification(ALICE, [...hers.keys()][0]);
    await until(bob, "her acceptance", () => request.phase === VerificationPhase.Ready);
    const verifier = await request.startVerification("m.sas.v1");
    const shown = new Promise((resolve) => verifier.once("show_sas", resolve));
    const verified = verifier.verify();
    verified.catch(() => {});
    const sas = await shown;
    // The libraries differ in whether a symbol says that it is an emoji.
    const emoji = sas.sas.emoji.map(([symbol]) => symbol.replace("\uFE0F", "")).join(" ");
    await read(bob, room.roomId, `I see ${emoji}`);
    await bob.sendTextMessage(room.roomId, "So do I");
    await sas.confirm();
    await verified;
    await until(bob, "her verified", async () => (await crypto.getUserVerificationStatus(ALICE)).isCrossSigningVerified());
}

try {
    const bob = await device(register, url, "bob");
    await bootstrapCrossSigning(bob);
    await bootstrapRecovery(bob);
    process.stdout.write("READY\n");
    const room = await meet(bob);
    await relate(bob, room);
    await share(bob, room);
    await verify(bob, room);
    await bob.sendTextMessage(room.roomId, "before the server was killed");
    await restartServer();
    await bob.sendTextMessage(room.roomId, "after the server was killed");
    await read(bob, room.roomId, "from Rust after the server was killed");
    // She has lost her device, and comes back with the recovery key.
    await read(bob, room.roomId, "from a fresh device");
    await bob.sendTextMessage(room.roomId, "welcome back");
    await read(bob, room.roomId, "goodbye from Rust");
    await allReadable(room.roomId, [bob]);
} finally {
    stopAll();
}
process.stdout.write("matrix-js-sdk with matrix-sdk: chat, reactions, edits, threads, media, verification, a kill, a fresh device: passed\n");
process.exit(0);

// Two users chat through a running server with matrix-js-sdk, a released client library that we did not write.
// Usage: node js_sdk_chat.mjs URL PICTURE.png (js_sdk.py starts the server). Without encryption.
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { login, register, until } from "./js_sdk.mjs";

const [url, picture] = process.argv.slice(2);

const texts = (room) => room.getLiveTimeline().getEvents()
    .filter((event) => event.getType() === "m.room.message").map((event) => event.getContent().body);

async function talk(alice, bob) {
    await alice.setDisplayName("Alice A.");
    const { room_id: id } = await alice.createRoom({ name: "Tea", topic: "Which tea?", invite: [bob.getUserId()] });
    await until(bob, "the invitation", () => bob.getRoom(id)?.getMyMembership() === "invite");
    await bob.joinRoom(id);
    await until(alice, "bob join", () => alice.getRoom(id)?.getMember(bob.getUserId())?.membership === "join");

    await alice.sendTextMessage(id, "Hello Bob");
    const heard = await until(bob, "alice's message",
        () => bob.getRoom(id).timeline.find((event) => event.getContent().body === "Hello Bob"));
    await bob.sendReadReceipt(heard);
    await bob.sendTyping(id, true, 3000);
    await bob.sendTextMessage(id, "Hello Alice, çay? 🍵");
    const answer = await until(alice, "bob's message",
        () => alice.getRoom(id).timeline.find((event) => event.getContent().body?.startsWith("Hello Alice")));
    await until(alice, "bob's receipt", () => alice.getRoom(id).getReadReceiptForUserId(bob.getUserId()));

    assert.equal(bob.getRoom(id).name, "Tea");
    assert.equal(bob.getRoom(id).getMember(alice.getUserId()).name, "Alice A.");

    // A reaction, an edit and a redaction, as every client shows them.
    const relates = { rel_type: "m.annotation", event_id: answer.getId(), key: "👍" };
    await alice.sendEvent(id, "m.reaction", { "m.relates_to": relates });
    await until(bob, "the reaction", () => bob.getRoom(id).timeline.some((event) => event.getType() === "m.reaction"));
    const related = await bob.relations(id, answer.getId(), "m.annotation", "m.reaction");
    assert.equal(related.events.length, 1);
    const { event_id: slip } = await alice.sendTextMessage(id, "a slip");
    await alice.redactEvent(id, slip);
    await until(bob, "the redaction", () => bob.getRoom(id).findEventById(slip)?.isRedacted());
    return id;
}

async function share(alice, bob, id) {
    const data = await readFile(picture);
    const { content_uri: uri } = await alice.uploadContent(data, { name: "tea ☕.png", type: "image/png" });
    await alice.sendEvent(id, "m.room.message", {
        msgtype: "m.image", body: "tea ☕.png", url: uri, info: { mimetype: "image/png", size: data.length },
    });
    const event = await until(bob, "the picture",
        () => bob.getRoom(id).timeline.find((each) => each.getContent().url === uri));
    const headers = { Authorization: `Bearer ${bob.getAccessToken()}` };
    const link = (...size) => bob.mxcUrlToHttp(event.getContent().url, ...size, false, true, true);
    const whole = await fetch(link(undefined, undefined, undefined), { headers });
    assert.equal(whole.status, 200);
    assert.equal(whole.headers.get("content-type"), "image/png");
    assert.deepEqual(Buffer.from(await whole.arrayBuffer()), data);
    const thumbnail = await fetch(link(64, 64, "scale"), { headers });
    assert.equal(thumbnail.status, 200);
    assert.match(thumbnail.headers.get("content-type"), /^image\//);
    assert.ok((await thumbnail.arrayBuffer()).byteLength < data.length);
    assert.ok([401, 404].includes((await fetch(link(undefined, undefined, undefined))).status), "media without a token");
}

async function readHistory(alice, id) {
    for (let number = 0; number < 30; number++) await alice.sendTextMessage(id, `number ${number}`);
    const fresh = await login(url, "bob");
    await fresh.startClient({ initialSyncLimit: 5, lazyLoadMembers: true });
    try {
        const room = await until(fresh, "the room", () => fresh.isInitialSyncComplete() && fresh.getRoom(id));
        for (let page = 0; page < 30 && room.oldState.paginationToken !== null; page++) await fresh.scrollback(room, 7);
        const wanted = ["Hello Bob", "Hello Alice, çay? 🍵", undefined, "tea ☕.png",
            ...Array.from({ length: 30 }, (_, number) => `number ${number}`)];
        assert.deepEqual(texts(room), wanted);
        await fresh.logout(true);
    } finally {
        fresh.stopClient();
    }
}

const alice = await register(url, "alice");
const bob = await register(url, "bob");
await Promise.all([alice, bob].map((client) => client.startClient({ initialSyncLimit: 20 })));
try {
    const id = await talk(alice, bob);
    await share(alice, bob, id);
    await readHistory(alice, id);
} finally {
    alice.stopClient();
    bob.stopClient();
}
process.stdout.write("matrix-js-sdk: two users registered, chatted, shared a picture and read history: passed\n");
process.exit(0);

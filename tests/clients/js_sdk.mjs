// What the scripts that drive matrix-js-sdk share: the library, accounts, and waiting.
import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

// What the library takes from Node 22, so that it runs on Node 20 too.
Promise.withResolvers ??= () => {
    const made = {};
    made.promise = new Promise((resolve, reject) => Object.assign(made, { resolve, reject }));
    return made;
};

// The library tells its whole day on the console. What fails here is thrown, and Node prints that.
if (!process.env.HEARTH_CLIENT_LOG) {
    console.log = console.info = console.debug = console.warn = console.error = console.trace = () => {};
}

// The package lies in the cache, not beside this file.
const require = createRequire(process.env.HEARTH_NODE_FOLDER + "/package.json");
export const load = async (name) => import(pathToFileURL(require.resolve(name)).href);
export const sdk = await load("matrix-js-sdk");
export const cryptoApi = await load("matrix-js-sdk/lib/crypto-api/index.js");
export const { SlidingSync } = await load("matrix-js-sdk/lib/sliding-sync.js");

const LIMIT_MS = 60_000;
const LOOK_MS = 100;
const quiet = { trace() {}, debug() {}, info() {}, warn() {}, error() {}, getChild: () => quiet };
export const logger = process.env.HEARTH_CLIENT_LOG ? undefined : quiet;

/** Waits until check() gives something, looking again at each of the client's events and from time to time. */
export function until(client, what, check) {
    return new Promise((resolve, reject) => {
        const names = ["sync", "Room.timeline", "RoomMember.membership", "Room", "Room.receipt", "Event.decrypted"];
        let isOver = false;
        const look = async () => {
            try {
                const found = await check();
                if (found) end(() => resolve(found));
            } catch (error) {
                end(() => reject(error));
            }
        };
        const timer = setTimeout(() => end(() => reject(new Error(`never saw ${what}`))), LIMIT_MS);
        const again = setInterval(look, LOOK_MS);
        const end = (then) => {
            if (isOver) return;
            isOver = true;
            clearTimeout(timer);
            clearInterval(again);
            for (const name of names) client.off(name, look);
            then();
        };
        for (const name of names) client.on(name, look);
        void look();
    });
}

/** The server is killed and started again. */
export async function restartServer() {
    process.stdin.resume();
    const started = new Promise((resolve) => process.stdin.once("data", resolve));
    process.stdout.write("RESTART\n");
    await started;
    process.stdin.pause();
}

const passwordOf = (name) => `${name}-long-password`;

/** The user-interactive auth that proves the password. */
export const passwordAuth = (name, session) => ({
    type: "m.login.password", identifier: { type: "m.id.user", user: name }, password: passwordOf(name), session,
});

const clientOf = (baseUrl, answer, options) => sdk.createClient({
    baseUrl, userId: answer.user_id, accessToken: answer.access_token, deviceId: answer.device_id, logger, ...options,
});

export async function register(baseUrl, name, options = {}) {
    const anonymous = sdk.createClient({ baseUrl, logger });
    const password = passwordOf(name);
    // As a client does it: ask without auth, learn the stages and the session, then answer them.
    const flows = await anonymous.registerRequest({ username: name, password }).then(
        () => assert.fail("registration went through without a stage"),
        (error) => error,
    );
    assert.equal(flows.httpStatus, 401, String(flows));
    assert.ok(flows.data.flows.some((flow) => flow.stages.includes("m.login.dummy")));
    const auth = { type: "m.login.dummy", session: flows.data.session };
    return clientOf(baseUrl, await anonymous.registerRequest({ username: name, password, auth }), options);
}

export async function login(baseUrl, name, options = {}) {
    const anonymous = sdk.createClient({ baseUrl, logger });
    const identifier = { type: "m.id.user", user: name };
    const answer = await anonymous.loginRequest({ type: "m.login.password", identifier, password: passwordOf(name) });
    return clientOf(baseUrl, answer, options);
}

"""Where two servers are most likely to differ: coming back, being away, access lists, hidden history, relations, keys."""
import concurrent.futures
import http.client
import threading
import time

import peers  # noqa: F401  (puts tests/lib on the path)
from basics import meet
from device_keys import SigningKey
from hearth import MatrixError, quote
from user import PATIENCE_SECONDS, User, numbers, refused, same_state


def comeback(near, far, version):
    """A server that had left comes back: the state is that of now, and what it missed can be read."""
    alice, bob, room = meet(near, far, version, preset="public_chat")
    bob.member(room, "leave")
    alice.retry(lambda: alice.membership(room, bob) == "leave", "bob's leaving did not arrive")
    texts = []
    for number in range(40):
        texts.append(f"missed {number}")
        alice.say(room, texts[-1])
        if number % 10 == 0:
            alice.set_state(room, "m.room.topic", {"topic": f"topic {number}"})
    carol = User(near, "carol")
    carol.join(room)
    bob.join(room, near.server_name)
    bob.retry(lambda: bob.content(room, "m.room.topic") == {"topic": "topic 30"}, "the topic is old")
    bob.retry(lambda: bob.membership(room, carol) == "join", "carol is missing")
    bob.retry(lambda: bob.bodies(room) == texts[::-1], "what was missed is not there")
    alice.until_event(room, bob.say(room, "back"))
    same_state(room, alice, bob)


def absence(near, far, version):
    """The second server is dead while memberships, devices and keys change at the first."""
    alice, bob, room = meet(near, far, version, preset="public_chat")
    alice.set_state(room, "m.room.encryption", {"algorithm": "m.megolm.v1.aes-sha2"})
    alice.upload_keys()
    bob.retry(lambda: set(bob.device_keys(alice)) == {alice.device}, "no keys of alice's device")
    carol = User(near, "carol")
    far.kill()
    login = alice.call("POST", "/login", {
        "type": "m.login.password", "password": "a-long-password",
        "identifier": {"type": "m.id.user", "user": alice.user_id}})
    other = User.__new__(User)
    other.__dict__.update({**alice.__dict__, "token": login["access_token"], "device": login["device_id"], "connection": None})
    other.upload_keys()
    carol.upload_keys()
    carol.join(room)
    alice.call("PUT", f"/profile/{quote(alice.user_id)}/displayname", {"displayname": "Changed meanwhile"})
    far.start()
    bob.close()
    alice.say(room, "are you there?")
    bob.retry(lambda: bob.membership(room, carol) == "join", "carol is missing")
    bob.retry(lambda: set(bob.device_keys(alice)) == {alice.device, other.device}, "the new device is missing")
    bob.retry(lambda: set(bob.device_keys(carol)) == {carol.device}, "carol's device is missing")
    bob.retry(lambda: bob.content(room, "m.room.member", alice.user_id)["displayname"] == "Changed meanwhile", "old name")
    same_state(room, alice, bob)


def access_list(near, far, version):
    alice, bob, room = meet(near, far, version)
    everybody = {"allow": ["*"], "deny": [], "allow_ip_literals": True}
    # A list matches names without their ports, which are all localhost here: it shuts out both, and each side keeps it.
    shut = alice.set_state(room, "m.room.server_acl", {**everybody, "deny": ["localhost"]})
    bob.until_event(room, shut)
    said = bob.say(room, "from behind the list")
    own = alice.say(room, "from the other side of it")
    for user, event in ((alice, said), (bob, own)):
        for _ in range(4):
            user.sync()
        assert not user.event(room, event), f"{user.user_id} got an event of a server that is shut out"


def hidden_history(near, far, version):
    """Who sees history from the join on only gets none of before, on whatever server."""
    alice, bob = User(near, "alice"), User(far, "bob")
    visibility = {"type": "m.room.history_visibility", "state_key": "", "content": {"history_visibility": "joined"}}
    room = alice.create(version, preset="public_chat", initial_state=[visibility])
    secret = alice.say(room, "secret")
    bob.join(room, near.server_name)
    heard = alice.say(room, "open")
    bob.until_event(room, heard)
    for _ in range(5):
        assert bob.bodies(room)[:1] == ["open"] and "secret" not in bob.bodies(room), bob.bodies(room)
        bob.sync()
    assert not (bob.event(room, secret) or {}).get("content", {}).get("body"), "bob reads what was before him"
    bob.member(room, "leave")
    alice.retry(lambda: alice.membership(room, bob) == "leave", "bob's leaving did not arrive")
    after = alice.say(room, "after bob")
    alice.set_state(room, "m.room.topic", {"topic": "after bob"})
    bob.sync()
    try:
        assert not bob.event(room, after), "bob reads what was after him"
    except MatrixError as error:
        assert error.status == 403, error


def relations(near, far, version):
    """Reactions, edits and threads of the other server count here."""
    alice, bob, room = meet(near, far, version)
    root = alice.say(room, "root")
    bob.until_event(room, root)

    def relate(user, kind, relation, **content):
        return user.send(room, f"t{next(numbers)}", {"m.relates_to": {"event_id": root, **relation}, **content}, kind)

    relate(bob, "m.reaction", {"rel_type": "m.annotation", "key": "👍"})
    reply = relate(bob, "m.room.message", {"rel_type": "m.thread"}, msgtype="m.text", body="in the thread")
    edit = relate(alice, "m.room.message", {"rel_type": "m.replace"}, msgtype="m.text", body="* edited",
                  **{"m.new_content": {"msgtype": "m.text", "body": "edited"}})
    for user in (alice, bob):
        user.until_event(room, reply), user.until_event(room, edit)
        bundle = user.retry(lambda: (user.event(room, root)["unsigned"].get("m.relations") or {}), "no relations")
        assert bundle["m.thread"]["count"] == 1 and bundle["m.thread"]["latest_event"]["event_id"] == reply, bundle
        assert bundle["m.replace"]["event_id"] == edit, bundle
        found = user.call("GET", f"/rooms/{quote(room)}/relations/{quote(root)}", version="v1")["chunk"]
        assert {event["type"] for event in found} == {"m.reaction", "m.room.message"} and len(found) == 3, found
        threads = user.call("GET", f"/rooms/{quote(room)}/threads", version="v1")["chunk"]
        assert [event["event_id"] for event in threads] == [root], threads


def cross_signing(near, far, version):
    """Keys with which users vouch for their devices reach the other server, and their change is told."""
    alice, bob, room = meet(near, far, version)
    alice.set_state(room, "m.room.encryption", {"algorithm": "m.megolm.v1.aes-sha2"})
    for owner, other in ((alice, bob), (bob, alice)):
        owner.upload_keys()
        other.retry(lambda: other.device_keys(owner), "no keys of the device")
        other.sync(0)
        other.devices_changed.clear()
        master, own = SigningKey(), SigningKey()

        def public(usage, key):
            return {"user_id": owner.user_id, "usage": [usage], "keys": {f"ed25519:{key.public}": key.public}}

        body = {"master_key": public("master", master),
                "self_signing_key": master.sign(owner.user_id, f"ed25519:{master.public}", public("self_signing", own))}
        path = "/keys/device_signing/upload"
        try:
            owner.call("POST", path, body)
        except MatrixError as error:
            assert error.status == 401, error
            body["auth"] = {"type": "m.login.password", "session": error.body["session"], "password": "a-long-password",
                            "identifier": {"type": "m.id.user", "user": owner.user_id}}
            owner.call("POST", path, body)
        other.until(lambda: owner.user_id in other.devices_changed, "the new keys")

        def known():
            query = {"device_keys": {owner.user_id: []}}
            answer = other.call("POST", "/keys/query", query)
            return [list(answer.get(kind, {}).get(owner.user_id, {}).get("keys", {}).values())
                    for kind in ("master_keys", "self_signing_keys")]

        other.retry(lambda: known() == [[master.public], [own.public]], "the keys did not arrive")


MEMBERS = 40


def crowd(near, far, version):
    """A room with many members of one server, joined by the first of another: all are seen, and can be invited, kicked."""
    alice = User(near, "alice")
    room = alice.create(version, preset="public_chat")
    users = [User(near, "member") for _ in range(MEMBERS)]
    for user in users:
        user.join(room)
    users[0].member(room, "leave")
    alice.member(room, "ban", users[1])
    bob = User(far, "bob")
    bob.join(room, near.server_name)
    alice.until_event(room, bob.say(room, "at once"))
    everybody = {alice.user_id, bob.user_id, *(user.user_id for user in users[2:])}
    bob.retry(lambda: set(bob.call("GET", f"/rooms/{quote(room)}/joined_members")["joined"]) == everybody, "members are missing")
    bob.until_event(room, users[5].say(room, "one of many"))
    assert (bob.membership(room, users[0]), bob.membership(room, users[1])) == ("leave", "ban")
    same_state(room, alice, bob)
    carol = User(far, "carol")
    carol.join(room)
    alice.retry(lambda: alice.membership(room, carol) == "join", "carol's join did not arrive")
    same_state(room, alice, carol)


STORM = 40


def storm(near, far, version):
    """Both talk without a pause; the second server is killed in the middle. What was acknowledged is at both in the end."""
    alice, bob, room = meet(near, far, version)
    acknowledged = []
    halfway = threading.Event()

    def talk(user):
        for number in range(STORM):
            text = f"{user.user_id} {number}"
            end = time.monotonic() + PATIENCE_SECONDS
            while True:
                try:
                    user.send(room, f"storm{number}", {"msgtype": "m.text", "body": text})
                    break
                except (OSError, http.client.HTTPException, MatrixError):
                    # Dead, or not quite awake; the same transaction again.
                    assert time.monotonic() < end, f"{text} cannot be sent"
                    time.sleep(0.1)
            acknowledged.append(text)
            if user is bob and number == STORM // 2:
                halfway.set()

    with concurrent.futures.ThreadPoolExecutor() as pool:
        talks = [pool.submit(talk, user) for user in (alice, bob)]
        assert halfway.wait(PATIENCE_SECONDS)
        far.kill()
        far.start()
        for one in talks:
            one.result()
    for user in (alice, bob):
        user.say(room, "after the storm")
    for user in (alice, bob):
        user.retry(lambda: sorted(text for text in user.bodies(room, 100) if text != "after the storm") == sorted(acknowledged),
                   "what was acknowledged is not there once")
    same_state(room, alice, bob)


SCENARIOS = [comeback, absence, access_list, hidden_history, relations, cross_signing, crowd, storm]

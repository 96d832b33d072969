"""What any two servers do with each other. Each scenario takes two servers, the room version and is run both ways round."""
import peers  # noqa: F401  (puts tests/lib on the path)
from hearth import quote
from picture import png
from user import User, refused, same_state


def meet(near, far, version, **settings):
    """A user of each server in a new room of the first."""
    alice, bob = User(near, "alice"), User(far, "bob")
    alice.sync(0), bob.sync(0)
    room = alice.create(version, [bob.user_id], **settings)
    bob.accept_invite(room)
    alice.until(lambda: any(event["type"] == "m.room.member" and event.get("state_key") == bob.user_id
                            and event["content"]["membership"] == "join"
                            for event in alice.timeline.get(room, {}).values()), "bob's join")
    return alice, bob, room


def talk(near, far, version):
    """Messages, state, typing and receipts, both ways."""
    alice, bob, room = meet(near, far, version, name="Tea", topic="Which tea?")
    assert bob.content(room, "m.room.name") == {"name": "Tea"}
    assert bob.content(room, "m.room.create")["room_version"] == version
    for number in range(3):
        first = alice.say(room, f"hello {number}")
        bob.until_event(room, first)
        second = bob.say(room, f"good day {number} ☕")
        assert alice.until_event(room, second)["content"]["body"] == f"good day {number} ☕"

    refused(403, lambda: bob.set_state(room, "m.room.topic", {"topic": "Green"}))
    levels = alice.content(room, "m.room.power_levels")
    levels["users"] = {**levels.get("users", {}), bob.user_id: 50}
    bob.until_event(room, alice.set_state(room, "m.room.power_levels", levels))
    topic = bob.set_state(room, "m.room.topic", {"topic": "Green"})
    alice.until_event(room, topic)
    bob.until_event(room, alice.set_state(room, "org.example.cups", {"cups": 2}, "key with / and ü"))
    same_state(room, alice, bob)

    for writer, reader in ((alice, bob), (bob, alice)):
        path = f"/rooms/{quote(room)}/typing/{quote(writer.user_id)}"
        writer.call("PUT", path, {"typing": True, "timeout": 30000})
        reader.until(lambda: writer.user_id in reader.typing.get(room, []), "typing")
        writer.call("PUT", path, {"typing": False})
        reader.until(lambda: writer.user_id not in reader.typing.get(room, []), "the end of typing")
        last = reader.say(room, "read this")
        writer.until_event(room, last)
        writer.call("POST", f"/rooms/{quote(room)}/receipt/m.read/{quote(last)}", {})
        reader.until(lambda: reader.receipts.get((room, writer.user_id)) == last, "the receipt")


def presence(near, far, version):
    alice, bob, _ = meet(near, far, version)
    for writer, reader in ((alice, bob), (bob, alice)):
        path = f"/presence/{quote(writer.user_id)}/status"
        writer.call("PUT", path, {"presence": "online", "status_msg": "at the stove"})
        reader.until(lambda: reader.presence.get(writer.user_id, {}).get("status_msg") == "at the stove", "presence")


def media(near, far, version):
    alice, bob, room = meet(near, far, version)
    for writer, reader in ((alice, bob), (bob, alice)):
        data = png(64 + len(writer.user_id), 64)
        uri = writer.upload(data, "image/png")
        event = writer.send(room, "picture", {"msgtype": "m.image", "body": "x.png", "url": uri})
        assert reader.until_event(room, event)["content"]["url"] == uri
        assert reader.download(uri) == ("image/png", data)


def devices(near, far, version):
    """Device lists, one-time keys and messages to devices, both ways."""
    alice, bob, room = meet(near, far, version)
    alice.set_state(room, "m.room.encryption", {"algorithm": "m.megolm.v1.aes-sha2"})
    for owner, other in ((alice, bob), (bob, alice)):
        other.sync(0)
        other.devices_changed.clear()
        keys = owner.upload_keys(one_time=2)
        other.until(lambda: owner.user_id in other.devices_changed, "the changed device list")
        seen = other.retry(lambda: other.device_keys(owner).get(owner.device), "no keys of the device")
        assert {name: seen[name] for name in keys} == keys, seen

        wanted = {"one_time_keys": {owner.user_id: {owner.device: "signed_curve25519"}}, "timeout": 10000}
        claimed = []
        for _ in range(2):
            answer = other.call("POST", "/keys/claim", wanted)["one_time_keys"]
            claimed += answer[owner.user_id][owner.device]
        assert sorted(claimed) == ["signed_curve25519:AAAA0", "signed_curve25519:AAAA1"], claimed
        empty = other.call("POST", "/keys/claim", wanted)["one_time_keys"]
        assert not empty.get(owner.user_id, {}).get(owner.device), empty

        for number in range(3):
            other.send_to_device("org.example.note", owner, {"number": number})
        owner.until(lambda: len(owner.to_device) >= 3, "messages to the device")
        assert [event["content"]["number"] for event in owner.to_device] == [0, 1, 2], owner.to_device
        assert {event["sender"] for event in owner.to_device} == {other.user_id}

        # A second device, and its end.
        login = owner.call("POST", "/login", {
            "type": "m.login.password", "password": "a-long-password",
            "identifier": {"type": "m.id.user", "user": owner.user_id}})
        token, device, owner.token, owner.device = owner.token, owner.device, login["access_token"], login["device_id"]
        other.devices_changed.clear()
        owner.upload_keys()
        other.until(lambda: owner.user_id in other.devices_changed, "the second device")
        other.retry(lambda: set(other.device_keys(owner)) == {device, login["device_id"]}, "the second device's keys")
        other.devices_changed.clear()
        owner.call("POST", "/logout", {})
        owner.token, owner.device = token, device
        other.until(lambda: owner.user_id in other.devices_changed, "the end of the second device")
        other.retry(lambda: set(other.device_keys(owner)) == {device}, "the second device is still there")


def memberships(near, far, version):
    """Invitations accepted, refused and withdrawn; leaving; kicks; coming back."""
    alice, bob, room = meet(near, far, version)
    carol = User(far, "carol")
    carol.sync(0)
    for _ in range(2):
        alice.member(room, "invite", carol, reason="tea")
        carol.until(lambda: room in carol.invites, "the invitation")
        # A server that is in the room may tell its user before the room itself has the invitation.
        bob.retry(lambda: bob.membership(room, carol) == "invite", "the invitation did not arrive")
        carol.member(room, "leave")
        alice.retry(lambda: alice.membership(room, carol) == "leave", "the refusal did not arrive")
    bob.member(room, "invite", carol)
    carol.until(lambda: room in carol.invites, "the invitation by bob")
    alice.retry(lambda: alice.membership(room, carol) == "invite", "bob's invitation did not arrive")
    alice.member(room, "kick", carol)
    carol.until(lambda: room not in carol.invites, "the end of the invitation")

    bob.member(room, "leave")
    alice.retry(lambda: alice.membership(room, bob) == "leave", "bob's leaving did not arrive")
    refused(403, lambda: bob.say(room, "from outside"))
    missed = alice.say(room, "bob does not hear this")
    alice.member(room, "invite", bob)
    bob.accept_invite(room)
    heard = alice.say(room, "welcome back")
    bob.until_event(room, heard)
    bob.retry(lambda: missed in [event["event_id"] for event in bob.backwards(room)], "history is not shared")
    bob.say(room, "thanks")
    alice.member(room, "kick", bob, reason="again")
    bob.until(lambda: room in bob.left, "the kick")


def crash(near, far, version):
    """The second server is killed while the first goes on; started again, it catches up, and the other way."""
    alice, bob, room = meet(near, far, version)
    alice.upload_keys()
    before = bob.say(room, "before the crash")
    alice.until_event(room, before)
    far.kill()
    missed = [alice.say(room, f"missed {number}") for number in range(12)]
    topic = alice.set_state(room, "m.room.topic", {"topic": "while you were away"})
    alice.send_to_device("org.example.note", bob, {"body": "kept"})
    far.start()
    bob.close()
    bob.until_event(room, topic)
    bob.retry(lambda: bob.bodies(room)[:12] == [f"missed {number}" for number in reversed(range(12))],
              "what was missed is not in the history")
    bob.until(lambda: bob.to_device, "the message to the device")
    assert bob.content(room, "m.room.topic") == {"topic": "while you were away"}
    assert len(missed) == 12
    after = bob.say(room, "after the crash")
    alice.until_event(room, after)
    same_state(room, alice, bob)


SCENARIOS = [talk, presence, media, devices, memberships, crash]

"""What two servers do in rooms beyond basics.py: rules of joining, moderation, history, forks, upgrades, look-ups."""
import peers  # noqa: F401  (puts tests/lib on the path)
from basics import meet
from hearth import quote
from user import User, numbers, refused, same_state


def restricted(near, far, version):
    """Members of a space may join a room of it: through the server that has somebody who may invite, and refused otherwise."""
    alice, bob, space = meet(near, far, version, creation_content={"type": "m.space"})
    carol = User(far, "carol")
    rule = {"join_rule": "restricted", "allow": [{"type": "m.room_membership", "room_id": space}]}
    room = alice.create(version, initial_state=[{"type": "m.room.join_rules", "state_key": "", "content": rule}])
    refused(403, lambda: carol.join(room, near.server_name))
    bob.join(room, near.server_name)
    alice.retry(lambda: alice.membership(room, bob) == "join", "bob's join did not arrive")
    vouched = next(event for event in bob.call("GET", f"/rooms/{quote(room)}/state")
                   if event["type"] == "m.room.member" and event["state_key"] == bob.user_id)
    assert vouched["content"]["join_authorised_via_users_server"] == alice.user_id, vouched
    # The far server is in the room now, and has nobody who may invite there.
    alice.member(space, "invite", carol)
    carol.accept_invite(space)
    bob.retry(lambda: bob.membership(space, carol) == "join", "carol is not in the space")
    carol.join(room, near.server_name)
    alice.retry(lambda: alice.membership(room, carol) == "join", "carol's join did not arrive")
    alice.until_event(room, carol.say(room, "here"))
    same_state(room, alice, bob)


def knock(near, far, version):
    """Knocks that are let in, refused, withdrawn."""
    alice, bob = User(near, "alice"), User(far, "bob")
    rule = {"join_rule": "knock"}
    room = alice.create(version, name="Door", initial_state=[
        {"type": "m.room.join_rules", "state_key": "", "content": rule}])
    knocking = lambda: bob.call("POST", f"/knock/{quote(room)}", {"reason": "tea?"},  # noqa: E731
                                query={"server_name": near.server_name, "via": near.server_name})
    refused(403, lambda: bob.join(room, near.server_name))
    for _ in range(2):
        knocking()
        alice.retry(lambda: alice.membership(room, bob) == "knock", "the knock did not arrive")
        assert alice.content(room, "m.room.member", bob.user_id)["reason"] == "tea?"
        bob.member(room, "leave")
        if far.kind == "synapse":
            alice.member(room, "kick", bob)  # it tells nobody that a knock was taken back
        alice.retry(lambda: alice.membership(room, bob) == "leave", "the knock's end did not arrive")
    knocking()
    shown = bob.until(lambda: bob.knocks.get(room), "its knock")
    assert {"name": "Door"} in [event["content"] for event in shown], shown
    alice.retry(lambda: alice.membership(room, bob) == "knock", "the knock did not arrive")
    alice.member(room, "kick", bob)
    if "synapse" in (near.kind, far.kind):
        # It does not tell a server that has only knocked, and takes no event of a room that it is not in.
        bob.member(room, "leave")
    bob.until(lambda: room not in bob.knocks, "the end of its knock")
    knocking()
    alice.retry(lambda: alice.membership(room, bob) == "knock", "the knock did not arrive")
    alice.member(room, "invite", bob)
    bob.accept_invite(room)
    alice.until_event(room, bob.say(room, "thanks"))
    same_state(room, alice, bob)


def ban(near, far, version):
    alice, bob, room = meet(near, far, version, preset="public_chat")
    carol = User(far, "carol")
    carol.join(room, near.server_name)
    # Synapse sends an event to the servers that were in the room before it.
    alice.retry(lambda: alice.membership(room, carol) == "join", "the second join did not arrive")
    alice.member(room, "ban", bob, reason="spam")
    bob.until(lambda: room in bob.left, "the ban")
    refused(403, lambda: bob.join(room, near.server_name))
    refused(403, lambda: bob.say(room, "from outside"))
    carol.retry(lambda: carol.membership(room, bob) == "ban", "the ban did not arrive")
    alice.member(room, "unban", bob)
    carol.retry(lambda: carol.membership(room, bob) == "leave", "the end of the ban did not arrive")
    bob.join(room, near.server_name)
    alice.until_event(room, bob.say(room, "back"))
    same_state(room, alice, carol)


def redactions(near, far, version):
    alice, bob, room = meet(near, far, version)
    for writer, reader, moderator in ((alice, bob, alice), (bob, alice, bob), (bob, alice, alice)):
        event = writer.say(room, "regret")
        alice.until_event(room, event), bob.until_event(room, event)
        path = f"/rooms/{quote(room)}/redact/{quote(event)}/t{next(numbers)}"
        redaction = moderator.call("PUT", path, {"reason": "typo"})["event_id"]
        for user in (alice, bob):
            user.until_event(room, redaction, "the redaction")
            seen = user.retry(lambda: redacted(user, room, event), "the event is not redacted")
            assert seen["unsigned"]["redacted_because"]["event_id"] == redaction, seen
    other = alice.say(room, "not yours")
    bob.until_event(room, other)
    path = f"/rooms/{quote(room)}/redact/{quote(other)}/t{next(numbers)}"
    refused(403, lambda: bob.call("PUT", path, {}))


def redacted(user, room, event):
    seen = user.call("GET", f"/rooms/{quote(room)}/event/{quote(event)}")
    return seen if not seen["content"] else None


HISTORY = 230


def history(near, far, version):
    """A long history from before the join is read through, page by page, and looked up by time."""
    alice, bob = User(near, "alice"), User(far, "bob")
    alias = f"tea{next(numbers)}"
    room = alice.create(version, preset="public_chat", room_alias_name=alias)
    texts = []
    for number in range(HISTORY):
        texts.append(f"number {number}")
        alice.say(room, texts[-1])
        if number % 50 == 0:
            alice.set_state(room, "m.room.topic", {"topic": f"topic {number}"})
    name = f"#{alias}:{near.server_name}"
    found = bob.call("GET", f"/directory/room/{quote(name)}")
    assert found["room_id"] == room and near.server_name in found["servers"], found
    assert bob.join(name) == room
    bob.retry(lambda: bob.bodies(room) == texts[::-1], "the history is not whole")
    wanted = bob.backwards(room)
    assert sum(event["type"] == "m.room.topic" for event in wanted) == HISTORY // 50 + 1, "topics are missing"
    assert wanted[-1]["type"] == "m.room.create", wanted[-1]
    middle = next(event for event in wanted if event["content"].get("body") == "number 100")
    context = bob.call("GET", f"/rooms/{quote(room)}/context/{quote(middle['event_id'])}", query={"limit": 4})
    around = [event["content"]["body"] for event in
              context["events_before"][::-1] + [context["event"]] + context["events_after"]
              if event["type"] == "m.room.message"]
    assert "number 100" in around and "number 101" in around, around
    topics = {event["event_id"]: event["content"]["topic"] for event in context["state"] if event["type"] == "m.room.topic"}
    assert list(topics.values()) in (["topic 50"], ["topic 100"]), topics

    carol = User(far, "carol")
    carol.join(room, near.server_name)
    at = carol.call("GET", f"/rooms/{quote(room)}/timestamp_to_event", version="v1",
                    query={"ts": middle["origin_server_ts"], "dir": "f"})
    assert at["origin_server_ts"] >= middle["origin_server_ts"], at


def fork(near, far, version):
    """Both write while the line between them is cut; afterwards both have everything, and the same state."""
    alice, bob, room = meet(near, far, version)
    levels = alice.content(room, "m.room.power_levels")
    levels["users"] = {**levels.get("users", {}), bob.user_id: 50}
    bob.until_event(room, alice.set_state(room, "m.room.power_levels", levels))
    carol = User(near, "carol")
    near.relay.cut(), far.relay.cut()
    texts = []
    for number in range(5):
        for user in (alice, bob):
            texts.append(f"{user.user_id} {number}")
            user.say(room, texts[-1])
            user.set_state(room, "m.room.topic", {"topic": texts[-1]})
            user.set_state(room, "org.example.own", {"number": number}, user.user_id[1:])
    alice.member(room, "invite", carol)
    carol.accept_invite(room)
    carol.say(room, "carol")
    bob.set_state(room, "m.room.name", {"name": "Fork"})
    near.relay.mend(), far.relay.mend()
    # Who is heard of is tried again at once, so one of them speaks.
    last = [alice.say(room, "healed near"), bob.say(room, "healed far")]
    for user in (alice, bob):
        for event in last:
            user.until_event(room, event, "what was said after the fork")
    state = same_state(room, alice, bob)
    assert {("m.room.name", ""), ("m.room.member", carol.user_id), ("org.example.own", alice.user_id[1:]),
            ("org.example.own", bob.user_id[1:])} <= set(state), state.keys()
    for user in (alice, bob):
        wanted = {*texts, "carol", "healed near", "healed far"}
        user.retry(lambda: wanted <= set(user.bodies(room)), f"{user.user_id} lacks some of the fork")
    merged = alice.say(room, "one line again")
    bob.until_event(room, merged)
    alice.until_event(room, bob.say(room, "yes"))
    same_state(room, alice, bob)


def fork_of_powers(near, far, version):
    """As `fork`, where one side takes from the other what it uses meanwhile: resolution must undo it on both."""
    alice, bob, room = meet(near, far, version)
    dave = User(far, "dave")
    alice.member(room, "invite", dave)
    dave.accept_invite(room)
    levels = alice.content(room, "m.room.power_levels")
    raised = {**levels, "users": {**levels.get("users", {}), bob.user_id: 50, dave.user_id: 50}}
    bob.until_event(room, alice.set_state(room, "m.room.power_levels", raised))
    dave.until(lambda: (dave.content(room, "m.room.power_levels") or {}).get("users", {}).get(dave.user_id) == 50, "power")
    near.relay.cut(), far.relay.cut()
    alice.set_state(room, "m.room.power_levels", {**levels, "users": {**levels.get("users", {}), dave.user_id: 50}})
    alice.member(room, "ban", dave)
    alice.set_state(room, "m.room.topic", {"topic": "alice"})
    bob.set_state(room, "m.room.topic", {"topic": "bob, who has no power any more"})
    dave.set_state(room, "m.room.name", {"name": "dave, who is banned"})
    near.relay.mend(), far.relay.mend()
    alice.say(room, "healed near")
    bob.retry(lambda: bob.membership(room, dave) == "ban", "the ban did not arrive")
    state = same_state(room, alice, bob)
    assert alice.content(room, "m.room.topic") == {"topic": "alice"}, alice.content(room, "m.room.topic")
    assert ("m.room.name", "") not in state, "a banned user's name stands"
    refused(403, lambda: bob.set_state(room, "m.room.topic", {"topic": "again"}))
    alice.until_event(room, bob.say(room, "only words"))
    same_state(room, alice, bob)


def upgrade(near, far, version):
    alice, bob, room = meet(near, far, version, preset="public_chat", name="Old")
    new = alice.call("POST", f"/rooms/{quote(room)}/upgrade", {"new_version": "12" if version != "12" else "11"})
    new = new["replacement_room"]
    bob.until(lambda: (bob.content(room, "m.room.tombstone") or {}).get("replacement_room") == new, "the tombstone")
    assert bob.join(new, near.server_name) == new
    assert bob.content(new, "m.room.create")["predecessor"]["room_id"] == room
    assert bob.content(new, "m.room.name") == {"name": "Old"}
    alice.until_event(new, bob.say(new, "moved"))
    same_state(new, alice, bob)
    same_state(room, alice, bob)


def lookups(near, far, version):
    """Profiles, aliases, the public rooms of another server, and spaces, without sharing a room at first."""
    alice, bob = User(near, "alice"), User(far, "bob")
    alice.call("PUT", f"/profile/{quote(alice.user_id)}/displayname", {"displayname": "Alice ☕"})
    avatar = alice.upload(b"\x89PNG not quite", "image/png")
    alice.call("PUT", f"/profile/{quote(alice.user_id)}/avatar_url", {"avatar_url": avatar})
    profile = bob.call("GET", f"/profile/{quote(alice.user_id)}")
    assert (profile["displayname"], profile["avatar_url"]) == ("Alice ☕", avatar), profile
    refused(404, lambda: bob.call("GET", f"/profile/{quote('@nobody:' + near.server_name)}"))
    refused(404, lambda: bob.call("GET", f"/directory/room/{quote('#nothing:' + near.server_name)}"))

    name = f"Space {next(numbers)}"
    space = alice.create(version, preset="public_chat", name=name, visibility="public",
                         creation_content={"type": "m.space"})
    child = alice.create(version, preset="public_chat", name="Child", topic="of the space")
    secret = alice.create(version, name="Secret")
    own = bob.create(version, preset="public_chat", name="Bob's")
    for room, server in ((child, near), (secret, near), (own, far)):
        alice.set_state(space, "m.space.child", {"via": [server.server_name]}, room)
    wanted = {"limit": 100, "filter": {"generic_search_term": name}}
    listed = bob.call("POST", "/publicRooms", wanted, query={"server": near.server_name})
    found = [room for room in listed["chunk"] if room["room_id"] == space]
    assert found and found[0]["name"] == name and found[0]["num_joined_members"] == 1, listed

    bob.join(space, near.server_name)
    tree = bob.call("GET", f"/rooms/{quote(space)}/hierarchy", version="v1", query={"limit": 50})["rooms"]
    seen = {room["room_id"]: room for room in tree}
    assert set(seen) == {space, child, own}, seen
    assert seen[child]["name"] == "Child" and seen[child]["topic"] == "of the space"
    assert len(seen[space]["children_state"]) == 3, seen[space]
    # A summary of a room that bob's server is not in.
    summary = bob.call("GET", f"/room_summary/{quote(child)}", version="v1", query={"via": near.server_name})
    assert summary["name"] == "Child", summary


def changed_profile(near, far, version):
    """A new display name reaches the members of shared rooms."""
    alice, bob, room = meet(near, far, version)
    for writer, reader in ((alice, bob), (bob, alice)):
        writer.call("PUT", f"/profile/{quote(writer.user_id)}/displayname", {"displayname": "Anew"})
        reader.retry(lambda: reader.content(room, "m.room.member", writer.user_id).get("displayname") == "Anew",
                     "the new name did not arrive")


def many_members(near, far, version):
    """A room with members of both servers, joined by one more: everybody is seen by everybody."""
    alice, bob, room = meet(near, far, version, preset="public_chat")
    users = [User(server, "member") for _ in range(6) for server in (near, far)]
    for user in users:
        user.join(room, near.server_name, far.server_name)
    everybody = {user.user_id for user in [alice, bob, *users]}
    for user in (alice, bob):
        user.retry(lambda: set(user.call("GET", f"/rooms/{quote(room)}/joined_members")["joined"]) == everybody,
                   "members are missing")
    for user in users:
        user.say(room, f"I am {user.user_id}")
    for user in (alice, bob):
        user.retry(lambda: len([text for text in user.bodies(room) if text.startswith("I am")]) == len(users), "messages")
    same_state(room, alice, bob)


SCENARIOS = [restricted, knock, ban, redactions, history, fork, fork_of_powers, upgrade, lookups, changed_profile,
             many_members]

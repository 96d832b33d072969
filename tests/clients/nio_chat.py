#!/usr/bin/env python3
"""Two users chat through a real server with matrix-nio, a released client library that we did not write."""
import asyncio
import io
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "lib"))

import nio  # noqa: E402
from hearth import Server  # noqa: E402
from picture import png, size_of  # noqa: E402

LIMIT_SECONDS = 120


def good(answer, kind):
    """The answer, if it is of the wanted class: nio gives errors as values."""
    assert isinstance(answer, kind), f"wanted {kind.__name__}, got {answer!r}"
    return answer


class User:
    """A client and what its sync has shown."""

    def __init__(self, url, name):
        self.client = nio.AsyncClient(url, name)
        self.name = name
        self.texts = []
        self.pictures = []
        self.invites = []
        self.members = []
        self.client.add_event_callback(self.on_text, nio.RoomMessageText)
        self.client.add_event_callback(self.on_picture, nio.RoomMessageImage)
        self.client.add_event_callback(self.on_invite, nio.InviteMemberEvent)
        self.client.add_event_callback(self.on_member, nio.RoomMemberEvent)

    async def on_text(self, room, event):
        self.texts.append((event.sender, event.body))

    async def on_picture(self, room, event):
        self.pictures.append(event.url)

    async def on_invite(self, room, event):
        if event.state_key == self.client.user_id and event.membership == "invite":
            self.invites.append((room.room_id, event.sender))

    async def on_member(self, room, event):
        self.members.append((event.state_key, event.membership))

    async def until(self, seen, what):
        """Syncs until `seen` holds; the bound is on syncs, each of which waits a second at most."""
        for _ in range(30):
            if seen():
                return
            good(await self.client.sync(timeout=1000), nio.SyncResponse)
        raise AssertionError(f"{self.name} never saw {what}; texts {self.texts}, members {self.members}")

    async def say(self, room, text):
        content = {"msgtype": "m.text", "body": text}
        return good(await self.client.room_send(room, "m.room.message", content), nio.RoomSendResponse).event_id


async def chat(url):
    alice, bob = User(url, "alice"), User(url, "bob")
    try:
        await talk(alice, bob)
        await pictures(alice, bob)
        await read_history(url, alice, bob)
    finally:
        await alice.client.close()
        await bob.client.close()


async def talk(alice, bob):
    for user in (alice, bob):
        answer = good(await user.client.register(user.name, f"{user.name}-long-password"), nio.RegisterResponse)
        assert answer.user_id == f"@{user.name}:localhost", answer
        good(await user.client.sync(timeout=0), nio.SyncResponse)
    good(await alice.client.set_displayname("Alice A."), nio.ProfileSetDisplayNameResponse)

    created = await alice.client.room_create(name="Tea", topic="Which tea?", invite=["@bob:localhost"])
    alice.room = bob.room = room = good(created, nio.RoomCreateResponse).room_id
    await bob.until(lambda: (room, "@alice:localhost") in bob.invites, "the invitation")
    good(await bob.client.join(room), nio.JoinResponse)
    await alice.until(lambda: ("@bob:localhost", "join") in alice.members, "bob join")

    await alice.say(room, "Hello Bob")
    await bob.until(lambda: ("@alice:localhost", "Hello Bob") in bob.texts, "alice's message")
    last = await bob.say(room, "Hello Alice, çay? 🍵")
    await alice.until(lambda: ("@bob:localhost", "Hello Alice, çay? 🍵") in alice.texts, "bob's message")
    good(await alice.client.room_typing(room, True, 5000), nio.RoomTypingResponse)
    good(await alice.client.update_receipt_marker(room, last), nio.UpdateReceiptMarkerResponse)
    good(await alice.client.room_read_markers(room, last, last), nio.RoomReadMarkersResponse)

    await bob.until(lambda: room in bob.client.rooms, "the room")
    seen = bob.client.rooms[room]
    assert seen.name == "Tea" and seen.topic == "Which tea?", (seen.name, seen.topic)
    assert set(seen.users) == {"@alice:localhost", "@bob:localhost"}, seen.users
    members = good(await bob.client.joined_members(room), nio.JoinedMembersResponse).members
    assert {member.user_id: member.display_name for member in members}["@alice:localhost"] == "Alice A.", members


async def pictures(alice, bob):
    data = png()
    answer, _ = await alice.client.upload(
        io.BytesIO(data), content_type="image/png", filename="tea ☕.png", filesize=len(data))
    uri = good(answer, nio.UploadResponse).content_uri
    assert uri.startswith("mxc://localhost/"), uri
    content = {"msgtype": "m.image", "body": "tea ☕.png", "url": uri,
               "info": {"mimetype": "image/png", "size": len(data), "w": 320, "h": 240}}
    good(await alice.client.room_send(alice.room, "m.room.message", content), nio.RoomSendResponse)
    await bob.until(lambda: uri in bob.pictures, "the picture")
    loaded = good(await bob.client.download(uri), nio.MemoryDownloadResponse)
    assert loaded.body == data and loaded.content_type == "image/png", (len(loaded.body), loaded.content_type)
    server, media = uri.removeprefix("mxc://").split("/")
    small = good(await bob.client.thumbnail(server, media, 64, 64), nio.ThumbnailResponse)
    width, height = size_of(small.body)
    assert 32 <= width <= 320 and len(small.body) < len(data), (width, height, len(small.body))


async def read_history(url, alice, bob):
    for number in range(30):
        await alice.say(alice.room, f"number {number}")
    fresh = nio.AsyncClient(url, "bob")
    try:
        good(await fresh.login("bob-long-password", device_name="second"), nio.LoginResponse)
        first = good(await fresh.sync(timeout=0, full_state=True), nio.SyncResponse)
        start = first.rooms.join[alice.room].timeline.prev_batch
        bodies = [event.body for event in first.rooms.join[alice.room].timeline.events[::-1]
                  if isinstance(event, nio.RoomMessageText)]
        while start:
            page = good(await fresh.room_messages(alice.room, start, limit=7), nio.RoomMessagesResponse)
            bodies += [event.body for event in page.chunk if isinstance(event, nio.RoomMessageText)]
            start = page.end
        wanted = ["Hello Bob", "Hello Alice, çay? 🍵"] + [f"number {number}" for number in range(30)]
        assert bodies[::-1] == wanted, f"history is {bodies[::-1]}"
        good(await fresh.logout(), nio.LogoutResponse)
    finally:
        await fresh.close()


def main():
    with Server() as server:
        server.start()
        asyncio.run(asyncio.wait_for(chat(server.url), LIMIT_SECONDS))
        server.stop()
    print("matrix-nio: two users registered, chatted, shared a picture and read history: passed")


main()

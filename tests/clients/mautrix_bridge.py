#!/usr/bin/env python3
"""A bridge made with mautrix, a released framework that we did not write, through a real server: what an application
service itself calls, as its bot, as its ghosts and as a user whom it puppets."""
import asyncio
import pathlib
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "lib"))

from hearth import Client, Server, free_port  # noqa: E402
from mautrix.api import Method, Path  # noqa: E402
from mautrix.appservice import AppService  # noqa: E402
from mautrix.appservice.state_store import ASStateStore  # noqa: E402
from mautrix.client.state_store import MemoryStateStore  # noqa: E402
from mautrix.errors import MatrixRequestError, MUserInUse  # noqa: E402
from mautrix.types import (  # noqa: E402
    EventType, Membership, PaginationDirection, PowerLevelStateEventContent, PresenceState, RoomCreatePreset,
    RoomDirectoryVisibility, RoomTopicStateEventContent,
)
from picture import png  # noqa: E402

LIMIT_SECONDS = 120
A_MONTH_SECONDS = 30 * 86_400
REGISTRATION = """
id: bridge
url: http://127.0.0.1:{port}
as_token: bridge-asks
hs_token: server-tells
sender_localpart: bridgebot
rate_limited: false
namespaces:
  users:
    - {{regex: "@bridge_.*:localhost", exclusive: true}}
    - {{regex: "@.*:localhost", exclusive: false}}
  aliases:
    - {{regex: "#bridge_.*:localhost", exclusive: true}}
"""


class Store(ASStateStore, MemoryStateStore):
    """What the bridge remembers, in memory."""

    def __init__(self):
        ASStateStore.__init__(self)
        MemoryStateStore.__init__(self)


async def refused(what, awaitable, status):
    try:
        answer = await awaitable
    except MatrixRequestError as error:
        assert error.http_status == status, (what, error.http_status, error)
        return
    raise AssertionError(f"{what} was not refused: {answer!r}")


async def accounts(service, bot, ghost):
    """The bot and a ghost come to be, with a picture that arrives after its address was given away."""
    await bot.ensure_registered()
    assert (await bot.whoami()).user_id == "@bridgebot:localhost"
    await service.ping_self("hello")
    await ghost.ensure_registered()
    try:
        await ghost._register()
        raise AssertionError("a name was given twice")
    except MUserInUse:
        pass
    now = await bot.upload_media(png(), mime_type="image/png", filename="a.png")
    later = await bot.upload_media(png(), mime_type="image/png", filename="b.png", async_upload=True)
    assert await bot.download_media(later, timeout_ms=20_000) == png()
    assert await bot.download_thumbnail(now, 32, 32)
    await ghost.set_displayname("Joe (bridge)")
    await ghost.set_avatar_url(later)
    profile = await bot.get_profile(ghost.mxid)
    assert (profile.displayname, profile.avatar_url) == ("Joe (bridge)", later), profile


async def portal(bot, ghost, alice):
    """A room for a chat of elsewhere: the bot invites whoever is to be in it; messages have the times that they had there."""
    room = await bot.create_room(
        alias_localpart="bridge_portal", preset=RoomCreatePreset.PRIVATE, name="Portal", invitees=[alice.user_id],
        initial_state=[{"type": "m.bridge", "state_key": "x", "content": {"bridgebot": bot.mxid}}],
        power_level_override=PowerLevelStateEventContent(users={alice.user_id: 50}),
        creation_content={"m.federate": False},
    )
    assert (await bot.resolve_room_alias("#bridge_portal:localhost")).room_id == room
    assert await ghost.ensure_joined(room)
    before = int((time.time() - A_MONTH_SECONDS) * 1000)
    message = await ghost.send_text(room, "from elsewhere", timestamp=before)
    assert (await bot.get_event(room, message)).timestamp == before
    topic = RoomTopicStateEventContent(topic="as it was")
    await bot.send_state_event(room, EventType.ROOM_TOPIC, topic, timestamp=before)
    assert await bot.react(room, message, "👍")
    await ghost.set_typing(room, 5000)
    await bot.mark_read(room, message)
    await ghost.set_presence(PresenceState.ONLINE, "there", ignore_cache=True)
    await bot.pin_message(room, message)
    await bot.set_room_directory_visibility(room, RoomDirectoryVisibility.PUBLIC)

    # Fields of the bridge's own in memberships, and a ghost that was banned and comes back.
    third = bot.user("@bridge_third:localhost")
    await bot.invite_user(room, third.mxid, extra_content={"fi.mau.will_auto_accept": True})
    await third.join_room_by_id(room, extra_content={"org.example.network": "irc"})
    member = await bot.get_state_event(room, EventType.ROOM_MEMBER, third.mxid)
    assert (member.membership, member["org.example.network"]) == (Membership.JOIN, "irc"), member
    await bot.ban_user(room, third.mxid, "noise")
    await refused("a banned ghost's join", third.join_room_by_id(room), 403)
    await bot.unban_user(room, third.mxid)
    assert await third.ensure_joined(room, ignore_cache=True)
    assert set(await bot.get_room_members(room)) == {bot.mxid, ghost.mxid, third.mxid}
    await ghost.redact(room, message, "deleted there")
    return room


async def puppet(bot, alice, room):
    """A user of this server says something on the other network: the bridge repeats it as that user."""
    login = {"type": "m.login.application_service", "identifier": {"type": "m.id.user", "user": alice.user_id}}
    session = await bot.api.request(Method.POST, Path.v3.login, login)
    assert session["user_id"] == alice.user_id and session["access_token"], session
    real = bot.user(alice.user_id, token="bridge-asks", as_token=True)
    assert (await real.whoami()).user_id == alice.user_id
    await real.join_room_by_id(room)
    said = await real.send_text(room, "by puppet", timestamp=1_600_000_000_000)
    page = await bot.get_messages(room, PaginationDirection.BACKWARD, limit=3)
    assert said in [event.event_id for event in page.events], page
    assert alice.call("GET", f"/rooms/{room}/event/{said}")["sender"] == alice.user_id


async def devices(bot):
    """A device for the bot's encryption, without a login, and the bot's keys under it."""
    await bot.create_device_msc4190("BRIDGE", "bridge")
    as_device = {"user_id": bot.mxid, "org.matrix.msc3202.device_id": "BRIDGE"}
    counts = await bot.api.request(Method.POST, Path.v3.keys.upload, {}, query_params=as_device)
    assert "one_time_key_counts" in counts, counts
    await bot.api.request(Method.DELETE, Path.v3.devices["BRIDGE"])
    await refused("keys of a deleted device",
                  bot.api.request(Method.POST, Path.v3.keys.upload, {}, query_params=as_device), 400)


async def bridge(server, port):
    alice = Client(server).register("alice")
    service = AppService(
        id="bridge", domain="localhost", server=server.url, as_token="bridge-asks", hs_token="server-tells",
        bot_localpart="bridgebot", state_store=Store(),
    )
    await service.start("127.0.0.1", port)
    try:
        bot = service.intent
        ghost = bot.user("@bridge_joe:localhost")
        await accounts(service, bot, ghost)
        room = await portal(bot, ghost, alice)
        await puppet(bot, alice, room)
        await devices(bot)
        await refused("a ghost that nobody made", bot.user("@bridge_nobody:localhost").whoami(), 403)
        await refused("a user of elsewhere", bot.user("@joe:elsewhere.example").whoami(), 403)
    finally:
        await service.stop()
        alice.close()


def main():
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="hearth-bridge-") as folder:
        (pathlib.Path(folder) / "bridge.yaml").write_text(REGISTRATION.format(port=port))
        with Server(settings={"appservice_dir": folder}) as server:
            server.start()
            asyncio.run(asyncio.wait_for(bridge(server, port), LIMIT_SECONDS))
            server.stop()
    print("mautrix: a bridge registered its bot and ghosts, made a portal, sent with old times, puppeted: passed")


main()

"""A user of one of the servers: sends, and keeps what its sync has shown."""
import itertools
import json
import os
import sys
import time

import peers  # noqa: F401  (puts tests/lib on the path)
from device_keys import device_keys
from hearth import Client, MatrixError, quote

SYNC_MILLISECONDS = 500
PATIENCE_SECONDS = float(os.environ.get("HEARTH_TEST_PATIENCE", "60"))
numbers = itertools.count(1)


class User(Client):
    def __init__(self, server, name):
        super().__init__(server)
        self.register(f"{name}{next(numbers)}")
        self.device = self.call("GET", "/account/whoami")["device_id"]
        self.since = None
        self.timeline = {}  # room: {event id: event}
        self.limited = set()  # rooms whose timeline had a gap
        self.invites, self.knocks, self.left, self.joined = {}, {}, set(), set()
        self.typing, self.receipts, self.presence = {}, {}, {}
        self.devices_changed, self.to_device = set(), []

    def sync(self, timeout=SYNC_MILLISECONDS):
        query = {"timeout": timeout} | ({"since": self.since} if self.since else {})
        answer = self.call("GET", "/sync", query=query)
        self.since = answer["next_batch"]
        rooms = answer.get("rooms", {})
        # A room may be under leave and invite at once: the invitation is the newer one.
        for room, update in rooms.get("leave", {}).items():
            self.left.add(room)
            self.joined.discard(room)
            self.invites.pop(room, None)
            self.knocks.pop(room, None)
            self.take_timeline(room, update)
        for room, update in rooms.get("join", {}).items():
            self.joined.add(room)
            self.left.discard(room)
            self.invites.pop(room, None)
            self.take_timeline(room, update)
            for event in update.get("ephemeral", {}).get("events", []):
                if event["type"] == "m.typing":
                    self.typing[room] = event["content"]["user_ids"]
                elif event["type"] == "m.receipt":
                    for about, kinds in event["content"].items():
                        for user in kinds.get("m.read", {}):
                            self.receipts[room, user] = about
        for room, update in rooms.get("invite", {}).items():
            self.invites[room] = update["invite_state"]["events"]
        for room, update in rooms.get("knock", {}).items():
            self.knocks[room] = update["knock_state"]["events"]
        for event in answer.get("presence", {}).get("events", []):
            self.presence[event["sender"]] = event["content"]
        self.devices_changed.update(answer.get("device_lists", {}).get("changed", []))
        self.to_device += answer.get("to_device", {}).get("events", [])

    def take_timeline(self, room, update):
        timeline = update.get("timeline", {})
        if timeline.get("limited"):
            self.limited.add(room)
        events = self.timeline.setdefault(room, {})
        for event in update.get("state", {}).get("events", []) + timeline.get("events", []):
            events[event["event_id"]] = event

    def until(self, seen, what):
        """Syncs until `seen` holds; what it came to."""
        end = time.monotonic() + PATIENCE_SECONDS
        while True:
            result = seen()
            if result:
                return result
            if time.monotonic() > end:
                raise AssertionError(f"{self.user_id} never saw {what}")
            self.sync()

    def until_event(self, room, event_id, what="an event"):
        def seen():
            found = self.timeline.get(room, {}).get(event_id)
            # What a gap in the timeline left out is asked for.
            return found or (room in self.limited and self.event(room, event_id))

        return self.until(seen, f"{what} ({event_id}) of {room}")

    def event(self, room, event_id):
        """An event as the server gives it, None if it does not have it."""
        try:
            return self.call("GET", f"/rooms/{quote(room)}/event/{quote(event_id)}")
        except MatrixError as error:
            if error.status != 404:
                raise
            return None

    def retry(self, attempt, what):
        """Asks until the answer is true: for what no sync announces."""
        end = time.monotonic() + PATIENCE_SECONDS
        while True:
            result = attempt()
            if result:
                return result
            if time.monotonic() > end:
                raise AssertionError(f"{self.user_id}: {what}")
            time.sleep(0.1)

    # Rooms

    def create(self, version, invite=(), **settings):
        body = {"room_version": version, "preset": "private_chat", "invite": list(invite), **settings}
        return self.call("POST", "/createRoom", body)["room_id"]

    def say(self, room, text):
        return self.send(room, f"t{next(numbers)}", {"msgtype": "m.text", "body": text})

    def set_state(self, room, kind, content, key=""):
        return self.call("PUT", f"/rooms/{quote(room)}/state/{kind}/{quote(key)}", content)["event_id"]

    def state(self, room):
        """(type, state key): event id"""
        events = self.call("GET", f"/rooms/{quote(room)}/state")
        return {(event["type"], event["state_key"]): event["event_id"] for event in events}

    def content(self, room, kind, key=""):
        """The content of a state event, None if there is none."""
        try:
            return self.call("GET", f"/rooms/{quote(room)}/state/{kind}/{quote(key)}")
        except MatrixError as error:
            if error.status != 404:
                raise
            return None

    def membership(self, room, user):
        return (self.content(room, "m.room.member", user.user_id) or {}).get("membership")

    def join(self, room, *via, **body):
        path = f"/join/{quote(room)}"
        return self.call("POST", path, body, query={"server_name": via, "via": via} if via else None)["room_id"]

    def member(self, room, action, user=None, **body):
        """invite, kick, ban, unban another; leave, forget oneself."""
        body = body | ({"user_id": user.user_id} if user else {})
        return self.call("POST", f"/rooms/{quote(room)}/{action}", body)

    def accept_invite(self, room):
        self.until(lambda: room in self.invites, f"the invitation to {room}")
        self.join(room)
        self.until(lambda: room in self.joined, f"itself in {room}")

    def bodies(self, room, limit=30):
        """The texts of all messages that /messages gives backwards, newest first."""
        events = self.backwards(room, limit)
        return [event["content"].get("body") for event in events if event["type"] == "m.room.message"]

    def backwards(self, room, limit=30):
        found, start = [], None
        while True:
            query = {"dir": "b", "limit": limit} | ({"from": start} if start else {})
            page = self.call("GET", f"/rooms/{quote(room)}/messages", query=query)
            found += page["chunk"]
            start = page.get("end")
            if not start:
                return found

    # Media and devices

    def upload(self, data, kind):
        status, _, text = self.request("POST", "/_matrix/media/v3/upload?filename=x", data, kind)
        assert status == 200, (status, text)
        return json.loads(text)["content_uri"]

    def download(self, uri):
        path = uri.removeprefix("mxc://")
        status, headers, data = self.request("GET", f"/_matrix/client/v1/media/download/{path}")
        assert status == 200, (status, data[:300])
        return headers["Content-Type"], data

    def upload_keys(self, one_time=0):
        keys, signer = device_keys(self.user_id, self.device)
        body = {"device_keys": keys}
        if one_time:
            body["one_time_keys"] = {
                f"signed_curve25519:AAAA{number}":
                    signer.sign(self.user_id, f"ed25519:{self.device}", {"key": f"one-time key {number}"})
                for number in range(one_time)
            }
        self.call("POST", "/keys/upload", body)
        return keys

    def device_keys(self, user):
        """The devices of a user as this user's server knows them."""
        answer = self.call("POST", "/keys/query", {"device_keys": {user.user_id: []}, "timeout": 10000})
        return answer["device_keys"].get(user.user_id, {})

    def send_to_device(self, kind, user, content):
        path = f"/sendToDevice/{kind}/t{next(numbers)}"
        self.call("PUT", path, {"messages": {user.user_id: {user.device: content}}})


def refused(status, action):
    """The error of an action that must be refused with this status."""
    try:
        answer = action()
    except MatrixError as error:
        assert error.status == status, error
        return error.body
    raise AssertionError(f"not refused: {answer}")


def same_state(room, one, other):
    """Waits until both users' servers have the same state of a room."""
    last = ()

    def equal():
        nonlocal last
        last = one.state(room), other.state(room)
        return last[0] == last[1]

    try:
        one.retry(equal, f"the states of {room} never became the same")
    except AssertionError:
        for side, state in zip((one, other), last):
            print(f"only at {side.server.server_name}:", set(state.items()) - set(last[last[0] is state].items()),
                  file=sys.stderr)
        raise
    return last[0]

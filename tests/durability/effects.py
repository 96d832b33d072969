"""The part of the load that reaches from one entity to another, or beside the database: messages to devices, one-time
keys and their claims, receipts, memberships, aliases, media. A lost effect shows as two sides that disagree."""
import hashlib
import json
import random

from hearth import MatrixError, quote
from load import Operation, Sender

KEYS_AT_ONCE = 3
CHECKED_AT_MOST = 20  # files and aliases of one user, so that a round's check does not grow with the test


class Busy(Sender):
    """One user who does everything but send messages. `events` has, by room, the events that senders were acknowledged."""

    def __init__(self, server, number, seed, events):
        super().__init__(server, f"{number}-busy", seed)
        self.events = events
        self.device = self.client.call("GET", "/account/whoami")["device_id"]
        self.hall = None  # a room into which all of them come and go
        self.own = self.client.call("POST", "/createRoom", {"preset": "private_chat", "name": "own"})["room_id"]
        self.others, self.follower = [], None
        self.claims_tried = 0
        self.hall_owner = None
        self.unsure = False

    def next_operation(self):
        self.count += 1
        count, txn = self.count, f"t{self.count}"
        kind = self.random.choice(("to_device", "to_device", "receipt", "receipt", "keys", "claim", "claim", "media",
                                   "hall", "hall", "alias"))
        room = self.random.choice(self.rooms)
        if kind == "receipt" and not self.events.get(room):
            kind = "to_device"
        content = {"count": count}
        if kind == "receipt":
            content = {"event": self.random.choice(self.events[room][-20:])}
        if kind == "claim":
            content = {"of": self.random.randrange(len(self.others))}
            self.claims_tried += 1
        return Operation(kind, room, txn, content)

    def perform(self, operation):
        return getattr(self, f"perform_{operation.kind}")(operation, operation.content.get("count"))

    def perform_to_device(self, operation, count):
        messages = {self.follower: {"*": {"from": self.user_id, "count": count}}}
        self.client.call("PUT", f"/sendToDevice/test.count/{operation.txn}", {"messages": messages})

    def perform_receipt(self, operation, _):
        path = f"/rooms/{quote(operation.room)}/receipt/m.read/{quote(operation.content['event'])}"
        self.client.call("POST", path, {})

    def perform_keys(self, _, count):
        keys = {f"signed_curve25519:{count}x{n}": {"key": f"key {count} {n}"} for n in range(KEYS_AT_ONCE)}
        self.client.call("POST", "/keys/upload", {"one_time_keys": keys})

    def perform_claim(self, operation, _):
        other = self.others[operation.content["of"]]
        wanted = {other.user_id: {other.device: "signed_curve25519"}}
        answer = self.client.call("POST", "/keys/claim", {"one_time_keys": wanted})["one_time_keys"]
        found = answer.get(other.user_id, {}).get(other.device, {})
        return next(iter(found), None)

    def perform_media(self, _, count):
        status, _, text = self.client.request("POST", "/_matrix/media/v3/upload", content_of(self, count), "text/plain")
        if status != 200:
            raise MatrixError("POST", "/upload", status, {"text": text.decode(errors="replace")})
        return json.loads(text)["content_uri"]

    def perform_hall(self, operation, _):
        inside = self.hall in self.client.call("GET", "/joined_rooms")["joined_rooms"]
        operation.content["inside"] = not inside
        action = "leave" if inside else "join"
        self.client.call("POST", f"/rooms/{quote(self.hall)}/{action}", {})

    def perform_alias(self, _, count):
        alias = f"#busy{self.number}-{count}:{self.server.server_name}".replace(" ", "")
        if count % 40 == 0:  # a room has a limited number of them
            self.own = self.client.call("POST", "/createRoom", {"preset": "private_chat", "name": "own"})["room_id"]
        try:
            self.client.call("PUT", f"/directory/room/{quote(alias)}", {"room_id": self.own})
        except MatrixError as error:
            if error.status != 409:
                raise
        return alias, self.own

    def repeat_open(self):
        """What has a transaction id, or is the same when it is done twice."""
        operation = self.open
        if operation is not None and operation.kind in ("to_device", "keys") and not self.attempt(operation):
            self.failures.append(f"no answer to the repetition of {operation}")


def content_of(busy, count):
    seed = f"{busy.user_id} {count}".encode()
    return b"".join(hashlib.sha256(seed + bytes([part])).digest() for part in range(random.Random(seed).randrange(1, 120)))


def done(busy, kind):
    return [operation for operation in busy.done if operation.kind == kind]


def check_busy(busy, follower, histories, everyone):
    """All that must hold of one user's effects."""
    return [f"{busy.user_id}: {problem}" for problem in (
        *check_to_device(busy, follower), *check_keys(busy, everyone), *check_receipts(busy, histories),
        *check_hall(busy), *check_aliases(busy), *check_media(busy))]


def check_to_device(busy, follower):
    """Each acknowledged message came once, in order; one without an answer, repeated, came once as well."""
    got = [count for sender, count in follower.messages if sender == busy.user_id]
    if len(got) != len(set(got)):
        yield f"messages to a device came twice: {sorted(c for c in set(got) if got.count(c) > 1)[:5]}"
    if got != sorted(got):
        yield "messages to a device came in another order"
    lost = {op.content["count"] for op in done(busy, "to_device")} - set(got)
    if lost:
        yield f"acknowledged messages to a device are lost: {sorted(lost)[:5]}"


def check_keys(busy, everyone):
    """No one-time key was handed out twice, and as many are there as were uploaded and not claimed."""
    index = busy.others.index(busy)
    claimed = [op.result for other in everyone for op in done(other, "claim") if op.content["of"] == index and op.result]
    if len(claimed) != len(set(claimed)):
        yield f"one-time keys were handed out twice: {sorted(k for k in set(claimed) if claimed.count(k) > 1)[:5]}"
    uploaded = KEYS_AT_ONCE * len(done(busy, "keys"))
    counts = busy.client.call("POST", "/keys/upload", {})["one_time_key_counts"]
    count = counts.get("signed_curve25519", 0)
    # A claim without an answer may have taken one.
    unanswered = sum(other.claims_tried - len(done(other, "claim")) for other in everyone)
    if not uploaded - len(claimed) - unanswered <= count <= uploaded - len(claimed):
        yield f"{count} one-time keys are there; {uploaded} were uploaded, {len(claimed)} claimed, {unanswered} perhaps"


def check_receipts(busy, histories):
    """A receipt is not behind any that was acknowledged."""
    latest = {}
    for operation in done(busy, "receipt"):
        history = histories.get(operation.room)
        if history is not None:
            ids = [event["event_id"] for event in history]
            if operation.content["event"] in ids:
                latest[operation.room] = max(latest.get(operation.room, 0), ids.index(operation.content["event"]))
    if not latest:
        return
    answer = busy.client.call("GET", "/sync", query={"filter": '{"room":{"timeline":{"limit":1}}}'})
    for room, wanted in latest.items():
        found = None
        for event in answer["rooms"]["join"].get(room, {}).get("ephemeral", {}).get("events", []):
            for event_id, receipts in event["content"].items() if event["type"] == "m.receipt" else ():
                if busy.user_id in receipts.get("m.read", {}):
                    found = event_id
        ids = [event["event_id"] for event in histories[room]]
        if found is None or ids.index(found) < wanted:
            yield f"the receipt in {room} is at {found}, but {ids[wanted]} was acknowledged"


def check_hall(busy):
    """The room and the user's own list agree, and with the last acknowledgement unless something was under way."""
    joined = busy.client.call("GET", "/joined_rooms")["joined_rooms"]
    try:
        path = f"/rooms/{quote(busy.hall)}/state/m.room.member/{quote(busy.user_id)}"
        member = busy.others[0].hall_owner.call("GET", path)["membership"]
    except MatrixError as error:
        member = f"nothing ({error.status})"
    inside = busy.hall in joined
    if inside != (member == "join"):
        yield f"the hall says {member}, the user's list {'has' if inside else 'lacks'} it"
    acked = done(busy, "hall")
    under_way = busy.open is not None and busy.open.kind == "hall"
    if acked and not under_way and acked[-1].content["inside"] != inside and not busy.unsure:
        yield f"the user is {'inside' if inside else 'outside'} the hall, acknowledged was the opposite"
    # What was under way at a kill may have happened or not; what is acknowledged later decides again.
    busy.unsure = under_way


def check_aliases(busy):
    """An alias points to its room, and the room knows it."""
    of_room = {}
    for operation in done(busy, "alias")[-CHECKED_AT_MOST:]:
        alias, room = operation.result
        try:
            found = busy.client.call("GET", f"/directory/room/{quote(alias)}")["room_id"]
        except MatrixError as error:
            found = f"nothing ({error.status})"
        if found != room:
            yield f"the alias {alias} points to {found}, not to {room}"
        if room not in of_room:
            of_room[room] = busy.client.call("GET", f"/rooms/{quote(room)}/aliases")["aliases"]
        if alias not in of_room[room]:
            yield f"the room {room} does not know its alias {alias}"


def check_media(busy):
    """An uploaded file is there as it was."""
    for operation in done(busy, "media")[-CHECKED_AT_MOST:]:
        path = operation.result.removeprefix("mxc://")
        status, _, text = busy.client.request("GET", f"/_matrix/client/v1/media/download/{path}")
        if status != 200 or text != content_of(busy, operation.content["count"]):
            yield f"the file {operation.result} is not as it was: {status}, {len(text)} bytes"

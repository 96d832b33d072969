"""The load for the durability test: senders that write down what was acknowledged and when.

Each sender is one user with one connection and one request at a time, so at a kill each has at most one request
without an answer; it is repeated after the restart with the same transaction id and must then exist once.
"""
import dataclasses
import http.client
import random
import threading
import time

from hearth import Client, MatrixError, quote


@dataclasses.dataclass
class Operation:
    kind: str  # message, state, account, room
    room: str | None
    txn: str
    content: dict
    sent: float = 0.0
    acked: float | None = None
    result: str | None = None  # the event or room id


class Sender:
    """One user under load. `done` has the acknowledged operations, `open` the one without an answer."""

    def __init__(self, server, number, seed):
        self.server, self.number = server, number
        self.random = random.Random(f"{seed}-{number}")
        self.client = Client(server).register(f"sender{number}")
        self.user_id = self.client.user_id
        self.count = 0
        self.done = []
        self.open = None
        self.failures = []
        self.rooms = []
        self.acknowledged = None  # where events that others read are noted, by room
        self.thread = None

    def next_operation(self):
        self.count += 1
        count, txn = self.count, f"t{self.count}"
        dice = self.random.random()
        if dice < 0.02:
            return Operation("room", None, txn, {"name": f"{self.user_id} {count}", "preset": "private_chat"})
        if dice < 0.06:
            return Operation("account", None, txn, {"count": count})
        room = self.random.choice(self.rooms)
        if dice < 0.16:
            return Operation("state", room, txn, {"count": count})
        body = "x" * self.random.choice((10, 100, 100, 100, 1000))
        return Operation("message", room, txn, {"msgtype": "m.text", "body": body, "count": count})

    def perform(self, operation):
        client, user = self.client, self.user_id
        if operation.kind == "message":
            return client.send(operation.room, operation.txn, operation.content)
        if operation.kind == "state":
            path = f"/rooms/{quote(operation.room)}/state/test.counter/{quote(user)}"
            return client.call("PUT", path, operation.content)["event_id"]
        if operation.kind == "account":
            client.call("PUT", f"/user/{quote(user)}/account_data/test.counter", operation.content)
            return None
        return client.call("POST", "/createRoom", operation.content)["room_id"]

    def attempt(self, operation):
        """Performs it and writes the outcome down; False where no answer came."""
        operation.sent = time.monotonic()
        self.open = operation
        try:
            operation.result = self.perform(operation)
        except (OSError, http.client.HTTPException, ValueError):
            return False
        except MatrixError as error:
            # A server in the middle of its end may say 5xx; it acknowledged nothing.
            if error.status < 500:
                self.failures.append(str(error))
            return False
        operation.acked = time.monotonic()
        self.done.append(operation)
        self.open = None
        if operation.kind == "message" and self.acknowledged is not None:
            self.acknowledged.setdefault(operation.room, []).append(operation.result)
        return True

    def start(self):
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        while self.attempt(self.next_operation()):
            pass

    def repeat_open(self):
        """After the restart: the request without an answer again. Not createRoom, which has no transaction id,
        and not state, where the repetition is a second event by the specification."""
        operation = self.open
        if operation is None or operation.kind not in ("message", "account"):
            return
        sent = operation.sent
        if not self.attempt(operation):
            self.failures.append(f"no answer to the repetition of {operation}")
        operation.sent = sent


class Follower:
    """A user that follows /sync and keeps each room's timeline as shown. It must never see what is lost later."""

    def __init__(self, server):
        self.server = server
        self.client = Client(server).register("follower")
        self.since = None
        self.rooms = {}
        self.messages = []  # to its device: sender and count
        self.failures = []
        self.stopped = False
        self.thread = None

    def start(self):
        self.stopped = False
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        while not self.stopped:
            try:
                self.step(1000)
            except (OSError, http.client.HTTPException, ValueError):
                return
            except MatrixError as error:
                if error.status < 500:
                    self.failures.append(str(error))
                return

    def step(self, timeout):
        """One sync, taken in whole or not at all; True if it brought something."""
        query = {"timeout": timeout, "filter": '{"room":{"timeline":{"limit":100}}}'}
        if self.since:
            query["since"] = self.since
        answer = self.client.call("GET", "/sync", query=query)
        news = {}
        for room, update in answer.get("rooms", {}).get("join", {}).items():
            timeline = update.get("timeline", {})
            events = [event["event_id"] for event in timeline.get("events", [])]
            if timeline.get("limited") and self.since and self.rooms.get(room):
                events = self.gap(room, timeline["prev_batch"]) + events
            if events:
                news[room] = events
        for room, events in news.items():
            self.rooms.setdefault(room, []).extend(events)
        messages = [(event["sender"], event["content"]["count"]) for event in answer.get("to_device", {}).get("events", [])]
        self.messages += messages
        self.since = answer["next_batch"]
        return bool(news or messages)

    def gap(self, room, start):
        """What a limited timeline left out: back from its prev_batch to the last event known."""
        last, missing = self.rooms[room][-1], []
        while start:
            query = {"dir": "b", "from": start, "limit": 200}
            page = self.client.call("GET", f"/rooms/{quote(room)}/messages", query=query)
            for event in page["chunk"]:
                if event["event_id"] == last:
                    return missing[::-1]
                missing.append(event["event_id"])
            start = page.get("end")
        self.failures.append(f"{room}: the event {last}, seen before, is not in the room's history")
        return missing[::-1]

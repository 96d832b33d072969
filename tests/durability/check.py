"""What must hold after a restart. Each function gives a list of sentences, empty where all is well."""
from hearth import MatrixError, quote


def check_room(room, history, senders):
    """Acknowledged events of a room: there, once, with their content, in an order that agrees with time."""
    problems = []
    ids = [event["event_id"] for event in history]
    at = {}
    for position, event_id in enumerate(ids):
        if event_id in at:
            problems.append(f"{room}: {event_id} is twice in the history")
        at[event_id] = position
    operations = {}
    for sender in senders:
        for operation in sender.done:
            if operation.room != room or operation.kind not in ("message", "state"):
                continue
            if operation.result not in at:
                problems.append(f"{room}: {sender.user_id}'s acknowledged {operation.kind} {operation.txn} is lost")
                continue
            operations[operation.result] = operation
            content = history[at[operation.result]]["content"]
            if content != operation.content:
                problems.append(f"{room}: {operation.result} has other content: {str(content)[:200]}")
    # No event may stand before one that was acknowledged before it was sent.
    latest_sent, latest = 0.0, None
    for event_id in ids:
        operation = operations.get(event_id)
        if operation is None:
            continue
        if operation.acked < latest_sent:
            problems.append(f"{room}: {event_id} was acknowledged before {latest.result} was sent, but stands after it")
        if operation.sent > latest_sent:
            latest_sent, latest = operation.sent, operation
    return problems + check_once(room, history)


def check_once(room, history):
    """One request makes one event: (sender, count) is unique among messages. So are transaction ids after a repetition."""
    problems, seen = [], set()
    for event in history:
        count = event["content"].get("count")
        if event["type"] == "m.room.message" and count is not None:
            if (event["sender"], count) in seen:
                problems.append(f"{room}: message {count} of {event['sender']} is there twice")
            seen.add((event["sender"], count))
    return problems


def check_state(room, history, client):
    """The current state is what the timeline's state events come to; sync shows the same as /state."""
    problems = []
    folded = {(e["type"], e["state_key"]): e["event_id"] for e in history if "state_key" in e}
    answer = client.call("GET", f"/rooms/{quote(room)}/state")
    current = {(e["type"], e["state_key"]): e["event_id"] for e in answer}
    for key in sorted(set(folded) | set(current)):
        if folded.get(key) != current.get(key):
            problems.append(f"{room}: {key} is {current.get(key)} in the state, {folded.get(key)} by the timeline")
    joined = {e["state_key"] for e in answer
              if e["type"] == "m.room.member" and e["content"].get("membership") == "join"}
    listed = set(client.call("GET", f"/rooms/{quote(room)}/joined_members")["joined"])
    if joined != listed:
        problems.append(f"{room}: joined_members and the state differ: {sorted(joined ^ listed)[:5]}")
    return problems


def check_sender(sender):
    """A user's own data: account data not older than acknowledged, rooms whole, repeated transactions known."""
    problems = []
    client = sender.client
    counts = [op.content["count"] for op in sender.done if op.kind == "account"]
    if counts:
        found = client.call("GET", f"/user/{quote(sender.user_id)}/account_data/test.counter")["count"]
        if found < counts[-1]:
            problems.append(f"{sender.user_id}: account data is {found}, but {counts[-1]} was acknowledged")
    joined = client.call("GET", "/joined_rooms")["joined_rooms"]
    if len(joined) != len(set(joined)):
        problems.append(f"{sender.user_id}: a room is twice in joined_rooms")
    for operation in sender.done:
        if operation.kind == "room" and operation.result not in joined:
            problems.append(f"{sender.user_id}: the acknowledged room {operation.result} is lost")
    for room in joined[-5:]:
        problems += check_whole(sender, room)
    last = next((op for op in reversed(sender.done) if op.kind == "message"), None)
    if last:
        again = client.send(last.room, last.txn, last.content)
        if again != last.result:
            problems.append(f"{sender.user_id}: transaction {last.txn} was {last.result}, repeated it is {again}")
    return problems


def check_whole(sender, room):
    """A room is there with all of createRoom's events, or not at all."""
    try:
        state = {(e["type"], e["state_key"]) for e in sender.client.call("GET", f"/rooms/{quote(room)}/state")}
    except MatrixError as error:
        return [f"{room} is in joined_rooms of {sender.user_id}, but: {error}"]
    wanted = {("m.room.create", ""), ("m.room.power_levels", ""), ("m.room.join_rules", ""),
              ("m.room.history_visibility", ""), ("m.room.name", ""), ("m.room.member", sender.user_id)}
    return [f"{room}: createRoom is there by half, without {sorted(wanted - state)}"] if wanted - state else []


def check_follower(follower, histories):
    """What /sync showed, before the kill and after, is the rooms' history, in its order, without a hole."""
    problems = []
    for room, seen in follower.rooms.items():
        if room not in histories:
            continue
        ids = [event["event_id"] for event in histories[room]]
        if seen[0] not in ids:
            problems.append(f"{room}: sync showed {seen[0]}, which is gone")
            continue
        wanted = ids[ids.index(seen[0]):]
        if wanted != seen:
            at = next((i for i, (a, b) in enumerate(zip(wanted, seen)) if a != b), min(len(wanted), len(seen)))
            problems.append(f"{room}: sync showed {len(seen)} events, the history has {len(wanted)}; at {at} they "
                            f"part: {seen[at:at + 2]} and {wanted[at:at + 2]}")
    return problems

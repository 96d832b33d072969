#!/usr/bin/env python3
"""Two Hearth processes federate over TLS on this machine: every scenario of basics.py both ways round, those of rooms.py
once. Names of scenarios as arguments choose some, also of edges.py, and `rotation`."""
import http.client
import json
import pathlib
import subprocess
import sys
import tempfile
import time

import basics
import edges
import rooms
from peers import Authority, Hearth, remove
from hearth import binary
from user import User


def published_keys(server):
    connection = http.client.HTTPConnection("127.0.0.1", server.port)
    connection.request("GET", "/_matrix/key/v2/server")
    document = json.loads(connection.getresponse().read())
    connection.close()
    return set(document["verify_keys"]), set(document["old_verify_keys"])


def rotation(one, two, authority):
    """The first server gets a new key: the second takes it, and a third can check what the old one signed."""
    alice, bob, room = basics.meet(one, two, "12")
    alice.say(room, "by the old key")
    old, none = published_keys(one)
    one.stop()
    command = [binary(), "--config", str(one.config), "rotate-signing-key"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    one.start()
    alice.close()
    new, former = published_keys(one)
    assert not none and former == old and not new & old, (old, new, former)
    bob.until_event(room, alice.say(room, "by the new key"))
    with Hearth(one.folder.parent / "three", authority) as three:
        three.start()
        carol = User(three, "carol")
        alice.member(room, "invite", carol)
        carol.accept_invite(room)
        carol.retry(lambda: carol.bodies(room) == ["by the new key", "by the old key"], "what the old key signed is missing")


def main():
    wanted = sys.argv[1:]
    folder = pathlib.Path(tempfile.mkdtemp(prefix="hearth-federation-"))
    authority = Authority(folder)
    with Hearth(folder / "one", authority) as one, Hearth(folder / "two", authority) as two:
        one.start(), two.start()
        for scenario in basics.SCENARIOS + rooms.SCENARIOS + edges.SCENARIOS + [rotation]:
            # The others take their time: a server asks for another's keys every ten seconds at most.
            if scenario.__name__ not in wanted if wanted else scenario in [*edges.SCENARIOS, rotation]:
                continue
            started = time.monotonic()
            if scenario is rotation:
                rotation(one, two, authority)
            else:
                scenario(one, two, "12")
            if scenario in basics.SCENARIOS:
                scenario(two, one, "11")
            print(f"two Hearths: {scenario.__name__}: passed ({time.monotonic() - started:.1f} s)", flush=True)
        one.stop(), two.stop()
    remove(folder)


main()

#!/usr/bin/env python3
"""Two Hearth processes federate over TLS on this machine: every scenario of basics.py both ways round, those of rooms.py
once. Names of scenarios as arguments choose some, also of edges.py."""
import pathlib
import sys
import tempfile
import time

import basics
import edges
import rooms
from peers import Authority, Hearth, remove


def main():
    wanted = sys.argv[1:]
    folder = pathlib.Path(tempfile.mkdtemp(prefix="hearth-federation-"))
    authority = Authority(folder)
    with Hearth(folder / "one", authority) as one, Hearth(folder / "two", authority) as two:
        one.start(), two.start()
        for scenario in basics.SCENARIOS + rooms.SCENARIOS + edges.SCENARIOS:
            if scenario.__name__ not in wanted if wanted else scenario in edges.SCENARIOS:
                continue
            started = time.monotonic()
            scenario(one, two, "12")
            if scenario in basics.SCENARIOS:
                scenario(two, one, "11")
            print(f"two Hearths: {scenario.__name__}: passed ({time.monotonic() - started:.1f} s)", flush=True)
        one.stop(), two.stop()
    remove(folder)


main()

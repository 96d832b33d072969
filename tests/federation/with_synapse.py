#!/usr/bin/env python3
"""Hearth and a released Synapse federate on this machine: every scenario of basics.py, rooms.py and edges.py, both ways round,
in the room versions that people use. Names of scenarios as arguments choose some; --keep leaves the servers' folders."""
import os
import pathlib
import sys
import tempfile
import time

import basics
import edges
import rooms
from peers import Authority, Hearth, Synapse, remove

VERSIONS = ["10", "11", "12"]


def main():
    wanted = [name for name in sys.argv[1:] if not name.startswith("--")]
    versions = os.environ.get("VERSIONS", " ".join(VERSIONS)).split()
    folder = pathlib.Path(tempfile.mkdtemp(prefix="hearth-synapse-"))
    authority = Authority(folder)
    failed = []
    with Hearth(folder / "hearth", authority) as hearth, \
            Synapse(folder / "synapse", authority, os.environ["SYNAPSE_PYTHON"]) as synapse:
        hearth.start(), synapse.start()
        for scenario in basics.SCENARIOS + rooms.SCENARIOS + edges.SCENARIOS:
            if wanted and scenario.__name__ not in wanted:
                continue
            for version in versions:
                for near, far in ((hearth, synapse), (synapse, hearth)):
                    started = time.monotonic()
                    what = f"{scenario.__name__}, version {version}, {near.kind} to {far.kind}"
                    try:
                        scenario(near, far, version)
                    except Exception as error:
                        if "--go-on" not in sys.argv:
                            print(f"Synapse: {what}: FAILED", file=sys.stderr, flush=True)
                            raise
                        failed.append(what)
                        print(f"Synapse: {what}: FAILED: {type(error).__name__} {error}", flush=True)
                        for server in (hearth, synapse):
                            server.relay.mend()
                            if server.process.poll() is not None:
                                server.start()
                        continue
                    print(f"Synapse: {what}: passed ({time.monotonic() - started:.1f} s)", flush=True)
        hearth.stop()
    if "--keep" not in sys.argv:
        remove(folder)
    if failed:
        sys.exit(f"{len(failed)} failed:\n" + "\n".join(failed))


main()

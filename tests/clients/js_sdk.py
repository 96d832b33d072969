#!/usr/bin/env python3
"""Starts a real server and runs a script of matrix-js-sdk against it. Usage: js_sdk.py SCRIPT.mjs [PROGRAM ARGUMENT…]

What driver.py says of RESTART and READY holds; READY starts the program, with the server's address first."""
import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "lib"))

import driver  # noqa: E402
from hearth import Server  # noqa: E402
from picture import png  # noqa: E402

LIMIT_SECONDS = 300

with Server() as server:
    server.start()
    picture = server.folder / "picture.png"
    picture.write_bytes(png())
    commands = [["node", str(HERE / sys.argv[1]), server.url, str(picture)]]
    if len(sys.argv) > 2:
        commands.append([sys.argv[2], server.url, *sys.argv[3:]])
    driver.run(server, commands, LIMIT_SECONDS)
    server.stop()

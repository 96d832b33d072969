#!/usr/bin/env python3
"""Starts a real server and runs a script of matrix-js-sdk against it. Usage: js_sdk.py SCRIPT.mjs"""
import pathlib
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "lib"))

from hearth import Server  # noqa: E402
from picture import png  # noqa: E402

LIMIT_SECONDS = 180

with Server() as server:
    server.start()
    picture = server.folder / "picture.png"
    picture.write_bytes(png())
    subprocess.run(["node", str(HERE / sys.argv[1]), server.url, str(picture)], check=True, timeout=LIMIT_SECONDS)
    server.stop()

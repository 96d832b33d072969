#!/usr/bin/env python3
"""Starts a real server and runs go_chat against it. Usage: go_chat.py PROGRAM"""
import pathlib
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "lib"))

from hearth import Server  # noqa: E402

LIMIT_SECONDS = 180

with Server() as server:
    server.start()
    subprocess.run([sys.argv[1], server.url], check=True, timeout=LIMIT_SECONDS)
    server.stop()

#!/usr/bin/env python3
"""Starts a real server and runs the program of rust_sdk/ against it. Usage: rust_sdk.py PROGRAM"""
import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "lib"))

import driver  # noqa: E402
from hearth import Server  # noqa: E402

LIMIT_SECONDS = 600

with Server() as server:
    server.start()
    driver.run(server, [[sys.argv[1], server.url]], LIMIT_SECONDS)
    server.stop()

#!/usr/bin/env python3
"""Starts a real server and runs a script of matrix-js-sdk against it. Usage: js_sdk.py SCRIPT.mjs

Where the script prints RESTART, the server is killed and started again, and the script gets a line."""
import pathlib
import subprocess
import sys
import threading

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "lib"))

from hearth import Server  # noqa: E402
from picture import png  # noqa: E402

LIMIT_SECONDS = 180

with Server() as server:
    server.start()
    picture = server.folder / "picture.png"
    picture.write_bytes(png())
    script = subprocess.Popen(
        ["node", str(HERE / sys.argv[1]), server.url, str(picture)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )
    timer = threading.Timer(LIMIT_SECONDS, script.kill)
    timer.start()
    try:
        for line in script.stdout:
            if line != "RESTART\n":
                sys.stdout.write(line)
                continue
            server.kill()
            server.start()
            script.stdin.write("\n")
            script.stdin.flush()
        if script.wait() != 0:
            raise RuntimeError(f"{sys.argv[1]} ended with {script.returncode}")
    finally:
        timer.cancel()
        script.kill()
    server.stop()

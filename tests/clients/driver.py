"""Runs programs of client libraries against a real server.

Where a program prints RESTART, the server is killed and started again, and the program gets a line. Where it prints
READY, the next program is started beside it."""
import subprocess
import sys
import threading


def run(server, commands, limit_seconds, environment=None):
    """Runs the first command, the others when it is ready for them, until all have ended; fails where one does."""
    waiting = [list(command) for command in commands]
    beside = []
    first = subprocess.Popen(
        waiting.pop(0), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
    )
    timer = threading.Timer(limit_seconds, first.kill)
    timer.start()
    try:
        for line in first.stdout:
            if line == "RESTART\n":
                server.kill()
                server.start()
                first.stdin.write("\n")
                first.stdin.flush()
            elif line == "READY\n":
                beside.append(subprocess.Popen(waiting.pop(0), env=environment))
            else:
                sys.stdout.write(line)
        codes = [first.wait()] + [one.wait(limit_seconds) for one in beside]
        if any(codes):
            raise RuntimeError(f"{commands} ended with {codes}")
        if waiting:
            raise RuntimeError(f"{waiting} was never started")
    finally:
        timer.cancel()
        for one in [first, *beside]:
            one.kill()

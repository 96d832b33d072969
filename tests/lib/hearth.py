"""Starts the real `hearth` binary for tests: temporary folder, free port, bounded waits, and a small
client on http.client. Standard library only."""
import http.client
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse

READY_SECONDS = 60  # a debug build on two busy cores needs a few seconds
STOP_SECONDS = 20


def binary():
    """The binary to test: $HEARTH_BINARY, else the newest build in the target folder."""
    named = os.environ.get("HEARTH_BINARY")
    if named:
        return named
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", "target"))
    builds = [path for kind in ("debug", "release") if (path := target / kind / "hearth").exists()]
    if not builds:
        sys.exit("no hearth binary: set HEARTH_BINARY, or build one (make build)")
    return str(max(builds, key=lambda path: path.stat().st_mtime))


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """One server process. The folder outlives a stop or kill, so that `start` means a restart."""

    def __init__(self, folder=None, server_name="localhost", settings=None, environment=None):
        self.own_folder = folder is None
        self.folder = pathlib.Path(folder or tempfile.mkdtemp(prefix="hearth-test-"))
        self.data = self.folder / "data"
        self.log = self.folder / "hearth.log"
        self.server_name = server_name
        self.port = free_port()
        self.process = None
        self.environment = environment or {}
        values = {
            "server_name": server_name,
            "data_dir": str(self.data),
            "client_listen": f"127.0.0.1:{self.port}",
            "registration": "open",
            "registration_shared_secret": "test",
            "rate_limits": False,
            **(settings or {}),
        }
        self.config = self.folder / "hearth.toml"
        self.config.write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items()))

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def start(self, environment=None):
        """Starts the process and waits until it answers /versions; returns the seconds that took."""
        started = time.monotonic()
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                [binary(), "--config", str(self.config)],
                cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env={**os.environ, **self.environment, **(environment or {})},
            )
        while True:
            if self.process.poll() is not None:
                raise RuntimeError(f"the server ended with {self.process.returncode}:\n{self.tail()}")
            try:
                connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
                connection.request("GET", "/_matrix/client/versions")
                if connection.getresponse().status == 200:
                    return time.monotonic() - started
            except OSError:
                pass
            if time.monotonic() - started > READY_SECONDS:
                self.kill()
                raise RuntimeError(f"the server was not ready in {READY_SECONDS} s:\n{self.tail()}")
            time.sleep(0.01)

    def kill(self):
        """SIGKILL, and wait until the process is gone."""
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        if self.process:
            self.process.wait()

    def stop(self):
        """SIGTERM; the server must end by itself, with status 0, in time."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(STOP_SECONDS)
        if code not in (0, -signal.SIGTERM):
            raise RuntimeError(f"the server ended with {code} on SIGTERM:\n{self.tail()}")

    def tail(self, lines=40):
        if not self.log.exists():
            return "(no log)"
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        self.kill()
        if kind is not None:
            print(f"--- end of the server's log ({self.log})\n{self.tail()}", file=sys.stderr)
        elif self.own_folder:
            shutil.rmtree(self.folder, ignore_errors=True)


class MatrixError(Exception):
    """An answer other than 200."""

    def __init__(self, method, path, status, body):
        super().__init__(f"{method} {path}: {status} {json.dumps(body)[:300]}")
        self.status = status
        self.body = body


class Client:
    """One connection and access token. Not for use by two threads at once."""

    def __init__(self, server, token=None, timeout=60):
        self.server = server
        self.token = token
        self.timeout = timeout
        self.user_id = None
        self.connection = None

    def close(self):
        if self.connection:
            self.connection.close()
        self.connection = None

    def request(self, method, path, data=None, kind=None):
        """One request to an address of the server; status, headers and body of what it answered."""
        if self.connection is None:
            self.connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=self.timeout)
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        if kind:
            headers["Content-Type"] = kind
        try:
            self.connection.request(method, path, data, headers)
            response = self.connection.getresponse()
            return response.status, response.headers, response.read()
        except (OSError, http.client.HTTPException):
            self.close()
            raise

    def call(self, method, path, body=None, query=None, version="v3"):
        """One request to the client API; the parsed answer. Raises MatrixError, or OSError/HTTPException where none came."""
        if query:
            path += "?" + urllib.parse.urlencode(query, doseq=True)
        data = None if body is None else json.dumps(body).encode()
        kind = None if body is None else "application/json"
        status, _, text = self.request(method, f"/_matrix/client/{version}{path}", data, kind)
        answer = json.loads(text or b"{}")
        if status != 200:
            raise MatrixError(method, path, status, answer)
        return answer

    def register(self, name, password="a-long-password"):
        answer = self.call("POST", "/register", {
            "username": name, "password": password, "auth": {"type": "m.login.dummy"},
        })
        self.token, self.user_id = answer["access_token"], answer["user_id"]
        return self

    def send(self, room, txn, content, kind="m.room.message"):
        path = f"/rooms/{quote(room)}/send/{kind}/{quote(txn)}"
        return self.call("PUT", path, content)["event_id"]

    def history(self, room, limit=200):
        """All events of a room that this user sees, oldest first."""
        events, start = [], None
        while True:
            query = {"dir": "f", "limit": limit} | ({"from": start} if start else {})
            page = self.call("GET", f"/rooms/{quote(room)}/messages", query=query)
            events += page["chunk"]
            start = page.get("end")
            if not start:
                return events


def quote(part):
    return urllib.parse.quote(part, safe="")

"""Servers that federate on this machine: a test authority for TLS, a relay before each server that can be closed
like a broken line, and the processes themselves. Standard library only, and `openssl`."""
import json
import os
import pathlib
import select
import shutil
import socket
import subprocess
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "lib"))

from hearth import Server, free_port  # noqa: E402

SYNAPSE_READY_SECONDS = 120
RELAY_BYTES = 64 << 10


class Authority:
    """A certificate authority and the certificate for `localhost` that every server here shows."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.certificate = self.folder / "ca.crt"
        self.server_certificate = self.folder / "server.crt"
        self.server_key = self.folder / "server.key"
        self.openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "30",
                     "-subj", "/CN=Hearth test authority", "-keyout", "ca.key", "-out", "ca.crt")
        self.openssl("req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                     "-subj", "/CN=localhost", "-keyout", "server.key", "-out", "server.csr")
        (self.folder / "server.ext").write_text("subjectAltName=DNS:localhost\nextendedKeyUsage=serverAuth\n")
        self.openssl("x509", "-req", "-days", "30", "-in", "server.csr", "-extfile", "server.ext", "-CA", "ca.crt",
                     "-CAkey", "ca.key", "-set_serial", "2", "-out", "server.crt")

    def openssl(self, *arguments):
        done = subprocess.run(["openssl", *arguments], cwd=self.folder, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"openssl {arguments[0]}: {done.stderr}")


class Relay:
    """Hands connections on to a port while it is open. The server's name has the relay's port, so that closing
    it cuts the server off from its peers while its clients still reach it. A server's own requests leave through its
    peers' relays: a line is cut in both directions by closing both."""

    def __init__(self, target):
        self.target = target
        self.open = True
        self.pairs = set()
        self.lock = threading.Lock()
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                near, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.carry, args=(near,), daemon=True).start()

    def carry(self, near):
        try:
            far = socket.create_connection(("127.0.0.1", self.target), timeout=5)
        except OSError:
            near.close()
            return
        far.settimeout(None)
        pair = (near, far)
        with self.lock:
            carried = self.open
            if carried:
                self.pairs.add(pair)
        try:
            while carried:
                ready, _, _ = select.select(pair, [], [])
                for source in ready:
                    data = source.recv(RELAY_BYTES)
                    if not data:
                        return
                    (far if source is near else near).sendall(data)
        except (OSError, ValueError):
            pass
        finally:
            with self.lock:
                self.pairs.discard(pair)
            near.close()
            far.close()

    def cut(self):
        """Refuses new connections and ends those that there are."""
        with self.lock:
            self.open = False
            for pair in self.pairs:
                for end in pair:
                    try:
                        end.shutdown(socket.SHUT_RDWR)
                    except OSError:
                        pass

    def mend(self):
        self.open = True


class Hearth(Server):
    """A Hearth process whose federation listener is behind a relay."""

    kind = "hearth"

    def __init__(self, folder, authority, settings=None):
        folder = pathlib.Path(folder)
        folder.mkdir()
        listen = free_port()
        self.relay = Relay(listen)
        super().__init__(folder, f"localhost:{self.relay.port}", {
            "federation_listen": f"127.0.0.1:{listen}",
            "tls_certificate": str(authority.server_certificate),
            "tls_key": str(authority.server_key),
            "federation_extra_ca": str(authority.certificate),
            "federation_allow_private_addresses": True,
            "shards": 4,
            **(settings or {}),
        })

    def __exit__(self, kind, error, trace):
        self.relay.cut()
        super().__exit__(kind, error, trace)


class Synapse:
    """A released Synapse with SQLite, as a black box; the same face as `Server` where the tests need it."""

    kind = "synapse"

    def __init__(self, folder, authority, python):
        self.folder = pathlib.Path(folder)
        self.folder.mkdir()
        self.python = python
        self.log = self.folder / "homeserver.log"
        self.process = None
        self.port = free_port()
        listen = free_port()
        self.relay = Relay(listen)
        self.server_name = f"localhost:{self.relay.port}"
        self.config = self.folder / "homeserver.yaml"
        self.config.write_text(json.dumps(self.settings(listen, authority), indent=1))  # JSON is YAML
        self.run("--generate-keys")

    def settings(self, listen, authority):
        plenty = {"per_second": 10000, "burst_count": 10000}
        return {
            "server_name": self.server_name,
            "pid_file": str(self.folder / "pid"),
            "report_stats": False,
            "listeners": [
                {"port": self.port, "bind_addresses": ["127.0.0.1"], "type": "http", "tls": False,
                 "resources": [{"names": ["client"]}]},
                {"port": listen, "bind_addresses": ["127.0.0.1"], "type": "http", "tls": True,
                 "resources": [{"names": ["federation"]}]},
            ],
            "tls_certificate_path": str(authority.server_certificate),
            "tls_private_key_path": str(authority.server_key),
            "federation_custom_ca_list": [str(authority.certificate)],
            "ip_range_blacklist": [], "federation_ip_range_blacklist": [], "ip_range_whitelist": ["127.0.0.0/8", "::1/128"],
            "trusted_key_servers": [],
            "database": {"name": "sqlite3", "args": {"database": str(self.folder / "homeserver.db")}},
            "log_config": str(self.log_config()),
            "media_store_path": str(self.folder / "media"),
            "signing_key_path": str(self.folder / "signing.key"),
            "macaroon_secret_key": "test", "form_secret": "test", "registration_shared_secret": "test",
            "enable_registration": True,
            "enable_registration_without_verification": True,
            "allow_public_rooms_over_federation": True,
            "presence": {"enabled": True},
            # The default waits ten minutes after the first failure; nobody has that time here.
            "federation": {"destination_min_retry_interval": "1s", "destination_max_retry_interval": "4s",
                           "max_short_retries": 1, "client_timeout": "20s"},
            "rc_federation": {"window_size": 1000, "sleep_limit": 10000, "sleep_delay": 1, "reject_limit": 10000,
                              "concurrent": 100},
            "rc_message": plenty, "rc_registration": plenty, "rc_admin_redaction": plenty, "rc_presence": {"per_user": plenty},
            "rc_login": {"address": plenty, "account": plenty, "failed_attempts": plenty},
            "rc_joins": {"local": plenty, "remote": plenty}, "rc_joins_per_room": plenty,
            "rc_invites": {"per_room": plenty, "per_user": plenty, "per_issuer": plenty},
            "room_list_publication_rules": [{"action": "allow"}],
            "rc_media_create": plenty, "rc_room_creation": plenty, "remote_media_download_per_second": "1000M",
        }

    def log_config(self):
        path = self.folder / "log.yaml"
        path.write_text(json.dumps({
            "version": 1,
            "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(name)s %(request)s %(message)s"}},
            "filters": {"context": {"()": "synapse.logging.context.LoggingContextFilter", "request": ""}},
            "handlers": {"file": {"class": "logging.FileHandler", "filename": str(self.log), "formatter": "line",
                                  "filters": ["context"]}},
            "root": {"level": os.environ.get("SYNAPSE_LOG", "INFO"), "handlers": ["file"]},
            "disable_existing_loggers": False,
        }))
        return path

    def run(self, *arguments):
        done = subprocess.run([self.python, "-m", "synapse.app.homeserver", "-c", str(self.config), *arguments],
                              cwd=self.folder, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"synapse {arguments}: {done.stdout}{done.stderr}")

    def start(self):
        started = time.monotonic()
        with open(self.folder / "output", "ab") as output:
            self.process = subprocess.Popen([self.python, "-m", "synapse.app.homeserver", "-c", str(self.config)],
                                            cwd=self.folder, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        while True:
            if self.process.poll() is not None:
                raise RuntimeError(f"synapse ended with {self.process.returncode}:\n{self.tail()}")
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=5):
                    return time.monotonic() - started
            except OSError:
                pass
            if time.monotonic() - started > SYNAPSE_READY_SECONDS:
                self.kill()
                raise RuntimeError(f"synapse was not ready in {SYNAPSE_READY_SECONDS} s:\n{self.tail()}")
            time.sleep(0.1)

    def kill(self):
        if self.process and self.process.poll() is None:
            self.process.kill()
        if self.process:
            self.process.wait()

    def tail(self, lines=40):
        text = "".join(path.read_text(errors="replace") for path in (self.folder / "output", self.log) if path.exists())
        return "\n".join(text.splitlines()[-lines:])

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        self.relay.cut()
        self.kill()
        if kind is not None:
            print(f"--- end of Synapse's log ({self.log})\n{self.tail()}", file=sys.stderr)


def remove(folder):
    shutil.rmtree(folder, ignore_errors=True)

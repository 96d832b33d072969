"""Signed keys of a device, by the `openssl` program."""
import base64
import json
import os
import subprocess
import tempfile


def encode(data):
    return base64.b64encode(data).decode().rstrip("=")


class SigningKey:
    def __init__(self):
        done = subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519"], capture_output=True, check=True)
        self.pem = done.stdout
        done = subprocess.run(["openssl", "pkey", "-pubout", "-outform", "DER"], input=self.pem, capture_output=True, check=True)
        self.public = encode(done.stdout[-32:])

    def sign(self, user, key_id, value):
        """The object with this key's signature."""
        text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
        with tempfile.NamedTemporaryFile() as key, tempfile.NamedTemporaryFile() as message:
            key.write(self.pem), key.flush()
            message.write(text), message.flush()
            done = subprocess.run(["openssl", "pkeyutl", "-sign", "-rawin", "-inkey", key.name, "-in", message.name],
                                  capture_output=True, check=True)
        return {**value, "signatures": {user: {key_id: encode(done.stdout)}}}


def device_keys(user, device):
    """A device's keys and the key that signed them."""
    key = SigningKey()
    keys = {
        "user_id": user, "device_id": device, "algorithms": ["m.olm.v1.curve25519-aes-sha2", "m.megolm.v1.aes-sha2"],
        "keys": {f"curve25519:{device}": encode(os.urandom(32)), f"ed25519:{device}": key.public},
    }
    return key.sign(user, f"ed25519:{device}", keys), key

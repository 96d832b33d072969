#!/bin/sh
# Starts one homeserver of a Complement test, under procdocker and in a real container alike. README.md has the
# contract. It makes a TLS certificate from Complement's authority, writes the configuration and becomes the server.
set -eu
: "${SERVER_NAME:?}"
here=$(cd "$(dirname "$0")" && pwd)
LISTEN_IP=${LISTEN_IP:-0.0.0.0}
DATA_DIR=${DATA_DIR:-/data}
CA_CERT=${CA_CERT:-/complement/ca/ca.crt}
CA_KEY=${CA_KEY:-/complement/ca/ca.key}
APPSERVICE_DIR=${APPSERVICE_DIR:-/complement/appservice}

# The environment of a container is clean, so the target folder is only guessed where nobody says better.
find_binary() {
    for candidate in "${HEARTH_BINARY:-}" "$here/bin/hearth" "${CARGO_TARGET_DIR:-$here/../target}/release/hearth" \
        "$HOME/.cache/hearth/target/release/hearth" /usr/local/bin/hearth; do
        if [ -n "$candidate" ] && [ -x "$candidate" ]; then
            echo "$candidate"
            return
        fi
    done
    echo "start.sh: no server: run make complement-binary, or set HEARTH_BINARY" >&2
    exit 1
}
binary=$(find_binary)

# Anew at each start: a committed container may wake up under another authority.
tls=$DATA_DIR/tls
mkdir -p "$tls"
openssl ecparam -name prime256v1 -genkey -noout -out "$tls/server.key"
openssl req -new -key "$tls/server.key" -subj "/CN=$SERVER_NAME" -out "$tls/server.csr"
printf 'subjectAltName=DNS:%s\nextendedKeyUsage=serverAuth,clientAuth\n' "$SERVER_NAME" > "$tls/server.ext"
openssl x509 -req -sha256 -days 30 -in "$tls/server.csr" -extfile "$tls/server.ext" \
    -CA "$CA_CERT" -CAkey "$CA_KEY" -set_serial "0x$(openssl rand -hex 8)" -out "$tls/server.crt" 2>/dev/null

# Version 11 and unauthenticated media, because that is what Complement's tests expect; no rate limits, because
# its tests are faster than people.
cat > "$DATA_DIR/hearth.toml" <<CONFIG
server_name = "$SERVER_NAME"
data_dir = "$DATA_DIR/db"
client_listen = "$LISTEN_IP:8008"
federation_listen = "$LISTEN_IP:8448"
tls_certificate = "$tls/server.crt"
tls_key = "$tls/server.key"
federation_extra_ca = "$CA_CERT"
federation_allow_private_addresses = true
registration = "open"
registration_shared_secret = "complement"
rate_limits = false
trusted_key_servers = []
default_room_version = "11"
unauthenticated_media = true
CONFIG
# The folder is absent where a test has no application service.
[ -d "$APPSERVICE_DIR" ] && echo "appservice_dir = \"$APPSERVICE_DIR\"" >> "$DATA_DIR/hearth.toml"
# Sections come after all keys of the top level.
cat >> "$DATA_DIR/hearth.toml" <<CONFIG

[session]
# Some of its users have passwords of four letters.
password_min_chars = 4

[server_notices]
localpart = "_server"

[url_preview]
enabled = true
# Complement serves its pages from this machine or from the container's host.
allow_private_networks = ["127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"]
CONFIG

# exec, so that the server itself gets SIGTERM
exec "$binary" --config "$DATA_DIR/hearth.toml"

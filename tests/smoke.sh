#!/usr/bin/env bash
# A walk with curl: register, create a room, send, sync, kill -9, restart, and the history is still there.
set -euo pipefail
binary=${HEARTH_BINARY:?set HEARTH_BINARY to the binary to test}
folder=$(mktemp -d)
pid=
cleanup() {
    status=$?
    [ -n "$pid" ] && kill -9 "$pid" 2>/dev/null || true
    if [ "$status" != 0 ]; then
        echo "smoke: FAILED; the server's log:" >&2
        tail -n 40 "$folder/hearth.log" >&2 || true
    fi
    rm -rf "$folder"
}
trap cleanup EXIT

port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
base=http://127.0.0.1:$port
cat > "$folder/hearth.toml" <<CONFIG
server_name = "localhost"
data_dir = "$folder/data"
client_listen = "127.0.0.1:$port"
registration = "open"
CONFIG

start() {
    "$binary" --config "$folder/hearth.toml" >> "$folder/hearth.log" 2>&1 &
    pid=$!
    for _ in $(seq 600); do
        curl -fs -o /dev/null "$base/_matrix/client/versions" && return 0
        kill -0 "$pid" 2>/dev/null || { echo "smoke: the server ended at its start" >&2; return 1; }
        sleep 0.1
    done
    echo "smoke: not ready after 60 s" >&2
    return 1
}
field() { python3 -c 'import json,sys; print(json.load(sys.stdin)[sys.argv[1]])' "$1"; }
encode() { python3 -c 'import sys,urllib.parse; print(urllib.parse.quote(sys.argv[1], safe=""))' "$1"; }
call() { # call METHOD PATH [BODY]; with the token, if there is one
    curl -sS --fail-with-body -m 30 -X "$1" "$base$2" ${token:+-H "Authorization: Bearer $token"} \
        -H 'Content-Type: application/json' ${3:+-d "$3"}
}

start
token=
curl -fs "$base/" | grep -qi hearth || { echo "smoke: GET / does not name the server" >&2; exit 1; }
curl -fs -o /dev/null "$base/_hearth/health/live"
curl -fs -o /dev/null "$base/_hearth/health/ready"
token=$(call POST /_matrix/client/v3/register \
    '{"username":"smoke","password":"a-long-password","auth":{"type":"m.login.dummy"}}' | field access_token)
room=$(call POST /_matrix/client/v3/createRoom '{"name":"Smoke","preset":"public_chat"}' | field room_id)
room_path=/_matrix/client/v3/rooms/$(encode "$room")
since=$(call GET '/_matrix/client/v3/sync?timeout=0' | field next_batch)
event=$(call PUT "$room_path/send/m.room.message/t1" '{"msgtype":"m.text","body":"still here"}' | field event_id)
again=$(call PUT "$room_path/send/m.room.message/t1" '{"msgtype":"m.text","body":"still here"}' | field event_id)
[ "$event" = "$again" ] || { echo "smoke: a repeated transaction made a second event" >&2; exit 1; }
call GET "/_matrix/client/v3/sync?timeout=5000&since=$(encode "$since")" | grep -qF "$event" \
    || { echo "smoke: sync does not show the message" >&2; exit 1; }

made=$(printf 'another-password' | "$binary" user create beside --password-stdin --config "$folder/hearth.toml")
grep -qF '@beside:localhost is created' <<< "$made" || { echo "smoke: no account beside the running server: $made" >&2; exit 1; }
call POST /_matrix/client/v3/login '{"type":"m.login.password","password":"another-password","identifier":{"type":"m.id.user","user":"beside"}}' \
    | grep -qF '@beside:localhost' || { echo "smoke: the account made beside the server cannot log in" >&2; exit 1; }

kill -9 "$pid"
wait "$pid" 2>/dev/null || true
start
call GET "$room_path/messages?dir=b&limit=50" > "$folder/history"
grep -qF "$event" "$folder/history" && grep -qF 'still here' "$folder/history" \
    || { echo "smoke: the message is gone after kill -9" >&2; exit 1; }
call GET "/_matrix/client/v3/sync?timeout=0&since=$(encode "$since")" | grep -qF "$event" \
    || { echo "smoke: a since token from before the kill does not show the message" >&2; exit 1; }
[ "$(call GET "$room_path/state/m.room.name" | field name)" = Smoke ]
again=$(call PUT "$room_path/send/m.room.message/t1" '{"msgtype":"m.text","body":"still here"}' | field event_id)
[ "$event" = "$again" ] || { echo "smoke: the transaction id was forgotten by the restart" >&2; exit 1; }

kill -TERM "$pid"
for _ in $(seq 200); do kill -0 "$pid" 2>/dev/null || break; sleep 0.1; done
if kill -0 "$pid" 2>/dev/null; then echo "smoke: still running 20 s after SIGTERM" >&2; exit 1; fi
pid=
echo "smoke: passed"

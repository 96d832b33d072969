#!/usr/bin/env bash
# Runs the released clients against $HEARTH_BINARY. Their packages go into the cache; a client whose packages can't
# be installed (no Python venv, no Node 20, no registry) is skipped with a message, anything else is a failure.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/../../scripts/env.sh"
: "${HEARTH_BINARY:?set HEARTH_BINARY to the binary to test}"
export HEARTH_BINARY PYTHONDONTWRITEBYTECODE=1
cache=$HEARTH_CACHE/clients
mkdir -p "$cache"

python_clients() {
    local venv=$cache/venv
    if ! { [ -x "$venv/bin/pip" ] || python3 -m venv "$venv"; } \
        || ! "$venv/bin/pip" install -q -r "$here/requirements.txt"; then
        echo "clients: SKIPPED matrix-nio and mautrix: their packages can't be installed here (python3-venv, PyPI)" >&2
        return 0
    fi
    for script in nio_chat.py mautrix_bridge.py; do
        "$venv/bin/python" "$here/$script"
    done
}

js() {
    local folder=$cache/node major
    major=$(node --version 2>/dev/null | sed 's/^v\([0-9]*\).*/\1/')
    if [ "${major:-0}" -lt 20 ] || ! command -v npm >/dev/null; then
        echo "clients: SKIPPED matrix-js-sdk: it needs Node 20 or later with npm" >&2
        return 0
    fi
    mkdir -p "$folder"
    if ! cmp -s "$here/package-lock.json" "$folder/installed-lock.json"; then
        cp "$here/package.json" "$here/package-lock.json" "$folder/"
        if ! (cd "$folder" && npm ci --silent --no-audit --no-fund); then
            echo "clients: SKIPPED matrix-js-sdk: its packages can't be installed here (npm registry)" >&2
            return 0
        fi
        cp "$here/package-lock.json" "$folder/installed-lock.json"
    fi
    for script in js_sdk_chat.mjs js_sdk_api.mjs js_sdk_crypto.mjs js_sdk_sliding.mjs; do
        HEARTH_NODE_FOLDER=$folder python3 "$here/js_sdk.py" "$script"
    done
}

python_clients
js

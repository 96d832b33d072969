#!/usr/bin/env bash
# Builds and runs go_chat (mautrix-go) against $HEARTH_BINARY. Skipped with a message where there is no Go.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/../../scripts/env.sh"
: "${HEARTH_BINARY:?set HEARTH_BINARY to the binary to test}"
export HEARTH_BINARY PYTHONDONTWRITEBYTECODE=1
if ! command -v go >/dev/null; then
    echo "clients: SKIPPED mautrix-go: there is no Go here" >&2
    exit 0
fi
program=$HEARTH_CACHE/clients/go_chat
# With goolm nothing in C is needed.
(cd "$here/go_chat" && CGO_ENABLED=0 go build -mod=readonly -tags goolm -o "$program" .)
python3 "$here/go_chat.py" "$program"

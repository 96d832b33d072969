#!/usr/bin/env bash
# Builds rust_sdk/ into the cache (some 430 crates: minutes on a fast machine) and runs it against $HEARTH_BINARY: by
# itself, and in conversation with matrix-js-sdk.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/../../scripts/env.sh"
: "${HEARTH_BINARY:?set HEARTH_BINARY to the binary to test}"
export HEARTH_BINARY PYTHONDONTWRITEBYTECODE=1
target=$HEARTH_CACHE/clients/rust_sdk
# Not the caller's flags and target folder: this is a workspace of its own.
CARGO_TARGET_DIR=$target nice -n 15 cargo build --locked --manifest-path "$here/rust_sdk/Cargo.toml"
python3 "$here/rust_sdk.py" "$target/debug/hearth-client-test"
# With matrix-js-sdk, where run.sh has installed its packages.
if [ -d "$HEARTH_CACHE/clients/node/node_modules" ]; then
    export HEARTH_NODE_FOLDER=$HEARTH_CACHE/clients/node
    python3 "$here/js_sdk.py" js_sdk_meet.mjs "$target/debug/hearth-client-test" meet
else
    echo "clients: SKIPPED matrix-sdk with matrix-js-sdk: run tests/clients/run.sh first, it installs the packages" >&2
fi

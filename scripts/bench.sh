#!/usr/bin/env bash
# The micro-benchmarks, then the load program against the real server, all in the release profile.
# Arguments go to the load program (`scripts/bench.sh --scenarios sends,disk`); with any, the
# micro-benchmarks are left out. docs/benchmarks.md says what each figure means.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/env.sh
. scripts/release-env.sh
# The server by itself, as it is run: built together they would have features of each other's, which the profile does not know.
cargo build --release --locked -p hearth-server
cargo build --release --locked -p hearth-benches
if [ $# -eq 0 ]; then
    cargo bench --locked --workspace --bench event --bench resolve --bench state_tree
fi
HEARTH_BINARY="${HEARTH_BINARY:-$CARGO_TARGET_DIR/release/hearth}" exec "$CARGO_TARGET_DIR/release/hearth-load" "$@"

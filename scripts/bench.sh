#!/usr/bin/env bash
# The micro-benchmarks, then the load program against the real server, all in the release profile.
# Arguments go to the load program (`scripts/bench.sh --scenarios sends,disk`); with any, the
# micro-benchmarks are left out. docs/benchmarks.md says what each figure means.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/env.sh
# Built in one go, so that both get the same features and nothing is compiled twice.
cargo build --release --locked --workspace --bins
if [ $# -eq 0 ]; then
    cargo bench --locked --workspace --bench event --bench resolve --bench state_tree
fi
HEARTH_BINARY="${HEARTH_BINARY:-$CARGO_TARGET_DIR/release/hearth}" exec "$CARGO_TARGET_DIR/release/hearth-load" "$@"

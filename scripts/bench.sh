#!/usr/bin/env bash
# Micro-benchmarks, then the load program against a real server, both in the release profile.
# Arguments go to the load program; docs/benchmarks.md says what each figure means.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/env.sh
if [ -d benches ] && [ -f benches/Cargo.toml ]; then
    cargo bench --locked -p hearth-benches
    cargo run --release --locked -p hearth-benches --bin load -- --server "$CARGO_TARGET_DIR/release/hearth" "$@"
else
    echo "benches/ is not in this checkout" >&2
    exit 1
fi

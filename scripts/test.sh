#!/usr/bin/env bash
# Everything that `make test` runs after the set-up, in the order of what fails fastest. All in the dev
# profile, so that each crate is compiled once. HEARTH_QUICK=1 leaves out what needs a running server.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/env.sh

step() { printf '\n== %s\n' "$*"; }

# First, because the end-to-end tests start the server as a process. In one build with the tests: alone the server has
# other features of some dependencies, and nearly everything would be compiled twice.
step "the server's binary and the tests"
cargo build --locked --workspace --bins --tests
export HEARTH_BINARY="${HEARTH_BINARY:-$CARGO_TARGET_DIR/debug/hearth}"

step "unit, integration and layering tests"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
cargo test --workspace --locked 2>&1 | tee "$log"

if [ "${HEARTH_QUICK:-0}" != 1 ]; then
    step "the server as a process"
    tests/smoke.sh
    tests/durability/run.sh short
    tests/clients/run.sh
    tests/federation/run.sh hearths
fi

step "closing lines of cargo test"
grep -E '^(test result:|error)' "$log" || true
awk '/^test result:/ { passed += $4; failed += $6; ignored += $8 }
     END { printf "%d passed, %d failed, %d skipped\n", passed, failed, ignored }' "$log"

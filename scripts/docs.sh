#!/usr/bin/env bash
# Regenerates what is generated from code. The tests that compare these files with the code run in `make test`
# and write them instead when UPDATE_GENERATED is set; the config reference comes from the binary itself.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/env.sh
UPDATE_GENERATED=1 cargo test --workspace --locked -- generated
git status --short docs config || true

#!/usr/bin/env bash
# Regenerates the pages that are generated from code: docs/storage-keys.md and config/hearth.example.toml.
# Each belongs to a test with "generated" in its name, which compares the page with the code in `make test`
# and writes it instead when UPDATE_GENERATED is set.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/env.sh
UPDATE_GENERATED=1 cargo test --workspace --locked -- generated
git status --short docs config || true

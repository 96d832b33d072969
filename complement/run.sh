#!/usr/bin/env bash
# Runs Complement against complement/bin/hearth and writes its outcomes. Fetches nothing; needs
#   COMPLEMENT_DIR   a checkout of Complement whose Go modules are downloaded
#   PROCDOCKER       the procdocker program (with `summarise` beside it), where DOCKER_HOST is not set
# run.sh [PACKAGE...] runs ./tests/csapi or the packages named; -run REGEX and other flags of go test go after --.
# OUT (default complement/results.txt) gets one line per test; KEEP_LOG names a file for go test's JSON.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
: "${COMPLEMENT_DIR:?set COMPLEMENT_DIR to a checkout of Complement}"
: "${PROCDOCKER:?set PROCDOCKER to the procdocker program}"
out=${OUT:-$here/results.txt}
packages=()
while [ $# -gt 0 ] && [ "$1" != -- ]; do packages+=("$1"); shift; done
[ "${1:-}" = -- ] && shift
[ "${#packages[@]}" -gt 0 ] || packages=(./tests/csapi)

work=$(mktemp -d)
daemon=
cleanup() {
    [ -n "$daemon" ] && kill -TERM "$daemon" 2>/dev/null && wait "$daemon" 2>/dev/null
    rm -rf "$work"
}
trap cleanup EXIT

if [ -z "${DOCKER_HOST:-}" ]; then
    # A subnet of its own, so that two runs on one machine do not meet each other's servers.
    HEARTH_CHECKOUT=$(dirname "$here") "$PROCDOCKER" --image "$here/hearth.toml" --socket "$work/docker.sock" \
        --subnet "127.$((100 + $$ % 100)).0.0/16" \
        > "$work/procdocker.log" 2>&1 &
    daemon=$!
    export DOCKER_HOST=unix://$work/docker.sock
    for _ in $(seq 100); do
        [ -S "$work/docker.sock" ] && break
        kill -0 "$daemon" 2>/dev/null || { cat "$work/procdocker.log" >&2; exit 1; }
        sleep 0.1
    done
fi

export COMPLEMENT_BASE_IMAGE=${COMPLEMENT_BASE_IMAGE:-hearth} COMPLEMENT_ENABLE_DIRTY_RUNS=1
log=${KEEP_LOG:-$work/run.json}
(cd "$COMPLEMENT_DIR" && go test -json -count=1 -p 1 -parallel 2 -timeout 60m "$@" "${packages[@]}") > "$log" || true
against=()
[ -f "$out" ] && cp "$out" "$work/before.txt" && against=(--against "$work/before.txt")
"$(dirname "$PROCDOCKER")/summarise" -o "$out" "${against[@]}" "$log"

#!/bin/bash
# Runs SyTest against real servers and says what changed since results.txt. README.md has what it needs.
#   SYTEST_DIR=path/of/sytest HEARTH_BINARY=path/of/hearth tests/sytest/run.sh [tests/30rooms/07ban.pl ...]
# UPDATE=1 adds what passes now to results.txt, after a run of everything.
set -euo pipefail
: "${SYTEST_DIR:?the folder of SyTest}" "${HEARTH_BINARY:?the program of the server}"
here=$(cd "$(dirname "$0")" && pwd)
binary=$(realpath "$HEARTH_BINARY")
work=${WORK:-$(mktemp -d)}
mkdir -p "$work"
work=$(realpath "$work")

export SYTEST_PLUGINS="$here/plugins" SYTEST_RESULTS="$work/results.txt"
export PERL5LIB="${PERL5LIB:+$PERL5LIB:}$here/perl" PERL5OPT="${PERL5OPT:+$PERL5OPT }-MHearth::OldServerModule"
export HEARTH_BINARY="$binary"

cd "$SYTEST_DIR"
echo "sytest: the logs of SyTest and of the servers are in $work" >&2
: > "$SYTEST_RESULTS"
# It fails where any test does; the list says which of them matter.
./run-tests.pl -I Hearth -O lines --all --work-directory "$work" "$@" > "$work/tap.txt" 2> "$work/stderr.txt" || true
if [ ! -s "$SYTEST_RESULTS" ]; then
    tail -n 20 "$work/tap.txt" "$work/stderr.txt" >&2
    echo "sytest: no test was run" >&2
    exit 1
fi

passed() { sed -n 's/^pass\t//p' "$1" | LC_ALL=C sort -u; }
# Of tests with the same name in one file, all must pass.
not_passed() { grep -v '^pass' "$1" | cut -f 2- | LC_ALL=C sort -u; }
passed "$SYTEST_RESULTS" | LC_ALL=C comm -23 - <(not_passed "$SYTEST_RESULTS") > "$work/passed.txt"
cut -f 2- "$SYTEST_RESULTS" | LC_ALL=C sort -u > "$work/run.txt"
lost=$(LC_ALL=C comm -12 "$here/results.txt" "$work/run.txt" | LC_ALL=C comm -23 - "$work/passed.txt")
new=$(LC_ALL=C comm -13 "$here/results.txt" "$work/passed.txt")
for outcome in pass fail skip; do
    printf 'sytest: %s: %d\n' "$outcome" "$(grep -c "^$outcome" "$SYTEST_RESULTS" || true)"
done
[ -z "$new" ] || printf 'sytest: passes now:\n%s\n' "$new"
if [ -n "${UPDATE:-}" ]; then
    LC_ALL=C sort -u -o "$here/results.txt" "$here/results.txt" "$work/passed.txt"
fi
if [ -n "$lost" ]; then
    printf 'sytest: passed before and does not now:\n%s\n' "$lost"
    exit 1
fi

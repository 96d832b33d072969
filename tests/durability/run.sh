#!/usr/bin/env bash
# run.sh short|long: the durability tests. short takes about half a minute and is part of `make test`.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
: "${HEARTH_BINARY:?set HEARTH_BINARY to the binary to test}"
export HEARTH_BINARY PYTHONDONTWRITEBYTECODE=1
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
recorder=$folder/fsync_recorder.so
"${CC:-cc}" -O2 -Wall -shared -fPIC -o "$recorder" "$here/fsync_recorder.c" -ldl -lpthread
python3 "$here/test_recorder.py" "$recorder"
drive() { python3 "$here/durability.py" "$@"; }
case ${1:-short} in
short)
    drive --mode kill --rounds 3 --senders 8 --seconds 1.5
    drive --mode cut --recorder "$recorder" --rounds 2 --senders 8 --seconds 1.5
    drive --mode torn --recorder "$recorder" --rounds 2 --senders 8 --seconds 1.5
    drive --mode cut --recorder "$recorder" --rounds 1 --senders 4 --seconds 1 --lie
    ;;
long)
    for shards in 1 16; do
        drive --mode kill --rounds 20 --senders 32 --seconds 3 --shards "$shards"
        drive --mode cut --recorder "$recorder" --rounds 12 --senders 32 --seconds 3 --shards "$shards"
        drive --mode torn --recorder "$recorder" --rounds 12 --senders 32 --seconds 3 --shards "$shards"
    done
    drive --mode cut --recorder "$recorder" --rounds 1 --senders 4 --seconds 1 --lie
    ;;
*)
    echo "usage: run.sh short|long" >&2
    exit 2
    ;;
esac

#!/usr/bin/env bash
# run.sh hearths|synapse [SCENARIO ...]: several servers as processes that federate over TLS on this machine.
# `hearths` is part of `make test`. `synapse` needs the released Synapse from PyPI, which is put into the cache; where it
# cannot be installed, the run is skipped with a message.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/../../scripts/env.sh"
: "${HEARTH_BINARY:?set HEARTH_BINARY to the binary to test}"
export HEARTH_BINARY PYTHONDONTWRITEBYTECODE=1
if ! command -v openssl >/dev/null; then
    echo "federation: SKIPPED: it needs openssl for certificates" >&2
    exit 0
fi
what=${1:-hearths}
shift || true
case $what in
hearths)
    python3 "$here/two_hearths.py" "$@"
    ;;
synapse)
    venv=$HEARTH_CACHE/synapse
    if ! { [ -x "$venv/bin/pip" ] || python3 -m venv "$venv"; } \
        || ! "$venv/bin/pip" install -q -r "$here/requirements.txt"; then
        echo "federation: SKIPPED Synapse: it can't be installed here (python3-venv, PyPI)" >&2
        exit 0
    fi
    SYNAPSE_PYTHON=$venv/bin/python python3 "$here/with_synapse.py" "$@"
    ;;
*)
    echo "usage: run.sh hearths|synapse [SCENARIO ...]" >&2
    exit 2
    ;;
esac

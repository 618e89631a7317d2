#!/usr/bin/env bash
# Say whether a TCP port can be reached from here: reach.sh ADDRESS PORT
set -euo pipefail
readonly ADDRESS=${1:?an address} PORT=${2:?a port}

if timeout 2 bash -c ": </dev/tcp/$ADDRESS/$PORT" 2>/dev/null; then
    echo "$ADDRESS port $PORT: open"
else
    echo "$ADDRESS port $PORT: shut"
    exit 1
fi

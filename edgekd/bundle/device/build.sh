#!/bin/sh
# Build this bundle's engines on the device that will run them: sh build.sh [MODEL...] [--dry-run]
# TRTEXEC and PYTHON name the two programs where they are not found.
set -eu
cd "$(dirname "$0")"

find_program() { # the first of its arguments that there is
    for name in "$@"; do
        if command -v "$name" >/dev/null 2>&1; then
            command -v "$name"
            return
        fi
    done
    echo "error: none of $* is there" >&2
    exit 3
}

trtexec=${TRTEXEC:-$(find_program trtexec /usr/src/tensorrt/bin/trtexec /usr/local/tensorrt/bin/trtexec /opt/tensorrt/bin/trtexec)}
python=${PYTHON:-$(find_program python3)}
exec "$python" build.py --trtexec "$trtexec" "$@"

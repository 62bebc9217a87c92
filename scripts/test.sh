#!/usr/bin/env bash
# The test suite: bash scripts/test.sh [--all] [pytest arguments]
# --all adds the tests that take minutes.
source "$(dirname "$0")/setup.sh"
marks=(-m "not slow")
if [ "${1:-}" = "--all" ]; then
  marks=()
  shift
fi
"$python" -m ruff check .
"$python" -m ruff format --check .
exec "$python" -m pytest ${marks[@]+"${marks[@]}"} "$@"

#!/usr/bin/env bash
# The test suite: bash scripts/test.sh [--all] [pytest arguments]
# --all adds the tests that take minutes; -n 0 stays in one process, for a debugger.
source "$(dirname "$0")/setup.sh"
marks=(-m "not slow")
if [ "${1:-}" = "--all" ]; then
  marks=()
  shift
fi
"$python" -m ruff check .
"$python" -m ruff format --check .
# Tracing is Python on one core: a second process uses the other.  A file stays whole,
# for its fixtures' trained runs and compiled programs.
exec "$python" -m pytest -n 2 --dist loadfile ${marks[@]+"${marks[@]}"} "$@"

# Sourced by the other scripts: a virtual environment with the library in it.
# Makes .venv once; later calls only check that the dependencies are unchanged.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

find_python() {
  local name
  for name in "${PYTHON:-python3.11}" python3.12 python3.13 python3; do
    if command -v "$name" >/dev/null 2>&1 && "$name" -c \
      'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' 2>/dev/null
    then
      echo "$name"
      return
    fi
  done
  echo "uda_jax: no Python 3.11 to 3.13 was found: install one, or name it: PYTHON=..." >&2
  exit 2
}

stamp=.venv/uda_jax_installed
if [ ! -x .venv/bin/python ]; then
  "$(find_python)" -m venv .venv
fi
if ! cmp -s pyproject.toml "$stamp"; then
  echo "installing uda_jax and its dependencies into .venv (about 1 GB, once) ..."
  .venv/bin/python -m pip install --quiet --disable-pip-version-check -e ".[dev]"
  cp pyproject.toml "$stamp"
fi
python=.venv/bin/python

#!/usr/bin/env bash
# IntraDA's three stages: bash scripts/intrada.sh CONFIG WORKDIR [options]
#
# CONFIG is configs/intrada_*.py, for another stage 3 than `intra` with its name behind a
# colon.  Stage 1 goes to WORKDIR/inter, the ranking to WORKDIR/rank, stage 3 to
# WORKDIR/<its name>.  Repeating the command goes on at the stage that it had reached.
# Options, all as --name=value: --normalize, --easy_fraction, --confidence, --class_share,
# --flip, --scales and --checkpoint are the ranking's; --config.x is both trainings', but what concerns the
# data of source and target only stage 1's; --from_inter starts stage 3 from stage 1.
if [ $# -lt 2 ]; then
  echo "usage: bash scripts/intrada.sh CONFIG WORKDIR [options]" >&2
  exit 2
fi
source "$(dirname "$0")/setup.sh"
config="${1%%:*}" stage="intra" workdir="$2"
case "$1" in *:*) stage="${1#*:}" ;; esac
shift 2
first=() last=() ranking=()
for option in "$@"; do
  case "$option" in
    --normalize | --easy_fraction=* | --confidence=* | --class_share=* | --flip | \
      --scales=* | --checkpoint=*)
      ranking+=("$option") ;;
    --coordinator=* | --num_processes=* | --process_id=* | --debug)
      first+=("$option") last+=("$option") ranking+=("$option") ;;
    --from_inter)
      last+=("--config.init_from=$workdir/inter" "--config.init_new_heads=False") ;;
    --config.source.* | --config.target.* | --config.data.source.* | \
      --config.data.sampling.*=*)
      first+=("$option") ;;
    --config.*=*)
      first+=("$option") last+=("$option") ;;
    *)
      echo "intrada.sh: \"$option\" is no option: write --name=value, see its head." >&2
      exit 2 ;;
  esac
done
last+=("--config.source.root=$workdir/rank/easy.jsonl")
last+=("--config.target.root=$workdir/rank/hard.jsonl")
if [ "$stage" = inter ]; then
  echo "intrada.sh: \":inter\" is stage 1: name a stage 3, such as :intra." >&2
  exit 2
fi
# What is misspelt for stage 3 shows before stage 1 is trained.
"$python" - "$config:$stage" "${last[@]}" <<'PYTHON'
import sys

from uda_jax.config_files import load_config
from uda_jax.errors import UserError

try:
    load_config(sys.argv[1], [x for x in sys.argv[2:] if x.startswith("--config.")])
except UserError as error:
    sys.exit(f"uda_jax: {error}")
PYTHON
"$python" -m uda_jax.main --config "$config:inter" --workdir "$workdir/inter" \
  ${first[@]+"${first[@]}"}
"$python" -m uda_jax.rank --workdir "$workdir/inter" --output "$workdir/rank" \
  ${ranking[@]+"${ranking[@]}"}
"$python" -m uda_jax.main --config "$config:$stage" --workdir "$workdir/$stage" \
  "${last[@]}"

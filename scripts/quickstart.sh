#!/usr/bin/env bash
# Draws two small cities, trains on one, adapts to the other, and says what was gained:
# bash scripts/quickstart.sh
# About five minutes on two cores after the installation.  Repeating it goes on where it
# was stopped; delete runs/source_only_minicity and runs/tufl_minicity to start anew.
source "$(dirname "$0")/setup.sh"
started=$SECONDS
echo "1/2  training on the source city, without adaptation"
"$python" -m uda_jax.main --config configs/source_only_minicity.py \
  --workdir runs/source_only_minicity
echo
echo "2/2  adapting to the target city with TUFL, without its labels"
"$python" -m uda_jax.main --config configs/tufl_minicity.py \
  --workdir runs/tufl_minicity
echo
"$python" - <<'PYTHON'
from uda_jax.metrics import Report

before, after = (
    Report.load(f"runs/{run}_minicity/report.json").miou * 100
    for run in ("source_only", "tufl")
)
print(f"mIoU on the target city, 13 classes, 100 test images it never trained on:")
print(f"  source-only  {before:5.2f}")
print(f"  TUFL         {after:5.2f}   ({after - before:+.2f} points, no target labels)")
PYTHON
echo "took $(((SECONDS - started) / 60)) min $(((SECONDS - started) % 60)) s;" \
  "open runs/tufl_minicity/report.html"

#!/usr/bin/env bash
# Three nights on the shipped sample: new files arrive, the density state takes them in, the selection grows.
#   conf/three_nights.sh [folder, default out/nights] [picks a night, default 50] [--overwrite]
# With --overwrite all nights are run again, as for a backfill from the first on.
set -euo pipefail
cd "$(dirname "$0")/.."
nights=${1:-out/nights} budget=${2:-50} python=${PYTHON:-.venv/bin/python} more=("${@:3}")

mkdir -p "$nights/embeddings"
for night in 1 2 3; do
  # A night's files arrive.
  $python - "$nights/embeddings" "$night" <<'PYTHON'
import sys
from pathlib import Path

import pyarrow.dataset as ds
import pyarrow.parquet as pq

folder, night = Path(sys.argv[1]), int(sys.argv[2])
rows = ds.dataset("tests/data/sample").to_table()
share = len(rows) // 3
if not (folder / f"night={night}").exists():
    (folder / f"night={night}").mkdir()
    pq.write_table(rows.slice((night - 1) * share, share), folder / f"night={night}" / "part-0.parquet")
PYTHON

  # The state takes them in, at a cost in proportion to the new rows; the result holds the density of all.
  if [ "$night" = 1 ]; then state=(--save-state "$nights/state"); else state=(--update "$nights/state"); fi
  $python jobs/estimate_density.py --input "$nights/embeddings/night=$night" "${state[@]}" --output "$nights/density-$night" "${more[@]}"

  # The selection grows by the night's budget, away from all that was selected before.
  if [ "$night" = 1 ]; then before=(); else before=(--already-selected "$nights/selected-*/selected"); fi
  $python jobs/select_subset.py --input "$nights/embeddings" --density "$nights/density-$night" "${before[@]}" \
    --budget "$budget" --output "$nights/selected-$night" --text-column text "${more[@]}"
done

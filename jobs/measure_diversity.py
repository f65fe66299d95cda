"""Measure how diverse data sets of Parquet embeddings are: NovelSum, over a grid of settings.

For example:

    .venv/bin/python jobs/measure_diversity.py --input /data/a --input /data/b \\
        --reference /data/pool --output out/measured
"""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))

from novelsum.command import main

if __name__ == "__main__":
    sys.exit(main("measure_diversity", __doc__))

"""Estimate the density factor of every sample: Parquet embeddings in, id and density out.

For example:

    .venv/bin/python jobs/estimate_density.py --input /data/night --output /density/night
"""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))

from novelsum.command import main

if __name__ == "__main__":
    sys.exit(main("estimate_density", __doc__))

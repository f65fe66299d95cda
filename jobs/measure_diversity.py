"""Measure how diverse data sets of Parquet embeddings are: NovelSum, over a grid of settings."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))

from novelsum import console

if __name__ == "__main__":
    sys.exit(console.job("measure_diversity"))

"""Select from a small table of distances and print every round with all its numbers. Needs no Spark."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))

from novelsum import console

if __name__ == "__main__":
    sys.exit(console.job("explain_novelty"))

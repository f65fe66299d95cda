"""Select a diverse subset by NovelSelect, with density factors that estimate_density wrote."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))

from novelsum import console

if __name__ == "__main__":
    sys.exit(console.job("select_subset"))

"""Select a diverse subset of embeddings, or of texts that are embedded: density factors, then NovelSelect."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))

from novelsum import console

if __name__ == "__main__":
    sys.exit(console.job("curate"))

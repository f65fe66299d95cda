"""Select a diverse subset of Parquet embeddings: density factors, then NovelSelect.

For example:

    .venv/bin/python jobs/curate.py --input /data/night --output /curated/share --budget 5%
"""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))

from novelsum.command import main

if __name__ == "__main__":
    sys.exit(main("curate", __doc__))

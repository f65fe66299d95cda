"""Select a diverse subset by NovelSelect, with density factors that estimate_density wrote.

For example:

    .venv/bin/python jobs/estimate_density.py --input /data/night --output /density/before
    .venv/bin/python jobs/select_subset.py --input /data/night --density /density/before \\
        --output /curated/selected --budget 10000
"""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))

from novelsum.command import main

if __name__ == "__main__":
    sys.exit(main("select_subset", __doc__))

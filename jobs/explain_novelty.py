"""Select from a small table of distances and print every round with all its numbers. Needs no Spark.

For example:

    .venv/bin/python jobs/explain_novelty.py --distances docs/worked-example.csv \\
        --neighbors 2 --proximity-power 1 --density-power 1 --first x1 --budget 3
"""

import json
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))

from novelsum.errors import InputError, UsageError
from novelsum.explain import as_text, explain, read_distances
from novelsum.settings import parse_explain


def main() -> int:
    try:
        given = parse_explain(__doc__)
        labels, distances = read_distances(given.distances)
        explanation = explain(
            labels,
            distances,
            formula=given.formula,
            neighbors=given.neighbors,
            proximity_power=given.proximity_power,
            density_power=given.density_power,
            first=labels[0] if given.first is None else given.first,
            budget=len(labels) if given.budget is None else given.budget,
        )
    except (UsageError, InputError) as error:
        print("error:", error, file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 3
    print(json.dumps(explanation.as_data(), indent=1, ensure_ascii=False) if given.json else as_text(explanation))
    return 0


if __name__ == "__main__":
    sys.exit(main())

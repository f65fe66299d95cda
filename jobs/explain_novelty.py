"""Select from a small table of distances and print every round with all its numbers. Needs no Spark."""

import json
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))

from novelsum.errors import InputError, UsageError
from novelsum.explain import as_text, explain, read_distances
from novelsum.settings import Parser, at_least, non_negative


def main() -> int:
    parser = Parser(prog="explain_novelty.py", description=__doc__, allow_abbrev=False)
    parser.add_argument(
        "--distances",
        required=True,
        metavar="FILE.csv",
        help="labelled square table: a header row, a label first",
    )
    parser.add_argument("--neighbors", type=at_least(1), default=10, metavar="N", help="K (default: 10)")
    parser.add_argument("--proximity-power", type=non_negative, default=1.0, metavar="X", help="κ1 (default: 1)")
    parser.add_argument("--density-power", type=non_negative, default=0.5, metavar="X", help="κ2 (default: 0.5)")
    parser.add_argument("--first", metavar="LABEL", help="the first pick (default: the first point of the table)")
    parser.add_argument("--budget", type=at_least(1), metavar="N", help="how many to pick (default: all)")
    parser.add_argument("--json", action="store_true", help="print data instead of text")
    try:
        given = parser.parse_args()
        labels, distances = read_distances(given.distances)
        explanation = explain(
            labels,
            distances,
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

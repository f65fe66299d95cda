"""What a run of measure_diversity answers: in sentences, as rows of its tables, and as a terminal shows it."""

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from novelsum.diversity.measuring import Measured
from novelsum.diversity.novelsum import Value
from novelsum.diversity.ranking import Ranked, against_random, contradictions, setting_in_words, verdict
from novelsum.files.store import Pool
from novelsum.report.summary import aligned
from novelsum.report.text import printed
from novelsum.settings import MeasureSettings

_WHOLE = ("rows", "duplicates_dropped", "measured_rows", "neighbors", "rank", "compared_rows", "random_rows")
_TEXT = ("input", "formula")
_WIDTH = 1 << 14


@dataclass(frozen=True)
class Told:
    """The sentences: who leads, how sets are beside random subsets, what speaks against it, and what to know of it."""

    verdict: list[str]
    random: list[str]
    contradictions: list[str]
    notes: list[str]

    @property
    def all(self) -> list[str]:
        """In the order in which they are read."""
        return [*self.verdict, *self.random, *self.contradictions, *self.notes]


def names_of(paths: Sequence[str], known: Mapping[str, str] | None = None) -> list[str]:
    """What data sets are called: as ``known``, or by the last part of their path, by all of it where that is shared."""
    last = [(known or {}).get(path) or re.sub(r"/+$", "", path).rpartition("/")[2] or path for path in paths]
    return [path if last.count(name) > 1 else name for path, name in zip(paths, last, strict=True)]


def tell(settings: MeasureSettings, found: Sequence[Measured], ranked: Sequence[Ranked], pool: int | None) -> Told:
    """``found`` by the number of the set; ``pool``: the rows that random subsets were drawn from."""
    grid = found[0].values
    of_pool = "the reference" if settings.reference else "all sets together"
    alone = [found[one.number].values[0].mean for one in ranked]
    return Told(
        [verdict(ranked, grid[0])],
        [against_random(one, of_pool) for one in ranked if one.yardstick is not None],
        contradictions(ranked, grid, alone) if len(ranked) > 1 else [],
        _notes(settings, grid[0], ranked, pool, of_pool),
    )


def _notes(
    settings: MeasureSettings, leading: Value, ranked: Sequence[Ranked], pool: int | None, of_pool: str
) -> list[str]:
    notes = []
    if len({one.rows for one in ranked}) > 1:
        notes.append(
            "The sets differ in size, and NovelSum and its mean grow with the number of rows: sums are not shown, and "
            f"the ranking is by random subsets of {ranked[0].compared.rows:,} rows."
        )
    if pool is None:
        why = (
            "--random-subsets 0 leaves them out"
            if not settings.random_subsets
            else "name a pool with --reference, or measure several sets at once"
        )
        notes.append(f"Nothing is compared with random subsets: {why}.")
    else:
        notes += [
            f"{one.name} is as large as {of_pool}, {pool:,} rows, so that no random subset is another."
            for one in ranked
            if one.yardstick is None
        ]
    if settings.reference is None and any(settings.density_powers):
        notes.append(
            "With κ2 above 0 and no --reference each set is its own measure of density, by which its outliers count "
            "for little, not for much; the authors of NovelSum advise to leave density out then (--density-power 0)."
        )
    elif not leading.density_power:
        without = "" if settings.reference else " without a reference"
        notes.append(f"κ2 is 0{without}: density does not count, distances alone do.")
    notes.append(
        "Intervals (95%) say how far a mean would move had the rows been others of their kind; where they overlap, "
        "sets are not told apart."
    )
    return notes


# --- tables -----------------------------------------------------------------------------------------------


def rows_of(
    settings: MeasureSettings, pools: Sequence[Pool], found: Sequence[Measured], ranked: Sequence[Ranked]
) -> list[dict[str, Any]]:
    """A row for each data set and combination of settings; what only the first combination has is None for others."""
    by_number = {one.number: one for one in ranked}
    rows = []
    for number, (path, pool, result) in enumerate(zip(settings.input, pools, found, strict=False)):
        one, yardstick = by_number[number], by_number[number].yardstick
        for at, value in enumerate(result.values):
            low, high = one.compared.interval if at == 0 else (None, None)
            rows.append(
                {
                    "input": path,
                    "rows": result.rows,
                    "duplicates_dropped": pool.duplicates_dropped,
                    "measured_rows": result.measured,
                    "mean_nearest_distance": result.mean_nearest_distance,
                    "formula": value.formula,
                    "neighbors": value.neighbors,
                    "proximity_power": value.proximity_power,
                    "density_power": value.density_power,
                    "novelsum_sum": value.sum,
                    "novelsum_mean": value.mean,
                    "mean_low": value.mean_low,
                    "mean_high": value.mean_high,
                    "mean_pair_distance": result.figures.spread.pair,
                    "coverage": result.figures.spread.coverage,
                    "rank": one.rank if at == 0 else None,
                    "compared_rows": one.compared.rows,
                    "compared_mean": one.compared.values[at],
                    "compared_low": low,
                    "compared_high": high,
                    "random_rows": yardstick.rows if yardstick else None,
                    "random_mean": yardstick.means[at] if yardstick else None,
                    "random_deviation": yardstick.deviations[at] if yardstick else None,
                    "above_random": yardstick.above(one.own, at) if yardstick and one.own else None,
                }
            )
    return rows


def as_table(rows: list[dict[str, Any]]) -> pa.Table:
    """The rows in types that do not hang on what was asked for."""
    kinds = {name: pa.int64() if name in _WHOLE else pa.string() if name in _TEXT else pa.float64() for name in rows[0]}
    return pa.Table.from_pylist(rows, pa.schema(list(kinds.items())))


def lines_of(ranked: Sequence[Ranked], found: Sequence[Measured], told: Told) -> list[str]:
    """Ranking, sentences, and NovelSum of all rows of each set, for a terminal."""
    leading = found[0].values[0]
    size = ranked[0].compared.rows
    cells = [["rank", "mean", "95% interval", "rows", "its mean", "random", "sd above", "set"]]
    for one in ranked:
        low, high = one.compared.interval
        random, own, above = one.yardstick, one.own, one.above_random
        cells.append(
            [
                str(one.rank),
                f"{one.compared.values[0]:.6g}",
                f"{low:.6g} to {high:.6g}",
                str(random.rows if random else one.rows),
                f"{own.values[0]:.6g}" if own else "none",
                f"{random.means[0]:.6g}" if random else "none",
                "none" if above is None else f"{above:+.1f}",
                printed(one.name, _WIDTH),
            ]
        )
    lines = [
        f"mean NovelSum ({setting_in_words(leading)}) at {size:,} rows; then at its own, beside random subsets",
        *aligned(cells),
        "",
    ]
    lines += [printed(sentence, _WIDTH) for sentence in told.all]
    same_size = len({one.rows for one in ranked}) == 1
    cells = [
        [*("formula", "K", "κ1", "κ2", *(["NovelSum"] * same_size), "mean", "measured", "nearest", "rows", "set")],
    ]
    for one in sorted(ranked, key=lambda one: one.number):
        result = found[one.number]
        for value in result.values:
            exact = result.measured == result.rows
            cells.append(
                [
                    value.formula,
                    str(value.neighbors),
                    f"{value.proximity_power:g}",
                    f"{value.density_power:g}",
                    *([f"{value.sum:.6g}"] * same_size),
                    f"{value.mean:.6g}",
                    "exact" if exact else f"{value.mean_low:.6g} to {value.mean_high:.6g}",
                    f"{result.mean_nearest_distance:.6g}",
                    str(result.rows),
                    printed(one.name, _WIDTH),
                ]
            )
    return [*lines, "", "all rows of each set", *aligned(cells)]


def print_answer(lines: Sequence[str]) -> None:
    """On standard output."""
    print("\n".join(lines), file=sys.stdout)

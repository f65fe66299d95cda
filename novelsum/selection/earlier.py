"""Picks of an earlier result of the same run with another budget, from which a selection goes on."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark import SparkContext

from novelsum.density.factors import read_density
from novelsum.files.location import Location
from novelsum.files.store import Block, Pool, read_block_columns
from novelsum.formula import Array
from novelsum.formulas import Equation
from novelsum.rows import Integers
from novelsum.spark.matching import search

logger = logging.getLogger("novelsum")


@dataclass(frozen=True)
class Earlier:
    """Picks in their order: rows (n,) and v when each was picked (n,)."""

    rows: Integers
    novelty: Array

    def sums(self, equation: Equation, begun: int, scale: float) -> Array:
        """Their sums (n,) in the units of a selection that began with so many samples, to the last digit.

        v is a sum over what it is divided by, rounded, times a power of two; the sum is near v times all that.
        """
        divisor = np.array([equation.divisor(begun + place) for place in range(len(self.rows))], np.float64)
        near = self.novelty / scale * divisor
        sums = near
        for towards in (np.inf, -np.inf):
            other = near
            for _ in range(2):
                other = np.nextafter(other, towards)
                is_better = (sums / divisor * scale != self.novelty) & (other / divisor * scale == self.novelty)
                sums = np.where(is_better, other, sums)
        return sums


def earlier_picks(
    context: SparkContext,
    pool: Pool,
    factors: Location,
    selected: Location,
    id_column: str,
    first: int | None,
    most: int,
) -> Earlier | None:
    """The first ``most`` picks of a result in a folder, if they are candidates with the same density factors.

    ``first``: the row that the selection begins with, if it does not begin with samples.
    """
    columns = [id_column, "pick", "novelty", "density"]
    files = [file for file in selected.entries() if file.name.endswith(".parquet")]
    table = pa.concat_tables([file.read_parquet(columns) for file in files]).sort_by("pick")[:most]
    ids, density = table.column(id_column).to_pylist(), table.column("density").to_pylist()
    parts: Sequence[dict[Any, tuple[int, float]]] = search(
        context, pool.blocks, frozenset(ids), partial(_rows_of, pool.work, factors)
    )
    found = {id_: row for part in parts for id_, row in part.items()}
    same = [id_ for id_, value in zip(ids, density, strict=True) if found.get(id_, (-1, None))[1] == value]
    if len(same) < len(ids) or (first is not None and found[ids[0]][0] != first):
        logger.warning(
            "%d of the %d picks of %s are candidates with the same density; the selection begins anew",
            *(len(same), len(ids), selected),
        )
        return None
    novelty = table.column("novelty").to_numpy()
    return Earlier(np.array([found[id_][0] for id_ in ids], np.int64), np.asarray(novelty, np.float64))


def _rows_of(
    work: Location, factors: Location, wanted: frozenset[Any], block: Block
) -> Iterator[dict[Any, tuple[int, float]]]:
    """Row and density factor of those of a block that have a wanted id."""
    table = read_block_columns(work, block.name, ["row", "id"])
    density = read_density(factors, block.name).density.tolist()
    of_each = zip(*(table.column(name).to_pylist() for name in ("id", "row")), density, strict=True)
    yield {id_: (row, value) for id_, row, value in of_each if id_ in wanted}

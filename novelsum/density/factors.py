"""Density factors as they lie in the folder of their step, what a selection asks of them, how they become a result."""

from collections import Counter
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark import SparkContext

from novelsum.errors import InputError
from novelsum.files.location import Location
from novelsum.files.store import Block, Pool, read_block
from novelsum.formulas import EQUATIONS
from novelsum.settings import Settings

LARGEST_POWERED = 1e150
"""A density factor to the power κ2 must stay below this, for sums over distances to stay finite."""
_BINS_PER_DECADE = 1000


@dataclass(frozen=True)
class BlockDensity:
    """Density factors of a block's candidates in the order of the block.

    ``density`` (n,) is σ before the power κ2; ``kth_distance`` (n,) the distance to the K-th neighbour
    (in the formula's space of neighbours), NaN where the density was given and not computed.
    """

    density: NDArray[np.float64]
    kth_distance: NDArray[np.float64]


def write_density(factors: Location, name: str, density: BlockDensity) -> None:
    """Write the density factors of the block of that name to the folder ``factors``."""
    table = pa.table({"density": density.density, "kth_distance": density.kth_distance})
    (factors / "density" / name).write_parquet(table)


def read_density(factors: Location, name: str) -> BlockDensity:
    """Read the density factors of the block of that name."""
    table = (factors / "density" / name).read_parquet()
    return BlockDensity(table.column("density").to_numpy(), table.column("kth_distance").to_numpy())


def require_enough_neighbors(corpus: Pool, settings: Settings) -> None:
    """Raise InputError unless every candidate has K others in the corpus to be its neighbours."""
    among_distinct = EQUATIONS[settings.formula].among_distinct
    points = corpus.distinct if among_distinct else corpus.candidates
    if settings.neighbors >= points:
        kind = "distinct embeddings" if among_distinct else "candidates"
        kind += " of the reference" if settings.reference else ""
        if corpus.near_duplicates_dropped:
            kind += f" without the {corpus.near_duplicates_dropped} near-copies that --near-duplicates drops"
        raise InputError(
            f"--neighbors {settings.neighbors} must be below the number of {kind}, which is {points}: "
            "a point is not its own neighbour; ask for fewer"
        )


def require_finite_powers(pool: Pool, factors: Location, settings: Settings) -> float:
    """Raise InputError when a density factor to the power κ2 is no positive finite number; return the median factor.

    The median is known to a thousandth or so, and the same for any blocks.
    """
    bins: Counter[int] = Counter()
    for block in pool.blocks:
        density = read_density(factors, block.name).density
        require_finite_power(density, settings.density_power)
        found, counts = np.unique(np.floor(np.log10(density) * _BINS_PER_DECADE).astype(int), return_counts=True)
        bins.update(dict(zip(found.tolist(), counts.tolist(), strict=True)))
    ordered = sorted(bins)
    middle = np.searchsorted(np.cumsum([bins[bin_] for bin_ in ordered]), bins.total() / 2)
    return float(10 ** ((ordered[int(middle)] + 0.5) / _BINS_PER_DECADE))


def require_finite_power(density: NDArray[np.float64], density_power: float) -> None:
    """Raise InputError when one of some density factors to that power is no positive finite number."""
    with np.errstate(over="ignore", under="ignore"):
        powered = np.array([density.min(), density.max()]) ** density_power
    if not (powered[0] > 0 and powered[1] < LARGEST_POWERED):
        raise InputError(
            f"--density-power {density_power:g} takes density factors between {density.min():g} and "
            f"{density.max():g} out of the range of numbers; use a smaller power or scale the embeddings"
        )


def write_density_result(
    context: SparkContext, pool: Pool, factors: Location, id_column: str, folder: Location
) -> None:
    """Write id, density and distance to the K-th neighbour of every candidate, a file for each block."""
    folder.make_folder()
    blocks = context.parallelize(pool.blocks, len(pool.blocks))
    blocks.foreach(partial(_write_result, pool.work, factors, id_column, folder))


def _write_result(work: Location, factors: Location, id_column: str, folder: Location, block: Block) -> None:
    density = read_density(factors, block.name)
    columns = {
        id_column: read_block(work, block.name).ids,
        "density": density.density,
        "kth_distance": density.kth_distance,
    }
    (folder / f"part-{block.name}").write_parquet(pa.table(columns))

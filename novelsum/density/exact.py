"""The density factor of every candidate, over the pool itself or over a reference.

The exact search is here: each task holds one block of candidates and streams the whole corpus past it. The search
that looks into near cells only is :mod:`novelsum.density.near`.
"""

from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

import numpy as np
from pyspark import SparkContext

from novelsum.density.axes import SAMPLE_ROWS, Axes, evenly
from novelsum.density.factors import BlockDensity, write_density
from novelsum.density.near import approximate_density, approximate_is_cheaper
from novelsum.density.neighbors import NearestDistances, Sought
from novelsum.density.reference import read_itself
from novelsum.files.location import Location
from novelsum.files.store import Pool, read_block
from novelsum.settings import Settings
from novelsum.spark.progress import collect


def estimate_density(
    context: SparkContext,
    pool: Pool,
    settings: Settings,
    factors: Location,
    reference: Pool | None = None,
    for_state: bool = False,
) -> dict[str, Any]:
    """Write the density factor of every candidate to the folder ``factors``; return what the manifest says of it.

    ``for_state``: lay the candidates out by cells also where all of those are searched.
    """
    sought = Sought(settings.formula, settings.metric, settings.neighbors, reference is not None)
    corpus = reference or pool
    method = settings.density_method
    if method == "auto":
        method = "approximate" if approximate_is_cheaper(pool, corpus) else "exact"
    if method == "approximate" or for_state:
        target = settings.target_recall if method == "approximate" else 1.0
        return approximate_density(context, pool, corpus, sought, target, factors)
    (factors / "density").make_folder()
    names = [block.name for block in pool.blocks]
    corpus_names = [block.name for block in corpus.blocks]
    task = partial(_estimate_blocks, pool.work, names, corpus.work, corpus_names, sought, factors)
    blocks = context.parallelize(range(len(names)), len(names))
    collect(blocks.mapPartitions(task), "density")
    return {"method": "exact"}


def _estimate_blocks(
    work: Location,
    names: list[str],
    corpus_work: Location,
    corpus_names: list[str],
    sought: Sought,
    factors: Location,
    blocks: Iterable[int],
) -> Iterator[int]:
    """Write the density factors of the blocks; yield the rows of each."""
    for number in blocks:
        block = read_block(work, names[number])
        queries = sought.of(block.vectors)
        axes = Axes.of(queries.array(evenly(len(queries), SAMPLE_ROWS)))
        nearest = NearestDistances(queries, sought.count, None if sought.holds_queries else block.rows, axes=axes)
        first = number % len(corpus_names)
        for other in corpus_names[first:] + corpus_names[:first]:
            corpus = read_block(corpus_work, other)
            wanted = np.flatnonzero(corpus.distinct) if sought.among_distinct else slice(None)
            nearest.add(sought.of(corpus.vectors[wanted]), corpus.rows[wanted])
        itself = read_itself(work, names[number]) if sought.reference else None
        density, kth = sought.density(sought.of_neighbors(nearest.squared, itself))
        write_density(factors, names[number], BlockDensity(density, kth))
        yield len(block.rows)

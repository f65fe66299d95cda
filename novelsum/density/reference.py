"""Which candidates a reference holds too, so that none is its own neighbour."""

from dataclasses import replace
from functools import partial

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark import SparkContext

from novelsum.errors import InputError
from novelsum.files.location import Location
from novelsum.files.source import require_same_ids
from novelsum.files.store import Pool
from novelsum.settings import Settings
from novelsum.spark.matching import embeddings, keyed_rows, matched


def mark_itself(context: SparkContext, pool: Pool, reference: Pool, settings: Settings) -> Pool:
    """Find the candidates that the reference holds too, so that none is its own neighbour; return the pool so marked.

    With duplicates dropped an equal embedding is the candidate itself, as one of them stands for all; with duplicates
    kept its id must be equal as well. Raises InputError when embeddings or ids cannot be compared.
    """
    if reference.dimension != pool.dimension:
        raise InputError(
            f"embeddings of --reference {settings.reference} have {reference.dimension} dimensions, but those of "
            f"{settings.input} {pool.dimension}; embed both with one model"
        )
    has_integers = {settings.input: pool.integer_ids, settings.reference: reference.integer_ids}
    require_same_ids(settings.id_column, has_integers)
    (pool.work / "itself").make_folder()
    keys = partial(embeddings, settings.duplicates == "keep")
    others = keyed_rows(context, reference.work, reference.blocks, keys)
    matched(pool.work, pool.blocks, keys, others).foreach(partial(_write_found, pool.work))
    return replace(pool, marked=True)


def _write_found(work: Location, of_block: tuple[str, list[list[int]]]) -> None:
    name, found = of_block
    write_itself(work, name, np.array([bool(rows) for rows in found]))


def write_itself(work: Location, name: str, itself: NDArray[np.bool_]) -> None:
    """Write which candidates of the block of that name the reference holds too."""
    (work / "itself" / name).write_parquet(pa.table({"itself": itself}))


def read_itself(work: Location, name: str) -> NDArray[np.bool_]:
    """Which of the block's candidates the reference holds too; only of a pool that is ``marked``."""
    itself: NDArray[np.bool_] = (work / "itself" / name).read_parquet().column(0).to_numpy()
    return itself

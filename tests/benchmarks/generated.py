"""Pools of generated embeddings that benchmarks share, kept on disk so that a second run starts there.

Embeddings have clusters of unequal size, points close to others and a steep spectrum, so that gaps resemble real ones:
points of 192 axes, the same whatever the dimension, seen through a random basis, with some noise.
"""

import pickle
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyspark import SparkContext

from novelsum.density.factors import BlockDensity, write_density
from novelsum.files.ingest import ingest
from novelsum.files.location import Location
from novelsum.files.source import open_source
from novelsum.files.store import Block, Pool, read_block
from novelsum.formula import density_factor
from novelsum.settings import Settings

PART_ROWS = 12_000
_AXES, _CLUSTERS = 192, 2000


def generate(folder: Path, rows: int, dimension: int) -> None:
    """Write embeddings to a folder, file by file; files that are there are left."""
    folder.mkdir(parents=True, exist_ok=True)
    shared = np.random.default_rng(0)
    basis = shared.normal(size=(_AXES, dimension)).astype(np.float32) / np.float32(np.sqrt(dimension))
    spectrum = np.arange(1, _AXES + 1, dtype=np.float32) ** -0.35
    centres = shared.normal(size=(_CLUSTERS, _AXES)).astype(np.float32)
    share = shared.dirichlet(np.full(_CLUSTERS, 0.5))
    for start in range(0, rows, PART_ROWS):
        path = folder / f"part-{start:07d}.parquet"
        if path.exists():
            continue
        rng = np.random.default_rng(start + 1)
        n = min(PART_ROWS, rows - start)
        tightness = rng.uniform(0.3, 1.2, (n, 1)).astype(np.float32)
        points = centres[rng.choice(_CLUSTERS, n, p=share)]
        points = (points + tightness * rng.standard_normal((n, _AXES), np.float32)) * spectrum
        vectors = points @ basis + np.float32(0.004) * rng.standard_normal((n, dimension), np.float32)
        column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), dimension)
        table = pa.table({"id": np.arange(start, start + n), "embedding": column})
        temporary = path.with_suffix(".unfinished")
        pq.write_table(table, temporary, compression="none", use_dictionary=False)
        temporary.rename(path)


@dataclass(frozen=True)
class Generated:
    """A pool of generated embeddings in a folder: its input, its store, and density factors from within parts of it."""

    folder: Path
    rows: int
    dimension: int
    block_rows: int = PART_ROWS

    @property
    def input(self) -> Path:
        """Where the embeddings lie."""
        return self.folder / f"input-{self.rows}"

    @property
    def _kept(self) -> Path:
        return self.folder / f"pool-{self.rows}.pickle"

    @property
    def is_ingested(self) -> bool:
        """Whether the store is there."""
        return self._kept.exists()

    def settings(self, budget: int, formula: str = "paper") -> Settings:
        """Of a run on it."""
        return Settings(input=str(self.input), budget=budget, formula=formula, block_rows=self.block_rows)  # type: ignore[arg-type]

    def generate(self) -> None:
        """Write the input, as far as it is not there."""
        generate(self.input, self.rows, self.dimension)

    def ingested(self, spark: SparkContext) -> Pool:
        """The pool, from the store if that is there."""
        if not self.is_ingested:
            pool, _ = ingested(spark, self.settings(1), Location.of(str(self.folder / f"work-{self.rows}")))
            self._kept.write_bytes(pickle.dumps(pool))
        pool: Pool = pickle.loads(self._kept.read_bytes())
        return pool

    def with_density(self, spark: SparkContext) -> Pool:
        """The pool, whose density factors lie in its folder too; those of blocks that have them are left."""
        pool = self.ingested(spark)
        (pool.work / "density").make_folder()
        there = {entry.name for entry in (pool.work / "density").entries()}
        missing = [block for block in pool.blocks if block.name not in there]
        if missing:
            spark.addPyFile(__file__)
            spark.parallelize(missing, len(missing)).foreach(partial(_density_within, pool.work))
        return pool


def ingested(spark: SparkContext, settings: Settings, work: Location) -> tuple[Pool, float]:
    """A pool and the seconds that its ingest took."""
    clock = time.perf_counter()
    pool = ingest(spark, open_source(settings.input, "id", "embedding"), settings, work)
    return pool, time.perf_counter() - clock


def _density_within(work: Location, block: Block) -> None:
    """Density factors from the neighbours among some thousands of the same block: cheap, and about as uneven."""
    vectors = read_block(work, block.name).vectors
    parts = np.array_split(vectors, max(1, -(-block.rows // PART_ROWS)))
    distances = np.concatenate([_nearest(part) for part in parts])
    write_density(work, block.name, BlockDensity(density_factor(distances), distances[:, -1]))


def _nearest(vectors: np.ndarray, neighbors: int = 10) -> np.ndarray:
    """Cosine distances (n, K) of rows to their nearest others, ascending, about."""
    points = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    found = np.empty((len(points), neighbors))
    for start in range(0, len(points), 1000):
        distances = 1 - points[start : start + 1000] @ points.T
        distances[np.arange(len(distances)), np.arange(start, start + len(distances))] = np.inf
        found[start : start + 1000] = np.sort(np.partition(distances, neighbors, axis=1)[:, :neighbors], axis=1)
    return found

"""Embeddings of every kind are the same vectors."""

import numpy as np
import pyarrow as pa
import pytest
from conftest import Points, write_parquet

RNG = np.random.default_rng(11)
VECTORS = RNG.normal(size=(40, 4)).astype(np.float32)
IDS = [f"n{i:02d}" for i in range(40)]


@pytest.mark.parametrize(
    "column",
    [
        pa.FixedSizeListArray.from_arrays(pa.array(VECTORS.reshape(-1)), 4),
        pa.array(VECTORS.tolist(), pa.large_list(pa.float64())),
        pa.array(
            [
                {"type": 1, "size": None, "indices": None, "values": row.tolist()}
                if i % 2
                else {"type": 0, "size": 4, "indices": [0, 1, 2, 3], "values": row.tolist()}
                for i, row in enumerate(VECTORS)
            ],
            pa.struct(
                [
                    ("type", pa.int8()),
                    ("size", pa.int32()),
                    ("indices", pa.list_(pa.int32())),
                    ("values", pa.list_(pa.float64())),
                ]
            ),
        ),
    ],
    ids=["fixed-size list", "large list of double", "Spark ML vector"],
)
def test_every_kind_of_embedding_gives_the_same_picks(tmp_path, engine, oracle, column):
    """As a list of float does."""
    path = write_parquet(tmp_path / "in.parquet", IDS, column)
    points = Points(IDS, VECTORS)
    assert engine(path, 10, neighbors=3).picks == oracle(points, 10, neighbors=3).picks

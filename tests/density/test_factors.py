"""Density factors to a power stay in the range of numbers."""

import numpy as np
import pytest
from conftest import write_parquet

from novelsum.errors import InputError

RNG = np.random.default_rng(11)
VECTORS = RNG.normal(size=(40, 4)).astype(np.float32)
IDS = [f"n{i:02d}" for i in range(40)]


def test_a_power_that_leaves_the_range_of_numbers_is_refused(tmp_path, engine):
    """Instead of infinite novelties and picks by tie."""
    path = write_parquet(tmp_path / "in.parquet", IDS, VECTORS)
    with pytest.raises(InputError, match="--density-power 2000 takes density factors"):
        engine(path, 5, density_power=2000.0, neighbors=3)

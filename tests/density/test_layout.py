"""Files of cells: what one attempt has written outlives another that dies."""

import numpy as np
import pyarrow.parquet as pq
import pytest

from novelsum.density.layout import CellRows, read_row_group, write_row_groups
from novelsum.files.location import Location


def test_cells_that_an_attempt_has_written_outlive_one_that_dies(tmp_path, monkeypatch):
    target, places = Location.of(str(tmp_path / "group.parquet")), np.arange(6)
    rows = CellRows(*(places,) * 5, places > 2, places > 3, np.ones((6, 4), np.float32))
    write_row_groups(target, rows, places // 2, 3)
    write, written = pq.ParquetWriter.write_table, []

    def write_and_die(self, *args, **options) -> None:
        written.append(write(self, *args, **options))
        if len(written) == 2:
            raise RuntimeError("half way")

    monkeypatch.setattr(pq.ParquetWriter, "write_table", write_and_die)
    with pytest.raises(RuntimeError, match="half way"):
        write_row_groups(target, rows, places // 2, 3)
    assert [read_row_group(target, number, "float32").row.tolist() for number in range(3)] == [[0, 1], [2, 3], [4, 5]]
    assert [entry.name for entry in tmp_path.iterdir()] == ["group.parquet"]

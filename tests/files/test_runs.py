"""Sorted runs: rows read anywhere come out in the order of a file, whatever is held at once."""

import numpy as np
import pyarrow as pa
import pytest

from novelsum.files import runs
from novelsum.files.location import Location
from novelsum.files.runs import Runs, write_runs


@pytest.mark.parametrize("most", [1, 700, 1 << 20])
@pytest.mark.parametrize("tasks", [1, 7])
def test_rows_come_out_in_order_whatever_the_size_of_runs_and_blocks(tmp_path, monkeypatch, most, tasks):
    """More runs than are held open, and rows longer than a run, a batch and a block may be."""
    monkeypatch.setattr(runs, "_MOST_OPEN", 3)
    monkeypatch.setattr(runs, "_BATCH_BYTES", most // 4)
    rng = np.random.default_rng(most + tasks)
    texts = [rng.bytes(int(size)) for size in rng.integers(0, 60, 500)]
    texts[123] = b"x" * 5000
    folder, written = Location(str(tmp_path)), []
    for task, rows in enumerate(np.array_split(rng.permutation(500), tasks)):
        tables = []
        for part in np.array_split(rows, 9):
            chosen = pa.table({"record": pa.array([texts[i] for i in part], pa.large_binary())})
            tables.append((part, np.array([len(texts[i]) for i in part]), chosen))
        written += write_runs(folder, f"run-{task}", tables, most)
    assert len(written) > 60 if most == 1 and tasks == 7 else written
    found = list(Runs.of(folder, written, 500).blocks(most))
    assert [text for block in found for text in block.column("record").to_pylist()] == texts
    assert all(len(block) == 1 or block.nbytes - 8 * len(block) - 8 <= most for block in found)


def test_runs_whose_columns_differ_come_out_as_one_table(tmp_path):
    """Each row has null where its run had no such field."""
    folder = Location(str(tmp_path))
    values = [{"n": 1}, {"n": 2.5}, {"m": [{"a": "x"}]}, {"m": [{"b": None}]}]
    written = []
    for place, value in enumerate(values):
        table = pa.table({"record": pa.array([value])})
        written += write_runs(folder, f"run-{place}", [(np.array([place]), np.array([9]), table)], 1)
    (block,) = Runs.of(folder, written, 4).blocks(1000)
    assert block.column("record").to_pylist() == [
        {"n": 1.0, "m": None},
        {"n": 2.5, "m": None},
        {"n": None, "m": [{"a": "x", "b": None}]},
        {"n": None, "m": [{"a": None, "b": None}]},
    ]

"""Columns of a selection: every one of the input arrives, and no two share a name."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import write_parquet

from novelsum.report.output import OUTPUT_COLUMNS, output_name

RNG = np.random.default_rng(15)
VECTORS = RNG.normal(size=(30, 4)).astype(np.float32)
IDS = [f"c{i:02d}" for i in range(30)]


def selected(output: Path) -> dict[str, dict]:
    return {row["id"]: row for row in pq.read_table(output / "selected").to_pylist()}


@pytest.mark.parametrize("id_column", ["id", "input_pick", "input_input_pick", "input_density"])
def test_no_two_columns_of_a_selection_share_a_name(id_column):
    """Whatever other columns there are, and whatever the id is called."""
    taken = [f"{times * 'input_'}{name}" for name in OUTPUT_COLUMNS for times in range(5)]
    others = [name for name in [*taken, "text", "input_", "input_text", "my_pick"] if name != id_column]
    names = [*OUTPUT_COLUMNS, id_column, *(output_name(name, id_column) for name in others)]
    assert len(set(names)) == len(names)
    assert [output_name(name, "id") for name in ("pick", "input_pick", "text", "input_text")] == [
        "input_pick",
        "input_input_pick",
        "text",
        "input_text",
    ]
    assert output_name(id_column, id_column) == id_column


def test_every_column_of_the_input_arrives_and_groups_and_texts_are_found_under_their_new_names(
    run_here, tmp_path, capsys
):
    """Also those that are called like one of the selection, and like the new name of another."""
    columns = {
        name: [f"{name} of {id_}" for id_ in IDS]
        for name in ("pick", "input_pick", "input_input_pick", "novelty", "input_density", "nearest_id")
    }
    columns["density"] = [f"dense {i % 3}" for i in range(30)]
    path = write_parquet(tmp_path / "in.parquet", IDS, VECTORS, **columns)
    options = {"budget": 9, "neighbors": 3, "group_column": "density", "text_column": "input_pick"}
    run_here("curate", input=path, output=str(tmp_path / "out"), **options)
    rows = selected(tmp_path / "out")
    assert len(rows) == 9
    for id_, row in rows.items():
        assert [row[f"input_{name}"] for name in columns] == [of[IDS.index(id_)] for of in columns.values()]
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert {group["group"]: group["pool"] for group in report["groups"]["largest"]} == dict.fromkeys(
        ("dense 0", "dense 1", "dense 2"), 10
    )
    assert sum(group["selected"] for group in report["groups"]["largest"]) == 9
    assert [pick["text"] for pick in report["first_picks"]] == [f"input_pick of {id_}" for id_ in rows]
    printed = capsys.readouterr().out
    assert all(f"input_pick of {id_}" in printed for id_ in rows)

"""What a run prints, beside the report: rows without a group as such."""

import json
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from conftest import write_parquet

from novelsum.groups import in_words

RNG = np.random.default_rng(15)
VECTORS = RNG.normal(size=(30, 4)).astype(np.float32)
IDS = [f"c{i:02d}" for i in range(30)]


def selected(output: Path) -> dict[str, dict]:
    return {row["id"]: row for row in pq.read_table(output / "selected").to_pylist()}


def test_a_report_and_what_is_printed_show_rows_without_a_group_as_such(run_here, tmp_path, capsys):
    """Null in report.json; in words beside groups that are called None or by these very words."""
    column = [None, "None", "(no group)"] * 10
    path = write_parquet(tmp_path / "in.parquet", IDS, VECTORS, kind=pa.array(column))
    output = tmp_path / "out"
    options = {"budget": 12, "neighbors": 3, "group_column": "kind", "quota": ("None=3", "*=:5"), "show": 12}
    run_here("curate", input=path, output=str(output), **options)
    picked = [row["kind"] for row in selected(output).values()]
    data = json.loads((output / "report.json").read_text())
    found = [(group["group"], group["pool"], group["selected"]) for group in data["groups"]["largest"]]
    assert found == [(group, 10, picked.count(group)) for group in ("(no group)", "None", None)]
    assert picked.count("None") == 3
    assert [pick["group"] for pick in data["first_picks"]] == picked
    page = (output / "report.html").read_text()
    heads = re.findall(r"<th scope=row><bdi>([^<]*)</bdi></th><td>10</td>", page)
    assert heads == ["&#x27;(no group)&#x27;", "None", "(no group)"]
    printed = [re.split(r"\s{2,}", line.strip()) for line in capsys.readouterr().out.splitlines()]
    assert [line[4] for line in printed[4:16]] == [in_words(group) for group in picked]
    assert [line[0] for line in printed if line[1:3] == ["10", "33.3%"]] == ["'(no group)'", "None", "(no group)"]

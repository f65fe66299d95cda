"""The notebook of docs/ runs from its first cell to its last and gives what it shows.

As a program: ``python tests/test_notebook.py`` runs it and writes what its cells give into it.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

DOCS = Path(__file__).resolve().parents[1] / "docs"
NOTEBOOK = DOCS / "from-python.ipynb"

RUN = """
import contextlib, io, json, sys
cells, name_space, outputs = json.load(sys.stdin), {"__name__": "__main__"}, []
for cell in cells:
    with contextlib.redirect_stdout(io.StringIO()) as told:
        exec(compile(cell, "cell", "exec"), name_space)
    outputs.append(told.getvalue())
print(json.dumps(outputs))
"""
"""What a kernel does with cells that end in no expression."""


def read() -> tuple[dict[str, Any], list[dict[str, Any]]]:
    notebook = json.loads(NOTEBOOK.read_text())
    return notebook, [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def outputs_of(cells: list[dict[str, Any]]) -> list[str]:
    """What each cell prints, run in turn in the notebook's folder."""
    sources = json.dumps(["".join(cell["source"]) for cell in cells])
    done = subprocess.run(
        [sys.executable, "-c", RUN], input=sources, cwd=DOCS, capture_output=True, text=True, timeout=500, check=False
    )
    assert done.returncode == 0, done.stderr
    outputs: list[str] = json.loads(done.stdout.splitlines()[-1])
    return outputs


@pytest.mark.more
def test_the_notebook_gives_what_it_shows():
    _, cells = read()
    shown = ["".join(line for output in cell["outputs"] for line in output["text"]) for cell in cells]
    assert outputs_of(cells) == shown
    assert sum(bool(text) for text in shown) >= 4


def test_the_notebook_names_functions_and_settings_that_exist():
    """What can be told without Spark: each cell is a program, and none shows an error."""
    notebook, cells = read()
    assert notebook["nbformat"] == 4
    for cell in cells:
        compile("".join(cell["source"]), "cell", "exec")
        assert all(output["output_type"] == "stream" for output in cell["outputs"])


if __name__ == "__main__":
    notebook, cells = read()
    for number, (cell, text) in enumerate(zip(cells, outputs_of(cells), strict=True), start=1):
        stream = {"name": "stdout", "output_type": "stream", "text": text.splitlines(keepends=True)}
        cell |= {"execution_count": number, "outputs": [stream] if text else []}
    NOTEBOOK.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n")

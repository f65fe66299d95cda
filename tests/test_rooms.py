"""Which rooms of the package know which: a change is looked for in one room and in those that may know it."""

import ast

import pytest
from conftest import ROOT

PACKAGE = ROOT / "novelsum"
KNOWS = {
    "files": set(),
    "spark": {"files"},
    "density": {"files", "spark"},
    "selection": {"files", "spark", "density"},
    "report": {"files", "spark", "density", "selection"},
    "diversity": {"files", "spark", "density", "selection", "report"},
    "strategies": {"files", "spark", "density", "selection", "report", "diversity"},
    "text": {"files", "spark", "report"},
}
"""The rooms that each may import from, beside itself and the ground that all stand on."""
ROOF = {"__init__", "__main__", "api", "command", "console", "pipeline", "preflight"}
"""Modules that stand above all rooms; the others beside the rooms are the ground below them."""
KERNELS = [
    *("formula", "formulas", "explain", "amounts", "groups", "rows"),
    *(f"density/{name}" for name in ("axes", "points", "loops", "neighbors", "cells", "within")),
    "diversity/novelsum",
    *("strategies/turn", "strategies/verdict"),
    *(
        f"selection/{name}"
        for name in ("scoring", "weights", "quotas", "closings", "candidates", "sketch", "ranking", "picked")
    ),
    *("selection/contenders", "selection/check"),
]


def imported(path):
    """Full names of the modules that a file imports, those inside functions too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def test_every_room_is_known_here():
    assert {path.parent.name for path in PACKAGE.glob("*/*.py")} == set(KNOWS)


@pytest.mark.parametrize("room", KNOWS)
def test_a_room_imports_only_from_rooms_below_it(room):
    for path in (PACKAGE / room).glob("*.py"):
        rooms = {name.split(".")[1] for name in imported(path) if name.startswith("novelsum.")} & set(KNOWS)
        assert rooms <= {room, *KNOWS[room]}, path


def test_the_ground_stands_on_no_room():
    for path in PACKAGE.glob("*.py"):
        if path.stem not in ROOF:
            assert not {name.split(".")[1] for name in imported(path) if name.startswith("novelsum.")} & set(KNOWS), (
                path
            )


def test_a_module_of_compiled_loops_imports_nothing_that_its_cache_would_not_notice():
    for path in PACKAGE.rglob("*.py"):
        names = [name for name in imported(path) if name.startswith("novelsum.")]
        if {"novelsum.compiled.compiled", "novelsum.compiled.reordered"} & set(names):
            assert all(name.startswith("novelsum.compiled.") for name in names), path


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_kernel_knows_neither_spark_nor_files(kernel):
    for name in imported(PACKAGE / f"{kernel}.py"):
        assert name.split(".")[0] not in ("pyspark", "pyarrow"), name
        assert not name.startswith(("novelsum.files", "novelsum.spark")), name

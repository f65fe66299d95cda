"""Scratch of a selection: rebuilt when it is lost, not believed when half changed, refused when too large."""

import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import Points, assert_same

from novelsum.diversity.onepass import mapped_points
from novelsum.errors import RunError
from novelsum.files.store import Block
from novelsum.selection import rounds
from novelsum.selection.candidates import Units
from novelsum.selection.scoring import Scoring
from novelsum.selection.scratch import compared_bytes, opened, selections_bytes
from novelsum.settings import Settings

pytestmark = pytest.mark.usefixtures("with_rounds")


@pytest.mark.parametrize("distance", [0.0, pytest.param(0.1, marks=pytest.mark.more)])
def test_lost_scratch_is_rebuilt_from_the_store_and_the_pick_log(
    clustered, engine, oracle, tmp_path, monkeypatch, distance
):
    """All scratch of the run is removed again and again, as if every executor were lost."""
    advance = rounds._Selection.advance
    removed = []

    def round_and_loss(self) -> None:
        advance(self)
        if self.effort.rounds % 7 == 0:
            removed.extend(_scratch(self.run.id))
            for folder in removed[-1:]:
                shutil.rmtree(folder)

    monkeypatch.setattr(rounds._Selection, "advance", round_and_loss)
    settings = {"neighbors": 4, "min_distance": distance}
    found = engine(clustered.write(tmp_path / "in"), 80, block_rows=200, **settings)
    assert removed
    assert_same(found, oracle(clustered, 80, **settings))


def test_a_state_left_half_changed_is_started_over(clustered, engine, oracle, tmp_path, monkeypatch):
    """A task that dies in the middle leaves its mark; what it left is not believed."""
    advance = rounds._Selection.advance
    spoiled = []

    def round_and_death(self) -> None:
        advance(self)
        if self.effort.rounds % 9 == 0:
            for folder in _scratch(self.run.id):
                for head in folder.glob("*/head.npy"):
                    np.load(head, mmap_mode="r+")[0] = 1
                    np.load(head.with_name("state-sketches.npy"), mmap_mode="r+")["mass"] = 0
                    spoiled.append(head)

    monkeypatch.setattr(rounds._Selection, "advance", round_and_death)
    found = engine(clustered.write(tmp_path / "in"), 80, block_rows=200, neighbors=4)
    assert spoiled
    assert_same(found, oracle(clustered, 80, neighbors=4))


def _scratch(run: str) -> list[Path]:
    """The scratch folders of a run under Spark's local directories of this machine."""
    import tempfile

    root = Path(os.environ.get("SPARK_LOCAL_DIRS", tempfile.gettempdir()))
    local = [folder for kind in ("spark-*", "blockmgr-*") for folder in root.glob(kind)]
    return [
        Path(folder) / f"novelsum-{run}"
        for top in local
        for folder, names, _ in os.walk(top)
        if f"novelsum-{run}" in names
    ]


def test_a_scratch_disk_that_is_too_small_is_refused_before_the_first_round(clustered, engine, spark, tmp_path):
    """With how much is needed, where, and how much is free."""
    pool = engine(clustered.write(tmp_path / "in"), 2, neighbors=4).pool
    huge = replace(pool, blocks=tuple(Block(block.name, 10**13) for block in pool.blocks))
    with pytest.raises(RunError, match=r"needs [\d.]+ GiB of scratch in .* free; .* run again to go on"):
        rounds.select(spark, huge, pool.work, pool.work, Settings(budget=2), 0)


def test_a_comparison_counts_in_what_a_selection_needs(engine, spark, prompts, tmp_path):
    pool = engine(Points(prompts.ids[:60], prompts.vectors[:60]).write(tmp_path / "in"), 2, neighbors=4).pool
    huge = replace(pool, blocks=tuple(Block(block.name, 10**12) for block in pool.blocks))
    needed = []
    for compare in (False, True):
        with pytest.raises(RunError, match="run again to go on") as refusal:
            rounds.select(spark, huge, pool.work, pool.work, Settings(budget=2, compare=compare), 0)
        needed.append(float(re.search(r"needs ([\d.]+) GiB", str(refusal.value)).group(1)))
    more = compared_bytes(10**12 * len(pool.blocks), pool.dimension) + selections_bytes(2, pool.dimension)
    assert needed[1] - needed[0] == pytest.approx(more / 2**30, rel=1e-3)


@pytest.mark.more
def test_scratch_is_for_its_owner_alone(engine, prompts, tmp_path, monkeypatch):
    """Whatever the umask, as docs/operations.md promises: in a selection and in a comparison."""
    path = Points(prompts.ids[:60], prompts.vectors[:60]).write(tmp_path / "in")
    pool = engine(path, 3).pool
    monkeypatch.setenv("SPARK_LOCAL_DIRS", str(tmp_path / "scratch"))
    before = os.umask(0)
    try:
        scoring = Scoring("paper", "cosine", 1.0, 0.5, 1.0)
        with opened(pool.work, pool.work, "one", pool.blocks[0], scoring, Units(), False, ()):
            pass
        mapped_points("two", pool.work, pool.blocks[0].name, "cosine")
    finally:
        os.umask(before)
    for private in (f"novelsum-one/{pool.blocks[0].name}", "novelsum-two"):
        assert (tmp_path / "scratch" / private).stat().st_mode & 0o777 == 0o700

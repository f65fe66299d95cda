"""The final picks of a host: mapped from one file by all its tasks, and filled from what is at hand."""

import os
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest

from novelsum.errors import RunError
from novelsum.selection.candidates import Candidates, Picks
from novelsum.selection.pickfile import file_bytes, final_picks, with_drafted

PLACES, DIMENSION = 9000, 3


def picks(start: int, stop: int) -> Picks:
    """Picks that tell their places."""
    places = np.arange(start, stop)
    vectors = np.repeat(places[:, None], DIMENSION, axis=1).astype(np.float32)
    return Picks.measured(Candidates.plain(places + 7, vectors, places + 0.5)).single()


def assert_first(found: Picks, count: int) -> None:
    expected = picks(0, count)
    for name, column in vars(expected).items():
        np.testing.assert_array_equal(getattr(found, name)[0:count], column)


def test_what_the_file_lacks_is_asked_for_once_and_a_part_at_a_time(tmp_path):
    asked = []

    def missing(start: int, stop: int) -> Picks:
        asked.append((start, stop))
        return picks(start, stop)

    for count in (5, 5, 8600, 8601):
        assert_first(final_picks(tmp_path / "picks", PLACES, count, missing), count)
    assert asked == [(0, 1), (0, 5), (5, 4101), (4101, 8197), (8197, 8600), (8600, 8601)]
    taken = sum(path.stat().st_size for path in (tmp_path / "picks").iterdir())
    assert taken - file_bytes(PLACES, DIMENSION) < 2000, "but for the heads of the files"


def test_a_task_that_died_while_it_filled_the_file_is_made_up_for(tmp_path):
    def dying(start: int, stop: int) -> Picks:
        if start:
            raise KeyboardInterrupt
        return picks(start, stop)

    with pytest.raises(KeyboardInterrupt):
        final_picks(tmp_path / "picks", PLACES, 5000, dying)
    assert_first(final_picks(tmp_path / "picks", PLACES, 5000, picks), 5000)


def fill(folder: Path) -> None:
    assert_first(final_picks(folder, PLACES, 6000, picks), 6000)


def test_processes_that_fill_it_at_once_do_not_disturb_one_another(tmp_path):
    processes = [get_context("spawn").Process(target=fill, args=(tmp_path / "picks",)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=60)
    assert [process.exitcode for process in processes] == [0] * 4
    assert [path.name for path in tmp_path.iterdir()] == ["picks"], "nothing unfinished is left"


def test_a_full_disk_is_told_and_nothing_is_left(tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(RunError, match=r"the scratch disk of .* is full; free some of it"):
        final_picks(tmp_path / "picks", PLACES, 5, picks)
    assert not list(tmp_path.iterdir())


def test_slices_of_final_and_drafted_picks_are_those_of_both(tmp_path):
    final = final_picks(tmp_path / "picks", PLACES, 20, picks)
    both, expected = with_drafted(final, picks(20, 26)), picks(0, 26)
    assert len(both) == 26
    for part in (slice(0, 20), slice(3, 7), slice(20, 26), slice(21, 23), slice(18, 24), slice(20, 20)):
        np.testing.assert_array_equal(both.vectors[part], expected.vectors[part])

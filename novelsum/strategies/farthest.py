"""K-center greedy: always the greatest q · d(x, S), d(x, S) the distance to the nearest sample selected. Exact.

S begins with the samples selected before or with the first pick, and q is what a score is multiplied by, 1 without
quality and costs. Ties go to the smallest row.

It goes in rounds, as scores only fall and what is closed stays closed. Every block reports its candidates with the
greatest scores; the driver picks among them while what it picks is above the last that any block reported, as no
candidate that was not reported can be above that. So a Spark job yields many picks, and every one is the argmax.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from novelsum.density.neighbors import NearestDistances
from novelsum.diversity.onepass import save
from novelsum.files.location import Location
from novelsum.files.store import Block
from novelsum.formula import Array, Metric, from_squared, metric_space, squared_distances
from novelsum.rows import Integers
from novelsum.spark.local import folder_of
from novelsum.spark.progress import Progress
from novelsum.spark.shared import Shared
from novelsum.strategies.common import Common, Reading
from novelsum.strategies.turn import open_places

_REPORTED = 1024
"""Candidates that all blocks together report in a round, at least."""
_LOGGED_AT_ONCE = 2048


@dataclass(frozen=True)
class _News:
    """What a round tells: all samples selected from place ``since`` on, rows (p,) and points (p, D); those before lie
    in files. ``groups_open``, ``left``: what may be picked by group and cost; ``distance``: nothing nearer.
    """

    since: int
    rows: Integers
    points: Array
    groups_open: NDArray[np.bool_]
    left: float
    distance: float


@dataclass(frozen=True)
class _Farthest:
    """A block's candidates with the greatest scores: rows (k,), squared distances to the nearest sample selected,
    points (k, D), and what closes and weighs them. ``all``: whether the block has no others that may be picked.
    """

    rows: Integers
    squared: Array
    points: Array
    quality: Array
    groups: Integers
    cost: Array
    all: bool


def farthest_first(
    common: Common,
    first: int | None,
    work: Location,
    made: Integers,
    keep: Callable[[Integers], None] = lambda rows: None,
) -> Integers:
    """Rows in the order of picking, the first of them ``made`` (n,) before.

    ``first``: the first pick where nothing is selected; ``work``: a folder to work in. ``keep`` is called with the
    picks that were made since it was called before, some at a time.
    """
    metric, turn = common.settings.metric, common.turn()
    begun = len(common.begun)
    start = np.array([first], np.int64) if first is not None and not len(made) and not begun else np.zeros(0, np.int64)
    starting = np.concatenate([made, start])
    stored = common.stored(starting) if len(starting) else common.begun[:0]
    points = metric_space(stored.vectors, metric) if len(stored) else stored.vectors
    for place in range(len(stored)):
        turn.take(int(stored.groups[place]), float(stored.cost[place]), points[place])
    picks: list[int] = starting.tolist()
    news = [*common.before(), *points]
    new_rows = [*common.begun.rows.tolist(), *picks]
    places, kept = 0, len(made)
    seen = work / "farthest" / common.reading.run
    seen.make_folder()
    most = max(16, -(-_REPORTED // len(common.pool.blocks)))
    blocks = common.blocks().cache()
    with Progress("farthest-first (picks)", turn.closings.picks) as progress:
        while not turn.is_over:
            closed = (turn.groups_open, turn.left, turn.closings.distance)
            told = _News(places, np.array(new_rows, np.int64), np.stack(news), *closed)
            message = Shared.of(common.context, told)
            common.context.setJobDescription(f"novelsum farthest-first: pick {len(picks) + 1} of {turn.closings.picks}")
            reports = blocks.map(partial(_farthest, common.reading, seen, most, message)).collect()
            message.destroy()
            if len(new_rows) >= _LOGGED_AT_ONCE:
                (seen / f"{places:09d}").write_bytes(told.rows.tobytes() + told.points.tobytes())
                places, new_rows, news = places + len(new_rows), [], []
            before = len(picks)
            for report, at in _certain(reports, metric, turn.is_open, turn.closings.distance, turn.missing):
                turn.take(int(report.groups[at]), float(report.cost[at]), None)
                picks.append(int(report.rows[at]))
                new_rows.append(picks[-1])
                news.append(report.points[at])
            progress.reach(len(picks))
            if len(picks) - kept >= _LOGGED_AT_ONCE:
                keep(np.array(picks[kept:], np.int64))
                kept = len(picks)
            if len(picks) == before and all(report.all for report in reports):
                break
    keep(np.array(picks[kept:], np.int64))
    common.context.setJobDescription("")
    blocks.unpersist()
    return np.array(picks, np.int64)


def _certain(
    reports: list[_Farthest], metric: Metric, is_open: Callable[[int, float], bool], distance: float, most: int
) -> Iterator[tuple[_Farthest, int]]:
    """The picks that no candidate outside the reports can come before, at most ``most``: all that is reported as one,
    and the place of the pick there.

    ``is_open`` is asked with group and cost when all picks before are counted; ``distance``: nothing nearer is picked.
    """
    names = ("rows", "squared", "points", "quality", "groups", "cost")
    joined = {name: np.concatenate([getattr(report, name) for report in reports]) for name in names}
    by_row = np.argsort(joined["rows"])
    found = _Farthest(**{name: values[by_row] for name, values in joined.items()}, all=False)
    # Whatever a block did not report comes after the last it did: of a smaller score, or as great and of a greater row.
    ends = [(-float(_scores(r, metric)[-1]), int(r.rows[-1])) for r in reports if not r.all]
    limit = min(ends, default=(np.inf, 0))
    scores = _scores(found, metric)
    squared = found.squared.copy()
    while most and len(scores):
        at = int(np.argmax(scores))
        if scores[at] < 0 or (-float(scores[at]), int(found.rows[at])) > limit:
            return
        if not is_open(int(found.groups[at]), float(found.cost[at])):
            scores[at] = -1.0
            continue
        yield found, at
        most -= 1
        np.minimum(squared, squared_distances(found.points, found.points[at : at + 1])[:, 0], out=squared)
        apart = from_squared(squared, metric)
        is_left = (scores >= 0) & (apart >= distance)
        is_left[at] = False
        scores = np.where(is_left, apart * found.quality, -1.0)


def _scores(report: _Farthest, metric: Metric) -> Array:
    return from_squared(report.squared, metric) * report.quality


def _farthest(reading: Reading, seen: Location, most: int, message: Shared[_News], block: Block) -> _Farthest:
    """Bring a block's distances to the nearest sample selected up to date and report the greatest scores.

    The distances lie in scratch with the number of samples they are for; where they are missing all are read.
    """
    columns, new = reading.points(block), message.value
    traits = reading.traits(block)[0]
    path = folder_of(reading.run) / f"{block.name}.nearest.npy"
    known, squared = 0, np.full(len(columns.rows), np.inf)
    if path.exists():
        saved = np.load(path)
        if saved[0] <= new.since + len(new.rows):
            known, squared = int(saved[0]), saved[1:]
    nearest = NearestDistances(columns.points, 1)
    nearest.squared[:, 0] = squared
    for rows, points in _since(seen, known, new):
        nearest.add(points)
        nearest.squared[np.isin(columns.rows, rows)] = -1.0
    squared = nearest.squared[:, 0]
    save(path, np.concatenate([[new.since + len(new.rows)], squared]))
    able = open_places(traits.groups, traits.cost, new.groups_open, new.left) & (squared >= 0)
    apart = from_squared(np.maximum(squared, 0.0), reading.scoring.metric)
    at = np.flatnonzero(able & (apart >= new.distance))
    order = at[np.lexsort((columns.rows[at], -apart[at] * traits.quality[at]))[:most]]
    of_each = (traits.quality[order], traits.groups[order], traits.cost[order])
    return _Farthest(columns.rows[order], squared[order], columns.points[order], *of_each, len(order) == len(at))


def _since(seen: Location, known: int, new: _News) -> Iterator[tuple[Integers, Array]]:
    """Rows and points of what was selected from place ``known`` on: from files where the broadcast has it no more."""
    dimension = new.points.shape[1]
    if known < new.since:
        for file in seen.entries():
            start = int(file.name)
            content = file.read_bytes()
            count = len(content) // (8 * (dimension + 1))
            if start + count > known:
                rows = np.frombuffer(content, np.int64, count)
                yield rows, np.frombuffer(content, offset=8 * count).reshape(count, dimension)
    skip = max(0, known - new.since)
    yield new.rows[skip:], new.points[skip:]

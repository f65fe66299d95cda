"""Random selection: candidates in the order of lots that a seed draws from their ids.

The lot u of a candidate is uniform on [0, 1); they are taken in the order of -ln(1 - u)/q, the smallest first, q being
what a score is multiplied by. So each pick is one of those left with a chance that is proportional to q (Efraimidis and
Spirakis, 2006), and where there is no quality, the smallest lots are taken. A candidate that may not be picked when its
turn comes never may.
"""

import heapq
import math
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from novelsum.files.store import Block
from novelsum.formula import Array, metric_space
from novelsum.rows import Integers, lot
from novelsum.spark.shared import Shared
from novelsum.strategies.common import Common, Reading
from novelsum.strategies.turn import open_places

Key = tuple[float, bytes, int]
_AT_LEAST = 16
_OF_LOT = 8
"""Bytes of a lot that make a number; the others tell apart those for which they are equal."""


class _Asked(NamedTuple):
    """The next ``most`` of each block after a key are asked for, of those that may be picked."""

    seed: int
    most: int
    after: Key
    groups_open: NDArray[np.bool_]
    left: float
    with_points: bool


class _Drawn(NamedTuple):
    """Candidates of a block in the order of their keys; ``is_all``: it has no more."""

    keys: list[Key]
    groups: Integers
    cost: Array
    points: Array
    is_all: bool


def draw(common: Common, seed: int, first: int | None = None) -> Integers:
    """Rows in the order in which they are picked; ``first``, if it is given, comes before all that are drawn."""
    turn, picks, taken = common.turn(), list[int](), set(common.begun.rows.tolist())
    if first is not None:
        given = common.stored(np.array([first]))
        turn.take(int(given.groups[0]), float(given.cost[0]), metric_space(given.vectors, common.settings.metric)[0])
        picks.append(first)
        taken.add(first)
    after: Key = (-1.0, b"", -1)
    while not turn.is_over:
        count = 2 * -(-turn.missing // len(common.pool.blocks)) + _AT_LEAST
        near = bool(common.closings.distance)
        message = Shared.of(common.context, _Asked(seed, count, after, turn.groups_open, turn.left, near))
        common.context.setJobDescription("novelsum: random selection")
        parts = common.blocks().map(partial(_drawn, common.reading, message)).collect()
        message.destroy()
        common.context.setJobDescription("")
        limit = min((part.keys[-1] for part in parts if not part.is_all), default=(math.inf, b"\xff" * 17, 0))
        places = ((key, part, i) for part in parts for i, key in enumerate(part.keys) if key <= limit)
        for key, part, i in sorted(places, key=lambda place: place[0]):
            if turn.is_over:
                break
            if key[2] in taken or not turn.is_open(int(part.groups[i]), float(part.cost[i])):
                continue
            point = part.points[i] if near else None
            if point is None or not turn.is_near(point):
                turn.take(int(part.groups[i]), float(part.cost[i]), point)
                picks.append(key[2])
        if all(part.is_all for part in parts):
            break
        after = limit
    return np.array(picks, np.int64)


def _drawn(reading: Reading, message: Shared[_Asked], block: Block) -> _Drawn:
    asked = message.value
    traits, ids = reading.traits(block)
    able = np.flatnonzero(open_places(traits.groups, traits.cost, asked.groups_open, asked.left)).tolist()
    rows, quality = traits.rows.tolist(), traits.quality.tolist()
    lots = ((lot(asked.seed, ids[place]), place) for place in able)
    keyed = (((turn_of(drawn, quality[place]), drawn, rows[place]), place) for drawn, place in lots)
    found = heapq.nsmallest(asked.most + 1, (one for one in keyed if one[0] > asked.after))
    at = np.array([place for _, place in found[: asked.most]], np.int64)
    points = np.array(reading.points(block).points[at]) if asked.with_points else np.empty((len(at), 0))
    keys = [key for key, _ in found[: asked.most]]
    return _Drawn(keys, traits.groups[at], traits.cost[at], points, len(found) <= asked.most)


def turn_of(drawn: bytes, quality: float) -> float:
    """When the turn of a candidate with that lot and that q comes."""
    number = int.from_bytes(drawn[:_OF_LOT]) >> 11
    return -math.log1p(-number * 2.0**-53) / quality if quality else math.inf

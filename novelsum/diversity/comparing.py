"""The data sets of a run and random subsets, each measured once, and what comes of it: the ranking."""

import logging
from itertools import accumulate

from pyspark import SparkContext

from novelsum.diversity.measuring import Corpus, Measured, measured, own_rows
from novelsum.diversity.onepass import DataSet
from novelsum.diversity.ranking import Figures, Ranked, Standing, Yardstick, in_order
from novelsum.diversity.subsets import Drawing, write_subsets
from novelsum.files.location import Location
from novelsum.rows import Integers
from novelsum.settings import MeasureSettings
from novelsum.spark.local import removed_after

logger = logging.getLogger("novelsum")

_SCRATCH_BYTES = 1 << 30
"""Points of random subsets, or of sets, that lie in scratch at the same time, unless one has more."""
COMPARED_ROWS = 20_000
"""Sets of different sizes are compared, and any with random subsets, by at most so many rows."""
DRAWS = 5
"""Random subsets that stand for a set where it has more rows than it is compared at."""

_APART = 1_000_003
"""So far apart are the seeds of the subsets of one set and of the next, which thus are drawn independently."""


class Comparing:
    """The sets of a run, and random subsets of them and of the pool, each measured once."""

    def __init__(
        self,
        context: SparkContext,
        settings: MeasureSettings,
        names: list[str],
        sets: list[DataSet],
        corpus: Corpus | None,
        dimension: int,
        work: Location,
    ) -> None:
        self._context, self._settings, self._sets, self._corpus = context, settings, sets, corpus
        self._names, self._dimension, self._work = names, dimension, work
        self._own = [own_rows(context, settings, data, corpus) for data in sets]
        self._drawn: dict[tuple[int | None, int], list[Figures]] = {}

    def whole(self) -> list[Measured]:
        """All sets by all their rows, or the sample of them."""
        return self._measured(list(zip(self._sets, self._own, strict=True)))

    def _measured(self, sets: list[tuple[DataSet, Integers | None]]) -> list[Measured]:
        """Several at once, as far as their points in scratch stay small."""
        found: list[Measured] = []
        while len(found) < len(sets):
            sizes = [8 * self._dimension * data.rows for data, _ in sets[len(found) :]]
            together = max(1, sum(total <= _SCRATCH_BYTES for total in accumulate(sizes)))
            some = sets[len(found) : len(found) + together]
            with removed_after(self._context):
                found += measured(self._context, self._settings, some, self._corpus, self._work)
        return found

    def ranked(self, found: list[Measured]) -> tuple[list[Ranked], int | None]:
        """The sets in order, beside random subsets of the pool if there is one; and the rows of the pool."""
        sizes, limit = [one.rows for one in found], min(COMPARED_ROWS, self._settings.exact_limit)
        size = sizes[0] if len(set(sizes)) == 1 else min(limit, *sizes)
        pool = self._pool()
        sets = []
        for number, (name, one) in enumerate(zip(self._names, found, strict=True)):
            compared = self._standing(number, one, size)
            own, yardstick, beside = None, None, min(one.rows, limit)
            if pool is not None and beside < pool.rows:
                draws = self._settings.random_subsets
                yardstick = Yardstick.of(self._of_draws(None, pool, beside, draws))
                own = self._standing(number, one, beside)
            sets.append(Ranked(number, name, one.rows, compared, own, yardstick))
        if pool is not None:
            pool.done()
        return in_order(sets), None if pool is None else pool.rows

    def _pool(self) -> Drawing | None:
        """What random subsets are drawn from: the reference, or all sets together; None where they are not wanted."""
        if not self._settings.random_subsets or (self._corpus is None and len(self._sets) == 1):
            return None
        sets = self._sets if self._corpus is None else [self._corpus.data]
        return Drawing(self._context, sets, by_id=self._settings.duplicates == "keep")

    def _standing(self, number: int, one: Measured, size: int) -> Standing:
        """A set at that many rows."""
        if size == one.rows:
            return Standing.of(one.rows, [one.figures])
        if (number, size) not in self._drawn:
            drawing = Drawing(self._context, [self._sets[number]], by_id=self._settings.duplicates == "keep")
            self._of_draws(number, drawing, size, DRAWS)
            drawing.done()
        return Standing.of(one.rows, self._drawn[number, size])

    def _of_draws(self, number: int | None, drawing: Drawing, size: int, draws: int) -> list[Figures]:
        """The figures of random subsets of that size, of a set or, without its ``number``, of the pool."""
        if (number, size) in self._drawn:
            return self._drawn[number, size]
        of_whom = "the pool" if number is None else self._names[number]
        logger.info("diversity: %d random subsets of %d rows of %s", draws, size, of_whom)
        seed = self._settings.seed + (0 if number is None else _APART * (number + 1))
        subsets = drawing.draw(size, range(seed, seed + draws))
        folder = self._work / f"subsets-{'pool' if number is None else number}-{size}"
        stores = write_subsets(self._context, drawing.sets, subsets, self._dimension, folder)
        if number is None:
            owns = [None if self._corpus is None else subset.rows for subset in subsets]
        else:
            of_set = self._own[number]
            owns = [None if of_set is None else of_set[subset.rows] for subset in subsets]
        found = [one.figures for one in self._measured(list(zip(stores, owns, strict=True)))]
        self._drawn[number, size] = found
        return found

"""The data sets of a run and random subsets, each measured once, and what comes of it: the ranking."""

import logging

from pyspark import SparkContext

from novelsum.diversity.measuring import Corpus, Measured, measured
from novelsum.diversity.onepass import DataSet, match_reference
from novelsum.diversity.ranking import Figures, Ranked, Standing, Yardstick, in_order
from novelsum.diversity.subsets import Drawing, write_subsets
from novelsum.files.location import Location
from novelsum.rows import Integers
from novelsum.settings import MeasureSettings
from novelsum.spark.local import removed_after

logger = logging.getLogger("novelsum")

COMPARED_ROWS = 20_000
"""Sets of different sizes are compared, and any with random subsets, by at most so many rows."""
DRAWS = 5
"""Random subsets that stand for a set where it has more rows than it is compared at."""


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
        self._own = [self._matched(data) for data in sets]
        self._drawn: dict[tuple[int | None, int], list[Figures]] = {}

    def _matched(self, data: DataSet) -> Integers | None:
        if self._corpus is None or not any(self._settings.density_powers):
            return None
        by_id = self._settings.duplicates == "keep"
        return match_reference(self._context, data, self._corpus.data, by_id).own

    def whole(self, number: int) -> Measured:
        """A set by all its rows, or the sample of them."""
        return measured(self._context, self._settings, self._sets[number], self._corpus, self._own[number], self._work)

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
        subsets = drawing.draw(size, range(self._settings.seed, self._settings.seed + draws))
        folder = self._work / f"subsets-{'pool' if number is None else number}-{size}"
        stores = write_subsets(self._context, drawing.sets, subsets, self._dimension, folder)
        found = []
        for subset, store in zip(subsets, stores, strict=True):
            of_set = None if number is None else self._own[number]
            own = subset.rows if number is None else None if of_set is None else of_set[subset.rows]
            with removed_after(self._context):
                one = measured(self._context, self._settings, store, self._corpus, own, self._work)
            found.append(one.figures)
        self._drawn[number, size] = found
        return found

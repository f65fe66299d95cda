"""Rows in plain NumPy: those that two arrays have in common, and lots."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from novelsum.rows import common_places, lot

ROWS = st.sets(st.integers(0, 40)).map(lambda rows: np.array(sorted(rows), dtype=np.int64))


@given(ROWS, ROWS)
def test_common_places_are_those_of_the_rows_in_both(rows, others):
    at, in_others = common_places(rows, others)
    assert rows[at].tolist() == others[in_others].tolist() == np.intersect1d(rows, others).tolist()


def test_a_lot_is_drawn_by_seed_and_id_alone_and_stays_what_it_was():
    """So that a seed draws the same samples in every version."""
    assert lot(42, 7).hex() == "ea2938b8161362441287b8dc4809ae59"
    assert lot(42, "7") == lot(42, 7)
    assert len({lot(seed, id_) for seed in (1, 11) for id_ in (1, 11)}) == 4

"""How returns go: doublings counted over all that is selected, and a verdict that reads the whole curve."""

import numpy as np
import pytest

from novelsum.report.returns import doublings_of, returns_in_words, verdict


def read(curve, picks: int, begun: int = 0) -> tuple[str, int | None, list[dict]]:
    """Verdict, where it is flat, and doublings of a curve over the number of samples in S."""
    flat, doublings = doublings_of(curve(begun + np.arange(1, picks + 1, dtype=float)), begun)
    return verdict(flat, doublings), flat, doublings


def words(curve, picks: int, begun: int = 0) -> str:
    seen, flat, doublings = read(curve, picks, begun)
    values = curve(begun + np.arange(1, picks + 1, dtype=float))
    tenth = -(-picks // 10)
    return returns_in_words(
        {
            "verdict": seen,
            "flat_from_pick": flat,
            "flat_below_growth": 0.05,
            "selected_before": begun,
            "first_and_last_tenth": [values[:tenth].mean(), values[-tenth:].mean()],
            "doublings": doublings,
        }
    )


def by_doubling(*levels: float):
    """A curve that goes through these levels at n = 1, 2, 4, …, evenly in between on a logarithmic axis."""
    return lambda n: np.interp(np.log2(n), np.arange(len(levels)), levels)


@pytest.mark.parametrize(
    ("curve", "expected", "lowest", "highest"),
    [
        (lambda n: np.minimum(n, 100.0), "flat", 190, 200),
        (lambda n: n, "growing", None, None),
        (lambda n: np.full(len(n), 2.0), "flat", 16, 16),
        (lambda n: 2 - n / 1000, "flat", 16, 16),
        (lambda n: 5 - 0.5 * np.log2(n), "falling", 16, 16),
        (by_doubling(1, 2, 3, 4, 4.8, 5.5, 6.1, 6.6, 7.0, 7.3), "flattening", None, None),
        (by_doubling(1, 2, 3, 4, 5, 5, 4.8, 4.6, 5.4, 6.2), "uneven", None, None),
    ],
    ids=["saturates at 100", "never", "at once", "falls slowly", "falls", "adds less and less", "falls, then rises"],
)
def test_the_verdict_reads_the_whole_curve(curve, expected, lowest, highest):
    seen, flat, doublings = read(curve, 400)
    assert seen == expected
    assert lowest is None or lowest <= flat <= highest
    assert [row["pick"] for row in doublings] == [3, 6, 12, 25, 50, 100, 200, 400]
    assert [row["selected"] for row in doublings] == [3, 6, 12, 25, 50, 100, 200, 400]


def test_falling_doublings_are_told_as_flattening_and_not_as_nothing():
    """Three doublings of which each adds less, the last still above what counts as flat."""
    found = words(by_doubling(1, 2, 3, 4, 4.8, 5.5, 6.1, 6.6, 7.1, 7.6), 512)
    assert found.startswith("<b>Returns are flattening, but not flat yet</b>")
    assert found.count("%") == 4
    assert "have not flattened" not in found
    late = words(by_doubling(1, 2, 3, 4, 4.8, 5.5, 6.1, 6.6, 7.0, 7.3), 400)
    assert late.startswith("<b>Returns are just becoming flat</b>")
    assert words(lambda n: n, 400).startswith("<b>Returns have not flattened yet</b>")


def test_a_flat_stretch_at_the_very_end_is_no_flatness():
    """The last of the picks alone are less novel, as when what is left is of one kind."""
    seen, flat, _ = read(lambda n: np.where(n < 370, n, 370.0 * 0.5), 400)
    assert flat is not None
    assert flat > 360
    assert seen == "uneven"


@pytest.mark.parametrize("picks", [1, 2, 8, 15])
def test_a_small_budget_tells_nothing_of_returns(picks):
    """Also where the novelty of its picks happens to be even."""
    for curve in (lambda n: np.full(len(n), 2.0), lambda n: n):
        assert words(curve, picks) == "The budget is too small to tell where returns flatten."


def test_samples_selected_before_count_in_s():
    """With 100 of them, 40 picks are no doubling: nothing is flat from pick 16 on, as S had 116 samples there."""

    def even(n):
        return np.full(len(n), 2.0)

    seen, flat, doublings = read(even, 40, begun=100)
    assert (seen, flat) == ("unknown", None)
    assert doublings == [{"pick": 40, "selected": 140, "novelty": 2.0, "growth": None}]
    assert "S held 100 samples before the first pick and holds 140 now, less than twice as many" in words(even, 40, 100)
    assert words(even, 40, 100).endswith("the last tenth of the picks was as novel as the first.")


def test_a_doubling_of_s_is_told_from_the_pick_at_half_of_it():
    """100 before and 700 picks: S goes from 101 to 800, and pick 300 (S of 400) is set against pick 100 (of 200)."""
    seen, flat, doublings = read(lambda n: np.minimum(n, 150.0), 700, begun=100)
    assert [(row["pick"], row["selected"]) for row in doublings] == [(100, 200), (300, 400), (700, 800)]
    assert [row["growth"] for row in doublings] == [None, 0.0, 0.0]
    assert seen == "flat"
    assert 180 <= flat <= 200  # S of 280 to 300, as novelty stays at 150 from there
    assert "twice the samples in S, the 100 from before among them, raise" in words(
        lambda n: np.minimum(n, 150.0), 700, begun=100
    )


def test_picks_of_k_means_have_no_returns():
    found = returns_in_words({"verdict": "unordered", "doublings": [], "selected_before": 0, "flat_below_growth": 0.05})
    assert found.startswith("<b>Returns cannot be read off these picks</b>: k-means chooses them together")

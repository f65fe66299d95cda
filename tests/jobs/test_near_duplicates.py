"""--near-duplicates through the jobs: what is selected, estimated, listed and refused."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq
import pytest
from conftest import Points, numbered, run_job, write_parquet

from novelsum import formula
from novelsum.errors import InputError, UsageError
from novelsum.settings import Settings, check

EPSILON, QUALITY = 0.02, 0.5
RNG = np.random.default_rng(17)


@pytest.fixture(scope="module")
def near(sample):
    """400 prompts and 200 near-copies of 60 of them, with qualities, some equal; ids with quotes and line ends."""
    copies = sample.vectors[RNG.integers(0, 60, 200)]
    copies = copies + (10.0 ** RNG.uniform(-5, -2.2, (200, 1)) * RNG.normal(size=copies.shape)).astype(np.float32)
    vectors = np.concatenate([sample.vectors[:400], copies])
    vectors[590:] = vectors[:10]
    ids = sorted(f'{i % 7} "x"\\n{i:03d}' for i in range(600))
    return Points(ids, vectors[RNG.permutation(600)]), np.round(RNG.uniform(0.1, 1, 600), 1)


def left(near, quality=None):
    """Places of the rows that are kept, in the order of ids, by a plain loop."""
    points = near[0]
    order = np.lexsort((np.arange(600), np.zeros(600) if quality is None else -quality))
    distances = formula.distances(points.vectors, points.vectors)
    kept = []
    for i in order:
        if not (distances[i, kept] <= EPSILON).any():
            kept.append(i)
    return np.sort(kept)


def written(near, path):
    return write_parquet(path, near[0].ids, near[0].vectors, q=near[1], group=[id_[0] for id_ in near[0].ids])


def picks_of(output):
    return pq.read_table(output / "selected", columns=["id", "density"]).to_pydict()


@pytest.mark.parametrize("by_quality", [True, pytest.param(False, marks=pytest.mark.more)])
def test_density_budget_and_groups_are_those_of_what_is_kept(run_here, near, tmp_path, by_quality):
    """In two jobs as in one; the picks are those of the formula over what is kept."""
    points, quality = near
    path = written(near, tmp_path / "in.parquet")
    column = {"quality_column": "q", "quality_power": QUALITY} if by_quality else {}
    given = {"input": path, "near_duplicates": EPSILON, "report": False, "block_rows": 130, **column}
    asked = {"budget": "10%", "group_column": "group", "quota": ("3=:4",)}
    run_here("curate", output=str(tmp_path / "one"), **given, **asked)
    run_here("estimate_density", output=str(tmp_path / "density"), **given)
    run_here("select_subset", output=str(tmp_path / "two"), density=str(tmp_path / "density"), **given, **asked)
    kept = left(near, quality if by_quality else None)
    sigma = formula.density(points.vectors[kept])
    found = picks_of(tmp_path / "one")
    first = [points.ids[i] for i in kept].index(found["id"][0])
    group = np.array([points.ids[i][0] for i in kept])
    expected = formula.novelselect(
        points.vectors[kept],
        sigma,
        len(kept) // 10,
        first,
        quality=quality[kept] ** QUALITY if by_quality else None,
        may_follow=lambda picks: (group != "3") | ((group[picks] == "3").sum() < 4),
    )
    assert found["id"] == [points.ids[kept[i]] for i in expected.picks]
    assert found["density"] == sigma[expected.picks].tolist()
    assert picks_of(tmp_path / "two") == found
    distinct = len(np.unique(points.vectors, axis=0))
    content = json.loads((tmp_path / "one" / "_MANIFEST.json").read_text())["input"]
    assert (content["candidates"], content["distinct_embeddings"]) == (len(kept), len(kept))
    assert (content["duplicates_dropped"], content["near_duplicates_dropped"]) == (600 - distinct, distinct - len(kept))


def test_a_sample_selected_before_that_was_dropped_is_the_row_that_was_kept_for_it(run_here, near, tmp_path):
    """Whether its embedding comes with its id or not."""
    given = {"input": written(near, tmp_path / "in.parquet"), "near_duplicates": EPSILON, "budget": 5, "report": False}
    run_here("curate", output=str(tmp_path / "first"), **given)
    row = max(pq.read_table(tmp_path / "first" / "duplicates").to_pylist(), key=lambda row: row["distance"])
    assert row["distance"] > 0
    whole = pq.read_table(tmp_path / "in.parquet")
    befores = {name: pa.table({"id": [row[name]]}) for name in ("id", "kept")}
    befores["with embedding"] = whole.filter(pa.compute.equal(whole["id"], row["id"])).select(["id", "embedding"])
    for name, before in befores.items():
        pq.write_table(before, tmp_path / f"{name}.parquet")
        path = str(tmp_path / f"{name}.parquet")
        run_here("curate", output=str(tmp_path / f"after-{name}"), already_selected=path, **given)
    assert picks_of(tmp_path / "after-id") == picks_of(tmp_path / "after-kept")
    assert picks_of(tmp_path / "after-with embedding") == picks_of(tmp_path / "after-kept")


def test_the_list_of_what_was_dropped_is_no_data_of_the_result(run_here, near, tmp_path):
    """A folder of a job's density is read whole, without it."""
    given = {"input": written(near, tmp_path / "in.parquet"), "near_duplicates": EPSILON}
    run_here("estimate_density", output=str(tmp_path / "density"), **given)
    assert list((tmp_path / "density" / "duplicates").iterdir())
    run_here("select_subset", output=str(tmp_path / "out"), density=str(tmp_path / "density"), budget=3, **given)
    assert len(picks_of(tmp_path / "out")["id"]) == 3


def test_a_density_over_other_candidates_is_refused(run_here, near, tmp_path):
    given = {"input": written(near, tmp_path / "in.parquet")}
    run_here("estimate_density", output=str(tmp_path / "density"), near_duplicates=EPSILON, **given)
    run_here("estimate_density", output=str(tmp_path / "all"), **given)
    select = {**given, "output": str(tmp_path / "out"), "budget": 3}
    with pytest.raises(InputError, match=r"near_duplicates = 0.02, .* select with --near-duplicates 0.02"):
        run_here("select_subset", density=str(tmp_path / "density"), **select)
    with pytest.raises(InputError, match=r"near_duplicates = None, .* leave --near-duplicates out"):
        run_here("select_subset", density=str(tmp_path / "all"), near_duplicates=EPSILON, **select)
    with pytest.raises(InputError, match=r"quality_column = None, .* leave --quality-column out"):
        run_here(
            "select_subset",
            density=str(tmp_path / "density"),
            near_duplicates=EPSILON,
            quality_column="q",
            **select,
        )


@pytest.mark.parametrize("other", [{"duplicates": "keep"}, {"reference": "r"}, {"update": "s"}, {"save_state": "s"}])
def test_what_it_does_not_go_with_is_refused_in_one_sentence(other):
    (name,) = other
    with pytest.raises(UsageError, match=rf"--near-duplicates drops rows.*leave|--near-duplicates drops equal.*{name}"):
        check(Settings(input="in", output="out", near_duplicates=0.1, **other), "estimate_density")
    with pytest.raises(UsageError, match=r"--near-duplicates must be a finite number of at least 0, not -1"):
        check(Settings(input="in", output="out", near_duplicates=-1.0), "estimate_density")


@pytest.mark.more
def test_the_copies_of_each_data_set_that_is_measured_are_listed(tmp_path):
    vectors = RNG.normal(size=(50, 8))
    points = numbered(np.concatenate([vectors, vectors[:10]]))
    path = points.write(tmp_path / "in")
    done = run_job("measure_diversity", "--input", path, "--output", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    listed = pq.read_table(tmp_path / "out" / "duplicates" / "input-001").to_pylist()
    assert [(row["id"], row["kept"]) for row in listed] == list(zip(points.ids[50:60], points.ids[:10], strict=True))

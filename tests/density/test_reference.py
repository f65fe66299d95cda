"""Density over a reference: exact and by cells, with a candidate itself left out."""

import json
from dataclasses import replace

import numpy as np
import pytest
from conftest import Points, density_by_formula, error_line, numbered, run_job, write_parquet

from novelsum import formula
from novelsum.density.exact import estimate_density
from novelsum.density.reference import mark_itself
from novelsum.files.ingest import ingest
from novelsum.files.location import Location
from novelsum.files.source import open_source
from novelsum.settings import Settings


@pytest.mark.parametrize("method", ["exact", "approximate"])
@pytest.mark.parametrize("duplicates", ["drop", "keep"])
def test_a_reference_gives_the_density_over_it_and_leaves_a_candidate_itself_out(
    repeated, density, tmp_path, method, duplicates
):
    """Of a part of the pool over the whole of it: the whole pool's own density."""
    settings = {"density_method": method, "target_recall": 1.0, "duplicates": duplicates, "block_rows": 200}
    whole = repeated.write(tmp_path / "whole")
    part = repeated.write(tmp_path / "part", np.arange(600)[400:])
    found, _ = density(part, whole, **settings)
    true = density_by_formula(repeated, duplicates="keep" if duplicates == "keep" else "drop")
    by_vector = {repeated.vectors[int(id_[1:])].tobytes(): value for id_, value in true.items()}
    assert len(found) >= 150
    for id_, value in found.items():
        assert value == (true[id_] if duplicates == "keep" else by_vector[repeated.vectors[int(id_[1:])].tobytes()])


def test_a_candidate_is_left_out_of_a_reference_of_the_other_type(repeated, density, tmp_path):
    """Equal numbers are equal embeddings, whether they lie in files as floats or as doubles."""
    single = numbered(repeated.vectors[:60])
    path = single.write(tmp_path / "in")
    reference = Points(single.ids, single.vectors.astype(np.float64)).write(tmp_path / "reference")
    found, _ = density(path, reference, density_method="exact", neighbors=3)
    assert found == density(path, path, density_method="exact", neighbors=3)[0]


@pytest.mark.more
@pytest.mark.parametrize("method", ["exact", "approximate"])
def test_the_released_formula_over_another_corpus(repeated, density, tmp_path, method):
    pool, corpus = numbered(repeated.vectors[:150]), repeated.vectors[100:]
    reference = numbered(corpus).write(tmp_path / "ref")
    found, _ = density(
        pool.write(tmp_path / "in"), reference, formula="released", density_method=method, target_recall=1.0
    )
    true = formula.density(pool.vectors, 10, reference=corpus, formula="released")
    kept = pool.distinct().ids
    assert len(kept) < len(pool.ids)
    of_id = dict(zip(pool.ids, true.tolist(), strict=True))
    assert found == {id_: of_id[id_] for id_ in kept}


@pytest.mark.more
def test_curate_over_a_reference_says_so_in_the_manifest(repeated, tmp_path):
    reference = repeated.write(tmp_path / "whole")
    part = repeated.write(tmp_path / "part", np.arange(60))
    done = run_job("curate", "--input", part, "--reference", reference, "--output", tmp_path / "out", "--budget", 5)
    assert done.returncode == 0, done.stderr
    manifest = json.loads((tmp_path / "out" / "_MANIFEST.json").read_text())
    assert manifest["density"] == {"method": "exact"}
    assert manifest["reference"]["candidates"] == len(repeated.distinct().ids)
    other = write_parquet(tmp_path / "other.parquet", [f"y{i}" for i in range(20)], np.ones((20, 3), np.float32))
    done = run_job("curate", "--input", part, "--reference", other, "--output", tmp_path / "o", "--budget", 5)
    assert done.returncode == 3
    assert "have 3 dimensions, but those of" in error_line(done)


def test_a_file_that_says_what_the_reference_holds_is_never_missed_in_silence(spark, prompts, tmp_path):
    points = Points(prompts.ids[:120], prompts.vectors[:120])
    path, work = points.write(tmp_path / "in"), Location.of(str(tmp_path / "work"))
    settings = Settings(input=path, reference=path, block_rows=60, neighbors=3)
    source = open_source(path, "id", "embedding")
    pools = [ingest(spark, source, settings, folder) for folder in (work, work / "reference")]
    pool = mark_itself(spark, *pools, settings)
    (work / "itself").entries()[0].delete()
    for method in ("exact", "approximate"):
        with pytest.raises(Exception, match=r"itself/\S+\.parquet"):
            estimate_density(spark, pool, replace(settings, density_method=method), work, pools[1])

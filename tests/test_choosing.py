"""The study of objectives and strategies: its page says what its results say, and its picks are those of the engine."""

import json

import numpy as np
import pytest
from conftest import Points


def test_the_tables_of_choosing_are_those_of_the_committed_results(evidence):
    study = evidence("study")
    page, results = study.PAGE.read_text(), json.loads(study.RESULTS.read_text())
    assert study.with_tables(page, results) == page, "make study writes them"


def test_another_result_is_another_table(evidence):
    study = evidence("study")
    results = json.loads(study.RESULTS.read_text())
    corpus = next(iter(results))
    results[corpus]["configs"]["paper"]["5"]["novelsum"][0] *= 1.5
    results[corpus]["configs"]["paper-density0"]["5"]["over_default"]["novelsum"] += 0.5
    before = study.tables(json.loads(study.RESULTS.read_text()))
    after = study.tables(results)
    assert {name for name in before if before[name] != after[name]} >= {"strategies", "settings", "all"}


def test_every_corpus_has_the_main_strategies_at_all_budgets(evidence):
    study = evidence("study")
    results = json.loads(study.RESULTS.read_text())
    assert len(results) >= 4
    for corpus in results.values():
        for config in study.MAIN:
            assert set(corpus["configs"][config]) == set(study.BUDGETS)


@pytest.mark.parametrize("config", ["paper", "symmetric", "released", "random", "farthest-first", "k-means"])
def test_the_picks_of_the_study_are_those_of_the_engine(engine, evidence, sample: Points, tmp_path, config):
    """From the first pick that the seed draws, by the density of the whole pool, equal embeddings once."""
    subsets = evidence("subsets")
    points = Points(sample.ids[:400], sample.vectors[:400])
    kept = points.distinct()
    by_id = np.argsort(np.array(kept.ids))
    pool = subsets.Pool([kept.ids[i] for i in by_id], kept.vectors[by_id].astype(np.float32))
    chosen = subsets.CONFIGS[config]
    rows = subsets.rows_picked(pool, chosen, 3, 40)
    found = engine(points.write(tmp_path / "in"), 40, formula=chosen.formula, strategy=chosen.strategy, seed=3)
    assert [pool.ids[row] for row in rows] == found.picks


def test_texts_are_cleaned_drawn_by_their_ids_and_occur_once(evidence):
    corpora, sources = evidence("corpora"), evidence("sources")
    long = "one  two\n\tthree four five six"
    records = [sources.Record(f"r{i:02d}", f"{long} {i % 25}", "g") for i in range(50)]
    records += [sources.Record("short", "too short", "g"), sources.Record("few", f"{long} alone", "h")]
    cleaned = corpora._cleaned(records, 1000)
    assert [record.id for record in cleaned] == [f"r{i:02d}" for i in range(25)]
    assert cleaned[3].text == "one two three four five six 3"
    assert corpora._cleaned(records[::-1], 1000)[0].text in {record.text for record in cleaned}
    assert {corpora.split_of(f"id{i}") for i in range(100)} == {"pool", "held-out"}


def test_paragraphs_of_a_manual_page_are_plain_text_without_code(evidence):
    name = ".TH fork 2\n.SH NAME\nfork \\- create a child process\n.SH SYNOPSIS\n.B pid_t fork(void); and more words\n"
    prose = ".SH DESCRIPTION\n.BR fork ()\ncreates a \\fInew\\fP process \\(aqby\\(aq duplicating.\n.PP\n"
    code = ".EX\nint this_is_code(void) that is not prose at all;\n.EE\n"
    page = name + prose + code + "See\n.BR clone (2)\nfor all of the rest of it.\n"
    assert list(evidence("sources")._paragraphs(page)) == [
        "fork - create a child process",
        "fork() creates a new process 'by' duplicating.",
        "See clone(2) for all of the rest of it.",
    ]

"""Which objective, which strategy: all measures in docs/evidence/study.json, and the tables of docs/choosing.md.

    python tests/evidence/study.py            summarize out/evidence/measures, and write both
    python tests/evidence/study.py tables     write only the tables, from docs/evidence/study.json

The file has, of every corpus, its sizes, and of every configuration and budget the mean of each measure over the starts
and its standard deviation; and how many of their picks two starts, or a setting and the default, have in common.
"""

import json
import sys
from collections.abc import Iterable, Sequence
from itertools import combinations
from pathlib import Path
from statistics import mean, stdev
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "docs" / "evidence" / "study.json"
PAGE = ROOT / "docs" / "choosing.md"
BUDGETS = ("1", "2", "5", "10")
STRATEGIES = (
    "random",
    "k-means",
    "farthest-first",
    "paper",
    "symmetric",
    "released",
    "released-unit",
    "paper-density0",
)
MAIN = tuple(name for name in STRATEGIES if name != "released-unit")
SHOWN = {"paper-density0": "paper, κ2 = 0", "released-unit": "released, unit vectors"}

Study = dict[str, Any]


# --- results ----------------------------------------------------------------------------------------------


def summarize() -> Study:
    """The study from the measures and picks that are there."""
    import corpora
    import measures
    import subsets

    study: Study = {}
    for corpus in corpora.KINDS:
        found = measures.read(corpus)
        if not found:
            continue
        table = corpora.read(corpus, "pool")
        any_file = next((subsets.SUBSETS / corpus).glob("random.*.json"))
        of_corpus: Study = {
            "about": corpora.KINDS[corpus].about,
            "unit_vectors": corpora.KINDS[corpus].are_unit_vectors,
            "candidates": json.loads(any_file.read_text())["candidates"],
            "groups": len(table["group"].unique()),
            "configs": {},
        }
        for config in subsets.CONFIGS:
            by_budget = {}
            for budget in subsets.BUDGETS:
                keys = [(start, measures.key_of(config, start, budget)) for start in subsets.STARTS]
                starts = [start for start, key in keys if key in found]
                if not starts:
                    continue
                values = [found[measures.key_of(config, start, budget)] for start in starts]
                picks = [set(subsets.picks_of(corpus, config, start, budget)) for start in starts]
                by_budget[str(budget)] = {
                    "starts": len(starts),
                    "picks": len(picks[0]),
                    **{name: _spread([one[name] for one in values]) for name in measures.NAMES},
                    "shared_by_starts": _shared(combinations(picks, 2)),
                    **_over_default(found, config, budget, starts),
                    "shared_with_default": _shared(_beside_default(corpus, config, starts, budget, picks)),
                }
            if by_budget:
                of_corpus["configs"][config] = by_budget
        study[corpus] = of_corpus
    return study


def _beside_default(
    corpus: str, config: str, starts: list[int], budget: int, picks: list[set[str]]
) -> list[tuple[set[str], set[str]]]:
    """The picks of a setting beside those of its formula's defaults from the same start."""
    import subsets

    default, _, changed = config.partition("-")
    if not changed or default not in subsets.CONFIGS:
        return []
    return [
        (mine, set(subsets.picks_of(corpus, default, start, budget)))
        for start, mine in zip(starts, picks, strict=True)
        if subsets.path_of(corpus, default, start, budget).exists()
    ]


def _over_default(
    found: dict[str, dict[str, float | None]], config: str, budget: int, starts: list[int]
) -> dict[str, dict[str, float]]:
    """Each measure of a setting over that of its formula's defaults from the same start, less 1; means."""
    import measures

    default = config.partition("-")[0]
    pairs = [
        (found[measures.key_of(config, start, budget)], found[measures.key_of(default, start, budget)])
        for start in starts
        if config != default and measures.key_of(default, start, budget) in found
    ]
    if not pairs:
        return {}
    names = ("novelsum", "nearest", "coverage", "groups")
    return {"over_default": {name: _rounded(mean(a[name] / b[name] - 1.0 for a, b in pairs)) for name in names}}


def _shared(pairs: Iterable[tuple[set[str], set[str]]]) -> float | None:
    shares = [len(a & b) / len(a) for a, b in pairs]
    return _rounded(mean(shares)) if shares else None


def _spread(values: Sequence[float | None]) -> list[float] | None:
    """Mean and standard deviation, 0 of one value."""
    known = [value for value in values if value is not None]
    if not known:
        return None
    return [_rounded(mean(known)), _rounded(stdev(known) if len(known) > 1 else 0.0)]


def _rounded(value: float) -> float:
    return float(f"{value:.5g}")


# --- tables -----------------------------------------------------------------------------------------------


def tables(study: Study) -> dict[str, str]:
    """The tables of the page by the names of their places."""
    return {
        "strategies": _strategies(study),
        "others": _others(study),
        "settings": _settings(study),
        "starts": _starts(study),
        "corpora": _corpora(study),
        "all": _all(study),
    }


def _value(study: Study, corpus: str, config: str, budget: str, measure: str) -> float | None:
    if config == "released-unit" and study[corpus]["unit_vectors"]:
        config = "released"
    found = study[corpus]["configs"].get(config, {}).get(budget, {}).get(measure)
    return found[0] if isinstance(found, list) else found


def _over_random(study: Study, config: str, budget: str, measure: str) -> list[float]:
    """Of each corpus the measure of a configuration, over that of random, less 1."""
    ratios = []
    for corpus in study:
        mine, base = (_value(study, corpus, one, budget, measure) for one in (config, "random"))
        if mine is not None and base:
            ratios.append(mine / base - 1.0)
    return ratios


def _percent(values: list[float], digits: int = 0) -> str:
    if not values:
        return "–"
    text = f"{100 * mean(values):+.{digits}f}%"
    return text.replace("-", "−")


def _named(config: str) -> str:
    return SHOWN.get(config, config)


def _markdown(header: Sequence[str], rows: Iterable[Sequence[str]], words: int = 1) -> str:
    """A table, of which the first columns are ``words`` and the others numbers."""
    lines = ["| " + " | ".join(header) + " |", "|---" * words + "|--:" * (len(header) - words) + "|"]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def _leading(rows: list[list[str]], keys: list[list[float | None]], columns: Sequence[tuple[int, bool]]) -> None:
    """Make the best of some columns bold. ``columns``: the number of each, and whether high is good."""
    for column, high in columns:
        known = [key[column] for key in keys if key[column] is not None]
        if known:
            best = max(known) if high else min(known)
            for row, key in zip(rows, keys, strict=True):
                if key[column] == best:
                    row[column] = f"**{row[column]}**"


def _strategies(study: Study) -> str:
    """NovelSum and coverage of each strategy against random, mean over the corpora; on how many it is better at 5%."""
    header = [""]
    for title in ("NovelSum", "to nearest pick"):
        header += [*(f"{title}, {budget}%" for budget in BUDGETS), "better on"]
    rows, keys = [], []
    for config in STRATEGIES[1:]:
        row, key = [_named(config)], [None]
        for measure, better in (("novelsum", lambda r: r > 0), ("coverage", lambda r: r < 0)):
            ratios = [_over_random(study, config, budget, measure) for budget in BUDGETS]
            row += [*(_percent(ratio, 1) for ratio in ratios), f"{sum(map(better, ratios[2]))} of {len(ratios[2])}"]
            key += [*(mean(ratio) if ratio else None for ratio in ratios), None]
        rows.append(row)
        keys.append(key)
    _leading(rows, keys, [(at, at <= 4) for at in (1, 2, 3, 4, 6, 7, 8, 9)])
    return _markdown(header, rows)


def _others(study: Study) -> str:
    """The other measures against random at 5%, mean over the corpora."""
    measured = {
        "NovelSum of released": "novelsum_released",
        "NovelSum, κ2 = 0": "novelsum_distances",
        "nearest other pick": "nearest",
        "groups reached": "groups",
        "characters a text": "length",
    }
    rows, keys = [], []
    for config in STRATEGIES[1:]:
        ratios = [_over_random(study, config, "5", name) for name in measured.values()]
        rows.append([_named(config), *(_percent(ratio, 1) for ratio in ratios)])
        keys.append([None, *(mean(ratio) if ratio else None for ratio in ratios)])
    _leading(rows, keys, [(at, True) for at in (1, 2, 3, 4)])
    return _markdown(["", *measured], rows)


def _settings(study: Study) -> str:
    """Each setting moved, against the defaults of its formula, at 5%."""
    rows = []
    for formula in ("paper", "symmetric"):
        for moved, shown in (
            ("K5", "K = 5"),
            ("K20", "K = 20"),
            ("K50", "K = 50"),
            ("proximity0.5", "κ1 = 0.5"),
            ("proximity2", "κ1 = 2"),
            ("density0", "κ2 = 0"),
        ):
            config = f"{formula}-{moved}"
            of_each = [study[corpus]["configs"].get(config, {}).get("5", {}).get("over_default") for corpus in study]
            known_of = [one for one in of_each if one]
            if not known_of:
                continue
            ratios = [[one[name] for one in known_of] for name in ("novelsum", "nearest", "coverage", "groups")]
            same = [_value(study, corpus, config, "5", "shared_with_default") for corpus in study]
            known = [one for one in same if one is not None]
            shared = f"{100 * mean(known):.0f}%" if known else "–"
            corpora_of = str(len(known_of))
            rows.append([formula, shown, *(_percent(ratio, 1) for ratio in ratios), shared, corpora_of])
    header = ["formula", "changed", "NovelSum", "nearest other", "to nearest pick", "groups", "same picks", "corpora"]
    return _markdown(header, rows, words=2)


def _starts(study: Study) -> str:
    """How much hangs on the first pick, or on the lots, at 5%."""
    rows = []
    for config in MAIN:
        same = [_value(study, corpus, config, "5", "shared_by_starts") for corpus in study]
        known = [one for one in same if one is not None]
        spreads = []
        for corpus in study:
            found = study[corpus]["configs"].get(config, {}).get("5")
            if found and found["starts"] > 1:
                spreads.append([found[name][1] / found[name][0] for name in ("novelsum", "coverage")])
        if known and spreads:
            each = [f"{100 * mean(column):.1f}%" for column in zip(*spreads, strict=True)]
            rows.append([_named(config), f"{100 * mean(known):.0f}%", *each])
    return _markdown(["", "picks that two starts share", "spread of NovelSum", "spread to nearest pick"], rows)


def _corpora(study: Study) -> str:
    """What the corpora are."""
    rows = []
    for name, of_corpus in study.items():
        best = []
        for measure, high in (("novelsum", True), ("coverage", False)):
            values = {config: _value(study, name, config, "5", measure) for config in MAIN}
            known = {config: value for config, value in values.items() if value is not None}
            best.append(_named((max if high else min)(known, key=lambda config: known[config])) if known else "–")
        rows.append([name, of_corpus["about"], *best, f"{of_corpus['candidates']:,}", str(of_corpus["groups"])])
    return _markdown(
        ["corpus", "texts", "leads NovelSum at 5%", "leads coverage at 5%", "candidates", "groups"], rows, words=4
    )


def _all(study: Study) -> str:
    """A table for each corpus with all configurations."""
    parts = []
    for corpus, of_corpus in study.items():
        header = ["", *(f"NovelSum {budget}%" for budget in BUDGETS), *(f"to nearest {budget}%" for budget in BUDGETS)]
        header += [f"groups {budget}%" for budget in BUDGETS]
        rows, keys = [], []
        for config, by_budget in of_corpus["configs"].items():
            row: list[str] = [_named(config)]
            key: list[float | None] = [None]
            for measure, form in (("novelsum", "{:.4g}"), ("coverage", "{:.3f}"), ("groups", "{:.1f}")):
                for budget in BUDGETS:
                    found = by_budget.get(budget, {}).get(measure)
                    key.append(found[0] if found else None)
                    spread = (
                        f" ± {found[1]:.2g}"
                        if found and measure == "novelsum" and by_budget[budget]["starts"] > 1
                        else ""
                    )
                    row.append(form.format(found[0]) + spread if found else "–")
            rows.append(row)
            keys.append(key)
        _leading(rows, keys, [(at, at <= 4) for at in range(1, 9)])
        starts = {one["starts"] for by_budget in of_corpus["configs"].values() for one in by_budget.values()}
        of_starts = f"{min(starts)} to {max(starts)}" if len(starts) > 1 else str(max(starts))
        title = f"**{corpus}**: {of_corpus['about']}. {of_corpus['candidates']:,} candidates, {of_corpus['groups']}"
        parts.append(f"{title} groups, starts: {of_starts}.\n\n{_markdown(header, rows)}")
    return "\n\n".join(parts)


def with_tables(page: str, study: Study) -> str:
    """The page with its tables made anew, each between the comments ``<!-- NAME -->`` and ``<!-- end NAME -->``."""
    for name, table in tables(study).items():
        start, end = f"<!-- {name} -->\n", f"\n<!-- end {name} -->"
        before, found, rest = page.partition(start)
        _, closed, after = rest.partition(end)
        if not found or not closed:
            raise SystemExit(f"error: {PAGE.name} has no place for the table {name}: {start.strip()} … {end.strip()}")
        page = f"{before}{start}\n{table}\n{end}{after}"
    return page


def main(arguments: list[str]) -> None:
    """Write the results, unless only the tables are asked for, and the tables."""
    if arguments != ["tables"]:
        study = summarize()
        if not study:
            raise SystemExit("error: nothing is measured yet; make evidence-data does it")
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps(study, ensure_ascii=False, indent=1) + "\n")
    study = json.loads(RESULTS.read_text())
    PAGE.write_text(with_tables(PAGE.read_text(), study))


if __name__ == "__main__":
    main(sys.argv[1:])

"""Does it help training? All scores in docs/evidence/training.jsonl, and the tables of docs/evidence.md.

    python tests/evidence/evidence.py            collect out/evidence, and write both
    python tests/evidence/evidence.py tables     write only the tables, from docs/evidence/training.jsonl

A line of the results is a subset: its measures, bytes, and scores of the probe and of the language model, null where
there is none.
"""

import json
import math
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from intervals import Interval, interval, rank_correlation
from trainings import STRATEGIES

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "docs" / "evidence" / "training.jsonl"
PAGE = ROOT / "docs" / "evidence.md"
SHOWN = {"paper-density0": "paper, κ2 = 0"}
MEASURED = {
    "novelsum": "NovelSum, paper",
    "novelsum_released": "NovelSum, released",
    "novelsum_distances": "NovelSum, κ2 = 0",
    "coverage": "coverage",
    "bytes": "bytes of text",
}
"""What is correlated with the scores; coverage with its sign changed, so that more is better everywhere."""
LEAST_STARTS = 2
MATCHED, CONTROL = ("paper", "symmetric"), "bytes-of-"
"""Strategies beside whose subsets random texts with as many bytes are learned, and what those are called: before it."""

Row = dict[str, Any]


class Score(NamedTuple):
    """A column of the results. ``gain``: how much better a value is than another; in its own unit, or in percent."""

    column: str
    digits: int
    gain: Callable[[float, float], float]


SCORES = {
    "probe": Score("balanced", 3, lambda value, other: value - other),
    "accuracy": Score("accuracy", 3, lambda value, other: value - other),
    "language": Score("bits", 3, lambda value, other: other - value),
    "language-groups": Score("bits_by_group", 3, lambda value, other: other - value),
}


# --- results ----------------------------------------------------------------------------------------------


def collect() -> list[Row]:
    """A row for each subset that has a score."""
    import corpora
    import measures
    import probe
    from trainings import Kept, Task

    columns = ("labelled", "accuracy", "balanced", "texts", "bytes", "bits", "bits_by_group", "seconds")
    found: dict[Task, Row] = {}
    # Of the language model any setup will do: its module needs torch, and results of one setup only are ever kept.
    language = corpora.EVIDENCE / "language.jsonl"
    lines = [json.loads(line) for line in language.read_text().splitlines()] if language.exists() else []
    setups = [line["setup"] for line in lines][-1:]
    for kept in (Kept(probe.PROBES, probe.SETUP), *(Kept(language, setup) for setup in setups)):
        for task, result in kept:
            row = found.setdefault(task, {"ids": result["ids"]})
            if row["ids"] == result["ids"]:
                row |= {name: result[name] for name in columns if name in result}
    controls = [CONTROL + strategy for strategy in MATCHED]
    order = {name: place for place, name in enumerate([*corpora.KINDS, *STRATEGIES, *controls])}
    rows = []
    known = [task for task in found if task.config in order]
    for task in sorted(known, key=lambda task: (order[task.corpus], task.start, task.budget, order[task.config])):
        measured = measures.read(task.corpus).get(measures.key_of(task.config, task.start, task.budget), {})
        values = {name: found[task].get(name) for name in columns}
        values |= {name: measured.get(name) for name in ("novelsum", "novelsum_released", "novelsum_distances")}
        values["coverage"] = measured.get("coverage")
        rows.append(task._asdict() | {name: _rounded(value) for name, value in values.items()})
    return rows


def _rounded(value: float | None) -> float | int | None:
    return value if value is None or isinstance(value, int) else float(f"{value:.5g}")


# --- cells: a corpus, a budget ----------------------------------------------------------------------------


class Cell(NamedTuple):
    """All strategies on one corpus at one budget. ``rows``: of each strategy those of ``starts``, in their order."""

    corpus: str
    budget: int
    starts: list[int]
    rows: dict[str, list[Row]]

    def values(self, strategy: str, column: str) -> list[float]:
        """A column of a strategy, by start."""
        return [row[column] for row in self.rows[strategy]]

    def mean(self, strategy: str, column: str) -> float:
        """Its mean over starts; nan where a value is missing."""
        values = self.values(strategy, column)
        return math.nan if None in values else float(np.mean(values))

    def gain(self, strategy: str, score: Score) -> Interval:
        """How much better a strategy is than random, start by start."""
        pairs = zip(self.values(strategy, score.column), self.values("random", score.column), strict=True)
        return interval([score.gain(own, random) for own, random in pairs])

    def leader(self, score: Score) -> str:
        """The strategy with the best mean."""
        return max(self.rows, key=lambda strategy: score.gain(self.mean(strategy, score.column), 0.0))


def cells(rows: Iterable[Row], score: Score) -> list[Cell]:
    """The cells in which every strategy has a score from at least LEAST_STARTS starts; these starts alone count."""
    found: dict[tuple[str, int], dict[str, dict[int, Row]]] = {}
    for row in rows:
        if row[score.column] is not None and row["config"] in STRATEGIES:
            of_cell = found.setdefault((row["corpus"], row["budget"]), {name: {} for name in STRATEGIES})
            of_cell[row["config"]][row["start"]] = row
    made = []
    for (corpus, budget), by_strategy in found.items():
        starts = sorted(set.intersection(*(set(by_start) for by_start in by_strategy.values())))
        if len(starts) >= LEAST_STARTS:
            picked = {name: [by_start[start] for start in starts] for name, by_start in by_strategy.items()}
            made.append(Cell(corpus, budget, starts, picked))
    return made


# --- tables -----------------------------------------------------------------------------------------------


def tables(rows: list[Row]) -> dict[str, str]:
    """The parts of the page that are made, by name."""
    of = {name: cells(rows, score) for name, score in SCORES.items()}
    return {
        "summary": _summary(of) + _lengths(rows) + _cost(rows),
        "wins": _wins(of),
        "correlation": _correlations(of),
        "probe": _scores(of["probe"], SCORES["probe"]),
        "accuracy": _scores(of["accuracy"], SCORES["accuracy"]),
        "language": _scores(of["language"], SCORES["language"]),
        "language-groups": _scores(of["language-groups"], SCORES["language-groups"]),
        "bytes": _bytes(of["language"]),
        "matched": _matched(rows),
    }


def named(strategy: str) -> str:
    """A strategy as tables name it."""
    return SHOWN.get(strategy, strategy)


def _counts(of: list[Cell], strategy: str, score: Score) -> tuple[int, int, int]:
    """In how many cells the strategy is better than random, worse, and undecided, by the 95% interval."""
    signs = [cell.gain(strategy, score).sign for cell in of]
    return signs.count(1), signs.count(-1), signs.count(0)


def _from_to(numbers: Sequence[int]) -> str:
    """Such as "2 to 5"."""
    return " to ".join(str(number) for number in sorted({numbers[0], numbers[-1]}))


def _summary(of: dict[str, list[Cell]]) -> str:
    """What the numbers say, in sentences."""
    words = []
    for name, told in (("probe", "The probe"), ("language", "The language model")):
        score, here = SCORES[name], of[name]
        if not here:
            words.append(f"- **{told}**: no case is done yet.")
            continue
        others = [strategy for strategy in STRATEGIES if strategy != "random"]
        better = {strategy: _counts(here, strategy, score) for strategy in others}
        leads = [cell.leader(score) for cell in here]
        first = max(STRATEGIES, key=leads.count)
        best = max(others, key=lambda strategy: better[strategy][0] - better[strategy][1])
        starts = sorted({len(cell.starts) for cell in here})
        words.append(
            f"- **{told}** ({len(here)} cases of a corpus and a budget, {_from_to(starts)} starts): "
            f"{named(first)} has the best mean most often ({leads.count(first)} of {len(here)}), random in "
            f"{leads.count('random')}. Against random by the 95% intervals: "
            + "; ".join(f"{named(s)} better in {b}, worse in {w}" for s, (b, w, _) in better.items())
            + f". In better less worse, {named(best)} is ahead."
        )
    for name, told in (("probe", "the probe"), ("language", "the language model")):
        values = {column: _correlation(of[name], column, SCORES[name]) for column in MEASURED}
        means = {c: float(np.mean(v)) for c, v in values.items() if v and len(v) == len(of[name])}
        if means:
            words.append(
                f"- **Rank correlation with {told}**, mean over {len(of[name])} cases: "
                + ", ".join(f"{MEASURED[column]} {mean:+.2f}" for column, mean in means.items())
                + ". The paper has 0.97 in its own case."
            )
    return "\n".join(words)


def _cost(rows: list[Row]) -> str:
    """What the trainings of the language model took."""
    seconds = [row["seconds"] for row in rows if row.get("seconds") is not None]
    if not seconds:
        return ""
    return (
        f"\n- **Cost**: {len(seconds):,} trainings of the language model took {np.median(seconds):.1f} seconds of one "
        f"core each in the median, {min(seconds):.1f} to {max(seconds):.1f}."
    )


def _wins(of: dict[str, list[Cell]]) -> str:
    columns = ("probe", "accuracy", "language", "language-groups")
    rows = []
    for strategy in STRATEGIES:
        row = [named(strategy)]
        for name in columns:
            leads = sum(cell.leader(SCORES[name]) == strategy for cell in of[name])
            better, worse, open_ = _counts(of[name], strategy, SCORES[name])
            row.append(f"{leads}" if strategy == "random" else f"{leads}: {better} / {worse} / {open_}")
        rows.append(row)
    header = ["strategy", "balanced accuracy", "accuracy", "bits per byte", "bits per byte, by group"]
    return _markdown(header, rows)


def _correlation(of: list[Cell], column: str, score: Score) -> list[float]:
    """Spearman's correlation of a measure and a score over strategies, of each cell that has the measure."""
    found = []
    for cell in of:
        measured = [cell.mean(strategy, column) * (-1 if column == "coverage" else 1) for strategy in STRATEGIES]
        scored = [score.gain(cell.mean(strategy, score.column), 0.0) for strategy in STRATEGIES]
        if not any(map(math.isnan, measured)):
            found.append(rank_correlation(measured, scored))
    return [value for value in found if not math.isnan(value)]


def _correlations(of: dict[str, list[Cell]]) -> str:
    rows = []
    for name, told in (("probe", "probe"), ("language", "language model")):
        corpora = list(dict.fromkeys(cell.corpus for cell in of[name]))
        for corpus in [*corpora, None]:
            here = [cell for cell in of[name] if corpus in (cell.corpus, None)]
            row = [told, corpus or "**all**"]
            for column in MEASURED:
                values = _correlation(here, column, SCORES[name])
                row.append(f"{np.mean(values):+.2f} ({min(values):+.2f} to {max(values):+.2f})" if values else "")
            rows.append(row)
    return _markdown(["score", "corpus", *MEASURED.values()], rows, words=2)


def _scores(of: list[Cell], score: Score) -> str:
    rows = []
    for cell in of:
        row = [cell.corpus, f"{cell.budget}%", str(len(cell.starts))]
        for strategy in STRATEGIES:
            mean, half = interval(cell.values(strategy, score.column))
            told = f"{mean:.{score.digits}f} ± {half:.{score.digits}f}"
            sign = 0 if strategy == "random" else cell.gain(strategy, score).sign
            told = f"**{told}**" if strategy == cell.leader(score) else told
            row.append(told + {1: " ▲", -1: " ▼", 0: ""}[sign])
        rows.append(row)
    return _markdown(["corpus", "budget", "starts", *map(named, STRATEGIES)], rows, words=2)


def _bytes(of: list[Cell]) -> str:
    rows = []
    for corpus in dict.fromkeys(cell.corpus for cell in of):
        for cell in (cell for cell in of if cell.corpus == corpus):
            random = cell.mean("random", "bytes")
            rest = [f"{cell.mean(strategy, 'bytes') / random:.2f}" for strategy in STRATEGIES[1:]]
            rows.append([corpus, f"{cell.budget}%", f"{random:,.0f}", *rest])
    return _markdown(["corpus", "budget", "random, bytes", *map(named, STRATEGIES[1:])], rows, words=2)


def _gains(rows: list[Row], strategy: str, other: str) -> dict[tuple[str, int], Interval]:
    """How many bits per byte the picks of a strategy teach better than others, in each cell that has both."""
    score = SCORES["language"]
    found = {(row["corpus"], row["budget"], row["config"], row["start"]): row["bits"] for row in rows}
    gains = {}
    for cell in cells(rows, score):
        place = (cell.corpus, cell.budget)
        bits = [(found[*place, strategy, start], found.get((*place, other, start))) for start in cell.starts]
        differences = [score.gain(own, others) for own, others in bits if others is not None]
        if len(differences) >= LEAST_STARTS:
            gains[place] = interval(differences)
    return gains


def _matched(rows: list[Row]) -> str:
    """A strategy beside random texts in equal number, and beside random texts with as many bytes."""
    columns = {
        f"{named(strategy)}, as many {than}": _gains(rows, strategy, other)
        for strategy in MATCHED
        for than, other in (("texts", "random"), ("bytes", CONTROL + strategy))
    }
    lines = []
    for cell in cells(rows, SCORES["language"]):
        place = (cell.corpus, cell.budget)
        told = ["{:+.3f} ± {:.3f}".format(*gains[place]) if place in gains else "" for gains in columns.values()]
        lines.append([cell.corpus, f"{cell.budget}%", *told])
    return _markdown(["corpus", "budget", *columns], lines, words=2)


def _told(gains: list[Interval]) -> str:
    signs, mean = [gain.sign for gain in gains], np.mean([gain.mean for gain in gains])
    return f"{signs.count(1)} better and {signs.count(-1)} worse ({mean:+.3f} bits per byte in the mean)"


def _lengths(rows: list[Row]) -> str:
    """What the controls say, in a sentence."""
    words = []
    for strategy in MATCHED:
        of_bytes = _gains(rows, strategy, CONTROL + strategy)
        of_texts = {place: gain for place, gain in _gains(rows, strategy, "random").items() if place in of_bytes}
        if of_bytes:
            told = [_told(list(gains.values())) for gains in (of_texts, of_bytes)]
            words.append(
                f"\n- **{named(strategy)} against random, for the language model**, {len(of_bytes)} cases: "
                f"with as many texts {told[0]}, with as many bytes {told[1]}."
            )
    return "".join(words)


def _markdown(header: Sequence[str], rows: Iterable[Sequence[str]], words: int = 1) -> str:
    lines = [header, ["---"] * words + ["---:"] * (len(header) - words), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


# --- files ------------------------------------------------------------------------------------------------


def read() -> list[Row]:
    """The committed results."""
    return [json.loads(line) for line in RESULTS.read_text().splitlines()]


def with_tables(page: str, rows: list[Row]) -> str:
    """The page with its tables made anew, each between the comments ``<!-- NAME -->`` and ``<!-- end NAME -->``."""
    for name, table in tables(rows).items():
        start, end = f"<!-- {name} -->\n", f"\n<!-- end {name} -->"
        if start not in page or end not in page:
            raise SystemExit(f"error: {PAGE} has no place for the table {name}")
        page = page[: page.index(start) + len(start)] + table + page[page.index(end) :]
    return page


def main(arguments: list[str]) -> None:
    """Write the results, unless only tables are asked for, and the page."""
    if arguments != ["tables"]:
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text("".join(json.dumps(row) + "\n" for row in collect()))
    PAGE.write_text(with_tables(PAGE.read_text(), read()))


if __name__ == "__main__":
    main(sys.argv[1:])

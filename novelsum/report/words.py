"""What a report says in words: what was asked, by which rules, and what came out, in sentences that hold for this run.

Each takes the data of the report and gives HTML. A strategy other than NovelSelect is named for what it does.
"""

from typing import Any

from novelsum.formulas import EQUATIONS
from novelsum.groups import in_words
from novelsum.report.comparison import NAMES
from novelsum.report.pieces import name
from novelsum.report.returns import returns_in_words
from novelsum.report.text import amount, escaped, number, share

_CHOSE = {**NAMES, "random": "a random draw"}
"""Strategies as what chose the picks."""
_NAMED = 5
"""Earlier selections that are named."""


def strategy_of(data: dict[str, Any]) -> str:
    """By which strategy the picks were chosen, as the setting says it."""
    return str(data["settings"].get("strategy") or "novelselect")


def summary(data: dict[str, Any]) -> str:
    """What was asked and what came out: two paragraphs, and between them a line for each feature that was used; last
    comes the verdict of a comparison.
    """
    lines = [line for line in (told(data) for told in _FEATURES) if line]
    features = f"<ul class=features>{''.join(f'<li>{line}</li>' for line in lines)}</ul>" if lines else ""
    verdict = ""
    if data["comparison"]:
        verdict = f"<p><b>Against other strategies</b>: {escaped(data['comparison']['verdict'])}</p>"
    return f"<p>{_asked(data)}</p>{features}<p>{_came_out(data)}</p>{verdict}"


# --- what was asked ---------------------------------------------------------------------------------------


def _asked(data: dict[str, Any]) -> str:
    settings, found, selected = data["settings"], data["input"], data["selected"]
    called = _CHOSE.get(strategy_of(data), escaped(strategy_of(data)))
    called, picks = called[:1].upper() + called[1:], selected["picks"]
    dropped = [f"{rows:,} {escaped(reason)}" for reason, rows in found["bad_rows"].items()]
    for key, what in (("duplicates_dropped", "duplicates"), ("near_duplicates_dropped", "near-copies")):
        if found[key]:
            dropped.append(f"{found[key]:,} {what}")
    aside = f", of which {', '.join(dropped)} were set aside" if dropped else ""
    return (
        f"{called} chose <b>{picks:,}</b> of the {found['candidates']:,} candidates "
        f"in {name(settings['input'], 200)}, {found['input_rows']:,} rows{aside}. {_rule(data)} {_first(data)}"
    )


def _rule(data: dict[str, Any]) -> str:
    """By what rule a pick was chosen."""
    settings, strategy = data["settings"], strategy_of(data)
    weight = ""
    if settings["quality_column"] is not None and settings["quality_power"]:
        weight += "·q" + _power(settings["quality_power"])
    if settings["cost_column"] is not None and settings["cost_power"]:
        weight += "/cost" + _power(settings["cost_power"])
    limits = [
        *(["its group may have another by the quotas"] if settings["quota"] else []),
        *(["its cost still fits"] if settings["cost_budget"] is not None else []),
        *(["it is far enough from all before"] if settings["min_distance"] else []),
    ]
    among = f"the candidates where {_listed(limits)}" if limits else "all candidates left"
    if strategy == "novelselect":
        what = f"the greatest v(x){weight}, v(x) being its novelty," if weight else "the greatest novelty v(x)"
        return f"Each pick has {what} of {among}, against all samples selected before it, {_by_formula(data)}."
    score = weight.lstrip("·") if weight.startswith("·") else f"1{weight}"
    rule = {
        "k-means": f"Each pick is nearest to a centroid of k-means, of {among}"
        + (f"; candidates weigh {score} in the centroids, and distances are divided by it." if weight else "."),
        "farthest-first": f"Each pick has the greatest distance{weight} to the nearest sample selected before it, of "
        f"{among}.",
        "random": f"Each pick is drawn by the seed from {among}, "
        + (f"with a chance in proportion to {score}." if weight else "whatever its embedding."),
    }.get(strategy, "")
    return f"{rule} Novelty is shown as NovelSelect would count it, {_by_formula(data)}; it chose no pick."


def _by_formula(data: dict[str, Any]) -> str:
    settings = data["settings"]
    powers = " and ".join(
        f"κ<sub>{index}</sub>&nbsp;=&nbsp;{settings[key]:g}"
        for index, key in ((1, "proximity_power"), (2, "density_power"))
    )
    return (
        f"by {EQUATIONS[settings['formula']].words} with {settings['metric']} distance, "
        f"K&nbsp;=&nbsp;{settings['neighbors']}, {powers}"
    )


def _power(power: float) -> str:
    return "" if power == 1 else f"<sup>{power:g}</sup>"


def _first(data: dict[str, Any]) -> str:
    """How the first pick came about."""
    settings, selected, strategy = data["settings"], data["selected"], strategy_of(data)
    first = f"The first pick, {name(selected['first'], 80)},"
    if strategy == "k-means":
        return f"The first centroids were drawn by seed {selected['seed']}."
    if strategy == "random":
        return f"The seed was {selected['seed']}."
    if selected["already_selected"]:
        before = "farthest from" if strategy == "farthest-first" else "chosen against"
        return f"{first} was {before} the samples selected before, as all others were."
    if settings["first"] is not None:
        return f"{first} was given."
    return f"{first} was drawn by seed {selected['seed']}."


# --- features that were used ------------------------------------------------------------------------------


def _before(data: dict[str, Any]) -> str:
    selected = data["selected"]
    count = selected["already_selected"]
    if not count:
        return ""
    outputs, left_out = selected["began_with"], selected["left_out"]
    named = ", ".join(name(one, 120) for one in outputs[:_NAMED])
    more = f" and {len(outputs) - _NAMED:,} more" if len(outputs) > _NAMED else ""
    of = f", the picks of {len(outputs):,} selection{_s(len(outputs))} ({named}{more})" if outputs else ""
    source = "" if outputs else f", those of {name(data['settings']['already_selected'], 120)}"
    out = f" {len(left_out):,} later selection{_s(len(left_out))} did not count." if left_out else ""
    return (
        f"<b>Samples selected before.</b> S held {count:,} sample{_s(count)} at the first pick{of}{source}. They count "
        f"in every novelty and nearest distance here, and not among the picks.{out}"
    )


def _quality(data: dict[str, Any]) -> str:
    found, settings = data["quality"], data["settings"]
    if found is None:
        return ""
    used = ""
    if strategy_of(data) == "novelselect" and not settings["quality_power"]:
        used = " It had no say in the picks, as its power is 0."
    return (
        f"<b>Quality</b> ({_column(settings['quality_column'])}). The picks have {number(found['selected_mean'], 4)} "
        f"on average, the pool {number(found['pool_mean'], 4)}.{used}"
    )


def _quotas(data: dict[str, Any]) -> str:
    found, selected = data["quotas"], data["selected"]
    if found is None:
        return ""
    count = found["count"]
    parts = [f"{count:,} group{_s(count)} of {_column(data['groups']['column'])} {'has' if count == 1 else 'have'} one"]
    if found["others"]:
        parts.append(f"each of the {found['others']['count']:,} others has that of <code>*</code>")
    met = "all least numbers are met"
    if found["below_their_least"]:
        missed = [
            f"{name(group, 40)} has {got:,} of at least {least:,}"
            for group, (got, least) in list(selected["unmet"].items())[:_NAMED]
        ]
        few = found["below_their_least"]
        met = f"<b>{few:,} least number{_s(few)} could not be met</b>{': ' if missed else ''}{'; '.join(missed)}"
    full = found["at_their_most"]
    limit = f"; {full:,} group{_s(full)} {'has' if full == 1 else 'have'} as many picks as allowed" if full else ""
    return f"<b>Quotas.</b> {', '.join(parts)}; {met}{limit}. What was asked and picked stands under Groups."


def _costs(data: dict[str, Any]) -> str:
    found, selected, settings = data["cost"], data["selected"], data["settings"]
    if found is None:
        return ""
    budget = selected.get("cost_budget")
    of = ""
    if budget is not None:
        of = f" of a budget of {amount(budget)}"
    return (
        f"<b>Costs</b> ({_column(settings['cost_column'])}). The picks cost {amount(found['selected'])}{of}: "
        f"{number(found['selected_mean'], 4)} each on average, where the pool’s candidates cost "
        f"{number(found['pool_mean'], 4)}."
    )


def _ended(data: dict[str, Any]) -> str:
    """What ended the selection, where it was not the number of picks."""
    told = {
        "cost": "nothing that was left could still be paid",
        "distance": f"every candidate left was nearer than {data['settings']['min_distance']:g} to a sample selected",
        "cost or distance": "what was left cost too much or was too near to a sample selected",
        "candidates": "no candidate was left",
    }.get(data["selected"].get("ended_by", "budget"))
    return f"<b>The end.</b> It ended after {data['selected']['picks']:,} picks, as {told}." if told else ""


def _copies(data: dict[str, Any]) -> str:
    found, settings = data["input"], data["settings"]
    if settings["near_duplicates"] is None:
        return ""
    kept = "the best by quality" if settings["quality_column"] is not None else "the one with the smallest id"
    return (
        f"<b>Near-copies.</b> Of rows within {settings['near_duplicates']:g} of one another {kept} stayed: "
        f"{found['near_duplicates_dropped']:,} near-copies and {found['duplicates_dropped']:,} equal ones were dropped "
        "before density was estimated. <code>duplicates/</code> lists them."
    )


def _approximations(data: dict[str, Any]) -> str:
    found = data["density_estimate"]
    if found["method"] == "given":
        return f"<b>Density.</b> The factors σ were given, by {name(data['settings']['density'], 120)}."
    if found.get("recall") is None or found["method"] == "exact":
        return ""
    error = ""
    if found.get("sigma_error_median") is not None:
        error = (
            f"; σ is off by {_error(found['sigma_error_median'])} at the median and {_error(found['sigma_error_p99'])} "
            "at the 99th percentile"
        )
    return (
        f"<b>Density is approximate.</b> {100 * found['recall']:.2f}% of the nearest neighbours were found, measured "
        f"on {found['measured']:,} rows searched exactly{error}. The picks are exact given these factors."
    )


_FEATURES = (_before, _quality, _quotas, _costs, _copies, _approximations, _ended)


# --- what came out ----------------------------------------------------------------------------------------


def _came_out(data: dict[str, Any]) -> str:
    out = [returns_in_words(data["novelty"])]
    medians = [data["density"][f"{which}_quantiles"]["50%"] for which in ("selected", "pool")]
    if medians[0] < 0.99 * medians[1]:
        lean = "leans to sparse regions of the pool"
    else:
        lean = "leans to dense regions of the pool" if medians[0] > 1.01 * medians[1] else "is as dense as the pool"
    out.append(f"By density the selection {lean} (median factor {medians[0]:.3g}, the pool’s {medians[1]:.3g}).")
    if data["groups"]:
        out.append(f"It reaches {data['groups']['reached']:,} of {data['groups']['count']:,} groups{_shifts(data)}.")
    return " ".join(out)


def _shifts(data: dict[str, Any]) -> str:
    """The groups that gain and lose the most share."""
    pool, picked = data["input"]["candidates"], data["selected"]["picks"]
    rows = sorted(data["groups"]["largest"], key=lambda row: row["selected"] / picked - row["pool"] / pool)
    low, high = rows[0], rows[-1]
    if high["selected"] * pool <= high["pool"] * picked:
        return ", each by its share of the pool"
    return (
        f"; against the pool {name(in_words(high['group']), 40)} gains most "
        f"({share(high['pool'], pool)} → {share(high['selected'], picked)}) and "
        f"{name(in_words(low['group']), 40)} loses most "
        f"({share(low['pool'], pool)} → {share(low['selected'], picked)})"
    )


def measure(data: dict[str, Any]) -> str:
    """NovelSum as the report has it, with its formula where that is not the one of the selection."""
    formula = data["settings"]["formula"]
    measured_as = EQUATIONS[formula].measured_as
    return "NovelSum" if measured_as == formula else f"NovelSum by {EQUATIONS[measured_as].words}"


def aim(data: dict[str, Any]) -> str:
    """How the rule of the picks and NovelSum hang together, as one or two sentences."""
    settings, strategy = data["settings"], strategy_of(data)
    asked = [
        *(["quality"] if data["quality"] and settings["quality_power"] else []),
        *(["quotas"] if settings["quota"] else []),
        *(["costs"] if settings["cost_budget"] is not None or (data["cost"] and settings["cost_power"]) else []),
        *(["samples selected before"] if data["novelty"]["selected_before"] else []),
    ]
    other = f" What else was to be heeded, {_listed(asked)}, takes some of it." if asked else ""
    return _aim(settings, strategy) + other


def _aim(settings: dict[str, Any], strategy: str) -> str:
    if strategy != "novelselect":
        called = _CHOSE.get(strategy, escaped(strategy))
        return f"{called[:1].upper()}{called[1:]} does not look at NovelSum when it chooses."
    if not settings["density_power"] and settings["formula"] != "released":
        return (
            "With κ<sub>2</sub>&nbsp;=&nbsp;0 all samples weigh the same, and v(x) is half of what x adds to "
            "NovelSum, if x has in the row of each other sample the rank that this has in its own. Ranks that shift in "
            "other rows are left out, and a greedy choice need not reach the most."
        )
    if settings["formula"] == "paper":
        return (
            "NovelSelect does not choose for the greatest NovelSum: the published v(x) weighs the samples before x by "
            "their σ and leaves out the σ of x itself, which NovelSum then counts in the row of every other pick. So "
            "it picks in sparse places, and strategies that pick in dense ones may have more. "
            "<code>--formula symmetric</code> counts both."
        )
    if settings["formula"] == "released":
        return (
            "NovelSelect does not choose for the greatest NovelSum here: the released code picks by a mean over S and "
            "ranks by weighted distance, while its NovelSum averages the rows by another rule."
        )
    return (
        "v(x) is by how much x raises NovelSum when it joins S, if x has in the row of each other sample the rank that "
        "this has in its own. Ranks that shift in other rows are left out, and a greedy choice need not reach the most."
    )


def _column(named: str) -> str:
    """The name of a column of the input."""
    return f"<code><bdi>{escaped(named, 60)}</bdi></code>"


def _listed(words: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def _error(part: float) -> str:
    return f"{100 * part:.2g}%" if part else "0%"


def _s(count: int) -> str:
    return "" if count == 1 else "s"

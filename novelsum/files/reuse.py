"""What each step of a run depends on: whether what another run has done can be used, and whether its picks go on.

A setting that is new matters to every step until it is named here. Where a step before density was done anew and has
come to the same candidates (:func:`estimated_on`), density is used again all the same.
"""

from typing import Any, Literal

import novelsum
from novelsum.files.store import Pool
from novelsum.formulas import same_density
from novelsum.settings import Settings

Step = Literal["embed", "ingest", "thin", "density", "begin", "compare"]
LAYOUT = 4
"""Counts up when the folders in the work directory or in the stage change their meaning."""

_AFTER_PICKS = ("compare", "show", "text_column", "report", "explain_rejected", "map")
_OF_PICKS = (
    *("budget", "cost_budget", "cost_power", "min_distance", "quota", "quality_power", "first", "seed"),
    *("proximity_power", "density_power", "already_selected", "strategy", *_AFTER_PICKS),
)
_OF_DENSITY = ("formula", "neighbors", "density_method", "target_recall", "density", *_OF_PICKS)
_OF_INGEST = ("embedding_column", "metric", "duplicates", "near_duplicates", "reference")
_TRAITS = ("quality_column", "group_column", "cost_column")
_NO_MATTER_TO: dict[Step, tuple[str, ...]] = {
    "embed": tuple(name for name in (*_OF_DENSITY, *_OF_INGEST) if name != "text_column"),
    "ingest": _OF_DENSITY,
    "thin": _OF_DENSITY,
    "density": (*_OF_PICKS, *_TRAITS),
    "begin": _AFTER_PICKS,
    "compare": (),
}
"""Settings, and the files that they name, that a step does not depend on. Columns of quality, group and cost are read
by ingest; the log that the step "begin" begins holds the picks.
"""


def of_step(identity: dict[str, Any], step: Step) -> dict[str, Any]:
    """What of a run's identity a step depends on, as JSON; done with the same, it need not be done again."""
    no_matter = _NO_MATTER_TO[step]
    if step == "density" and identity.get("settings", {}).get("near_duplicates") is not None:  # which rows stay
        no_matter = tuple(name for name in no_matter if name != "quality_column")
    settings, files = (
        {name: value for name, value in identity.get(part, {}).items() if name not in no_matter}
        for part in ("settings", "files")
    )
    if step == "begin" and has_prefixes(settings):
        settings.pop("budget", None)
    if step == "ingest" and "near_duplicates" in settings:  # equal embeddings are kept for the step "thin"
        settings["near_duplicates"] = settings["near_duplicates"] is not None
    if step == "density" and "formula" in settings:
        settings["formula"] = same_density(settings["formula"])
    made_by = {"version": novelsum.__version__, "layout": LAYOUT, "job": identity.get("job")}
    return {**made_by, "settings": settings, "files": files}


def estimated_on(pool: Pool, corpus: Pool | None, settings: Settings) -> dict[str, Any]:
    """What density factors depend on beside settings, as JSON: which candidates lie where in which block."""
    on = {}
    for name, one in (("pool", pool), ("corpus", corpus)):
        if one is not None:
            known = one.for_json()
            on[name] = {key: known[key] for key in ("fingerprint", "blocks", "distinct", "dimension", "itemsize")}
    if pool.bad_rows.keys() & {"bad quality", "bad cost"}:  # of other columns other rows may be bad
        on["columns"] = {"quality": settings.quality_column, "cost": settings.cost_column}
    return on


def has_prefixes(settings: dict[str, Any]) -> bool:
    """Whether the picks of a smaller budget are the first ones of a greater: quotas are shared out of the budget, and
    k-means has as many centroids as picks.
    """
    return not settings.get("quota") and settings.get("strategy") != "k-means"


def differ_in_budget(before: dict[str, Any], now: dict[str, Any]) -> bool:
    """Whether two runs differ in nothing but a budget of picks, and one goes on where the other ends."""
    settings = [one.get("settings", {}) for one in (before, now)]
    without = [{**one, "settings": {**of, "budget": 0}} for one, of in zip((before, now), settings, strict=True)]
    budgets = [one.get("budget") for one in settings]
    return without[0] == without[1] and budgets[0] != budgets[1] and has_prefixes(settings[1])

"""What a run refuses before any costly work: by the footers of its inputs, and by what the checked rows tell."""

import logging
import re
from typing import Any

import pyarrow as pa

from novelsum.density.factors import require_enough_neighbors
from novelsum.density.state import State
from novelsum.errors import InputError
from novelsum.files.location import Location
from novelsum.files.source import Source, require_same_ids
from novelsum.files.store import Pool
from novelsum.files.workplace import read_manifest
from novelsum.formulas import have_same_density
from novelsum.groups import group_of, in_words
from novelsum.report.output import OUTPUT_COLUMNS
from novelsum.report.projection import MAP_COLUMNS
from novelsum.selection.nearest import REJECTED_NEAR_COLUMNS
from novelsum.selection.quotas import refuse_by_rows
from novelsum.selection.rounds import closings_of, require_finite_quality
from novelsum.settings import SELECTING, Job, Settings

logger = logging.getLogger("novelsum")


def check_sources(
    job: Job,
    settings: Settings,
    source: Source,
    given: Source | None,
    reference: Source | None,
    state: State | None,
) -> None:
    """Refuse before Spark starts what the footers already rule out."""
    if job in SELECTING and settings.picks(source.rows) > source.rows:
        raise InputError(
            f"--budget {settings.budget} is above the number of rows of {settings.input}, {source.rows}; ask for fewer"
        )
    corpus = reference or source
    if job != "select_subset" and settings.neighbors >= corpus.rows + (state.rows if state else 0):
        raise InputError(
            f"--neighbors {settings.neighbors} must be below the number of rows of {corpus.path}, {corpus.rows}; "
            "ask for fewer"
        )
    _check_columns(job, settings, source)
    if settings.quota:
        _check_quotas(settings, source)
    if settings.first is not None and source.integer_ids and not re.fullmatch(r"[+-]?\d+", settings.first):
        raise InputError(
            f"--first {settings.first!r} is not an integer, as the ids of {settings.input} are; give one of them"
        )
    if given is not None:
        has_integers = {settings.input: source.integer_ids, settings.density: given.integer_ids}
        require_same_ids(settings.id_column, has_integers, "estimate the density over this input")
        _check_density_settings(settings)


def _check_columns(job: Job, settings: Settings, source: Source) -> None:
    """Refuse an id column that would be taken for one of the result, and columns to print that are not there."""
    reserved: tuple[str, ...] = ("density", "kth_distance")
    if job in SELECTING:
        near, on_map = settings.explain_rejected, settings.map
        reserved = (*OUTPUT_COLUMNS, *(REJECTED_NEAR_COLUMNS if near else ()), *(MAP_COLUMNS if on_map else ()))
    if settings.id_column in reserved:
        raise InputError(
            f"the id column of {settings.input} may not be called {settings.id_column!r}, as a column of the result "
            "is; rename it"
        )
    for option, column in (
        ("--text-column", settings.text_column),
        ("--group-column", settings.group_column),
        ("--quality-column", settings.quality_column),
        ("--cost-column", settings.cost_column),
    ):
        if column is not None and column not in source.schema.names:
            raise InputError(
                f"{settings.input} has no column {column!r}; its columns are {', '.join(source.schema.names)}: name "
                f"one of them with {option} or leave it out"
            )
    for option, column in (("--quality-column", settings.quality_column), ("--cost-column", settings.cost_column)):
        kind = pa.float64() if column is None else source.schema.field(column).type
        if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)):
            raise InputError(
                f"column {column!r} of {settings.input} has type {kind}, expected numbers; name another with {option}"
            )


def _check_quotas(settings: Settings, source: Source) -> None:
    """Refuse quotas that no rows with the texts in the footers' bounds can meet."""
    bounds = sorted({(span.least, span.greatest) for span in source.spans if span.greatest is not None})
    among = ", ".join(f"{in_words(group_of(least))} to {in_words(group_of(most))}" for least, most in bounds[:20])

    def rows_of(group: str) -> int:
        return sum(span.rows for span in source.spans if span.may_hold(group))

    budget = settings.budget if isinstance(settings.budget, int) else None
    refuse_by_rows(settings.quota, rows_of, f"lie from {among}" if among else "are none", budget)


def _check_density_settings(settings: Settings) -> None:
    """Refuse a density that its manifest says was estimated with other settings than the selection's."""
    estimated = read_manifest(Location.of(settings.density))
    for name, value in (estimated or {}).get("settings", {}).items():
        if name == "formula" and have_same_density(value, settings.formula):
            continue
        if name == "quality_column" and settings.near_duplicates is None:  # it has no say in what is a candidate
            continue
        if name in _OF_CANDIDATES and value != getattr(settings, name):
            option = "--" + name.replace("_", "-")
            instead = f"leave {option} out" if value is None else f"select with {option} {value}"
            raise InputError(
                f"{settings.density} was estimated with {name} = {value!r}, but the selection is to have "
                f"{getattr(settings, name)!r}; estimate it again or {instead}"
            )


_OF_CANDIDATES = ("formula", "metric", "neighbors", "duplicates", "near_duplicates", "quality_column")
"""Settings that say what is a candidate, and what its density."""


def check_pool(
    job: Job, settings: Settings, source: Source, pool: Pool, corpus: Pool | None, state: State | None
) -> None:
    """Refuse before any costly work what only the checked rows can tell."""
    if job in SELECTING:
        closings_of(pool, settings)
    if settings.quality_column is not None or settings.cost_power:
        require_finite_quality(pool, settings)
    if job != "select_subset" and not (state and state.rows):
        require_enough_neighbors(corpus or pool, settings)
    if job in SELECTING and settings.picks(pool.candidates) > pool.candidates:
        raise InputError(
            f"--budget {settings.budget} is above the number of candidates, {pool.candidates}, that are left of the "
            f"{source.rows} rows after dropping {sum(pool.bad_rows.values())} bad rows and "
            f"{pool.duplicates_dropped + pool.near_duplicates_dropped} duplicates; ask for fewer"
        )
    estimated = read_manifest(Location.of(settings.density)) if job == "select_subset" else None
    if estimated and _covered(estimated) not in (None, pool.fingerprint):
        logger.warning("%s was estimated over another input than %s", settings.density, settings.input)


def _covered(estimated: dict[str, Any]) -> str | None:
    """The fingerprint of all rows whose density a manifest is of, None where it is not known."""
    fingerprint: str | None = estimated.get("density", {}).get(
        "fingerprint", estimated.get("input", {}).get("fingerprint")
    )
    return fingerprint

"""A state of the density job on disk, to which a night's new rows are added at a cost in proportion to them.

::

    _STATE.json           what it was made with, its nights, and which files belong to it: written last, by a rename
    rows-00000/group-*    rows by cells, with their vectors, as a run wrote them: never changed
    generation-00000/     group-*: of all rows number, digest, squared distances to the nearest
                          ids-*: all ids of the rows, those of equal embeddings too, and the night that brought each
                          centroids.parquet: the cells; measured.parquet: rows that recall is measured on

A row keeps the number it got when it came. Adding searches the new rows in the cells they probe, among old and new,
and takes them into account for the old rows of those cells. Taking ids out leaves their rows to the ids of equal
embeddings; a row without any is gone, from all files, and those that had it among their nearest are searched again. A
night that is run again, known by its output, first gives back what it brought.

The files of the next generation are written beside those of the last, which go once the new _STATE.json is there: a run
that fails leaves the state as it was. A run holds the state as it holds its output, and changes it last: what it is to
become waits in the stage until the result is published. Files of a run that was cut are removed by the next.
"""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark import SparkContext

from novelsum.density.exact import estimate_density
from novelsum.density.factors import write_density_result
from novelsum.density.layout import Layout, group_name, kind_of, matrix, read_cells, read_group
from novelsum.density.lists import counts_of, ids_name, ids_of, lists_of, write_rows
from novelsum.density.update import Change, change
from novelsum.errors import DamageError, InputError, RunError, UsageError
from novelsum.files.location import Location
from novelsum.files.lock import LOCK, Held, held
from novelsum.files.source import Look, Source, open_ids, read_columns
from novelsum.files.store import Pool, read_equal
from novelsum.files.workplace import Workplace
from novelsum.formulas import EQUATIONS, have_same_density
from novelsum.rows import Integers
from novelsum.settings import Settings

logger = logging.getLogger("novelsum")

VERSION = 3
STATE = "_STATE.json"
_FIXED = ("formula", "metric", "neighbors", "duplicates")
_PARTS = ("rows-", "generation-", ".", LOCK)
"""How files begin that a run may have left in a folder that is no state yet."""


@dataclass
class State:
    """A state that exists, with ``content`` from its JSON, or one that is to be made; held by this run."""

    folder: Location
    lock: Held
    content: dict[str, Any] = field(default_factory=dict)
    _next: dict[str, Any] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """Rows in the state so far."""
        return int(self.content.get("rows", 0))

    def check_source(self, source: Source) -> Source:
        """The source as the state takes it; raise InputError where its ids or vectors are of another type."""
        if not self.content:
            return source
        self._check_ids(source)
        if source.wide and self.content["kind"] == "float32":
            raise InputError(
                f"embeddings of {source.path} are doubles, but those of the state {self.folder} floats; convert them"
            )
        return replace(source, wide=self.content["kind"] == "float64")

    def _check_ids(self, source: Source) -> None:
        if source.integer_ids != self.content["integer_ids"]:
            kinds = ("integers", "strings") if source.integer_ids else ("strings", "integers")
            raise InputError(
                f"column {source.id_column!r} of {source.path} holds {kinds[0]}, but the ids of the state "
                f"{self.folder} are {kinds[1]}; give rows with the same type of id"
            )

    def ids_to_remove(self, settings: Settings, seen: Look | None) -> frozenset[Any]:
        """The ids that ``remove`` names; raise InputError where they are of another type than those of the state."""
        if not seen:
            return frozenset()
        source = open_ids(seen, settings.id_column)
        self._check_ids(source)
        kind = pa.int64() if source.integer_ids else pa.string()
        batches = read_columns(source, source.row_groups, [source.id_column])
        ids = frozenset(id_ for batch in batches for id_ in batch.column(0).cast(kind).to_pylist())
        if None in ids:
            raise InputError(f"--remove {source.path} has a null id in column {source.id_column!r}; remove it")
        return ids

    def add(
        self,
        context: SparkContext,
        pool: Pool | None,
        ids: frozenset[Any],
        settings: Settings,
        work: Location,
        place: Workplace,
    ) -> dict[str, Any]:
        """Take ids out and add the pool, working in the folder ``work``; write the density factors of all rows.

        Returns what the manifest says of them.

        The state changes only with :meth:`commit`.
        """
        self._clear()
        number = 1 + self.content["generation"] if self.content else 0
        folders = [self.folder / f"rows-{number:05d}", self.folder / f"generation-{number:05d}"]
        for folder in folders:
            folder.make_folder()
        try:
            if self.content:
                report = self._change(context, pool, ids, number, settings, work, place)
            else:
                assert pool is not None
                report = _create(self, context, pool, settings, work, place.result)
        except BaseException:
            for folder in folders:
                folder.delete()
            raise
        nights = self._next["nights"]
        if pool:
            night = {"night": number, "output": str(place.output), "input": settings.input, "run": place.key}
            nights.append({**night, "fingerprint": pool.fingerprint})
        parts = [self.folder / name for name in (*self._next["parts"], f"generation-{number:05d}")]
        files = [file for part in parts for file in part.entries()]
        root = len(str(self.folder)) + 1
        self._next["files"] = {str(file)[root:]: _rows_in(file) for file in files}
        self._next["generation"] = number
        return {**report, "fingerprint": _sum([night["fingerprint"] for night in nights])}

    def _change(
        self,
        context: SparkContext,
        pool: Pool | None,
        ids: frozenset[Any],
        number: int,
        settings: Settings,
        work: Location,
        place: Workplace,
    ) -> dict[str, Any]:
        nights = self.content["nights"]
        again = {night["night"] for night in nights if pool and night["output"] == str(place.output)}
        if again:
            logger.info("%s has the rows of %s already: they are replaced", self.folder, place.output)
        what = Change(self.folder, self.content, number, work, pool, ids, frozenset(again))
        outcome = change(context, what, settings.id_column, place.result)
        self._next = outcome.content
        self._next["nights"] = [
            {**night, "fingerprint": None if night["night"] in outcome.touched else night["fingerprint"]}
            for night in nights
            if night["night"] not in again
        ]
        if not ids:
            return outcome.said
        unknown = len(ids) - outcome.known
        if unknown:
            logger.warning("%d of the %d ids of --remove are not in the state %s", unknown, len(ids), self.folder)
        return {**outcome.said, "removed_ids": outcome.known, "unknown_ids": unknown}

    def following(self, run: str) -> dict[str, Any]:
        """What the state is to be, with what ``run`` added, and what it was before."""
        return {"before": _version(self.content), "content": {**self.content, **self._next, "run": run}}

    def may_become(self, following: dict[str, Any]) -> bool:
        """Whether the state is what it was when that was computed, and all files are there; or has become it."""
        if self._has_become(following):
            return True
        return following["before"] == _version(self.content) and not _damaged(self.folder, following["content"])

    def commit(self, following: dict[str, Any]) -> None:
        """Make what was added part of the state, unless it is already."""
        if not self._has_become(following):
            self.lock.require()
            if _version(_content(self.folder)) != following["before"]:
                raise RunError(
                    f"the state {self.folder} was changed while this run held it: the result is published, but its "
                    "rows are not in the state; run it again with --overwrite"
                )
            (self.folder / STATE).write_bytes((json.dumps(following["content"], indent=1) + "\n").encode())
            self.content = following["content"]
        self._clear()

    def _has_become(self, following: dict[str, Any]) -> bool:
        """Whether it is in the state, by the last run or by one before."""
        content = following["content"]
        brought = [night for night in content["nights"] if night["night"] == content["generation"]]
        has_night = bool(brought) and brought[0] in self.content.get("nights", ())
        return has_night or _version(self.content) == _version(content)

    def _clear(self) -> None:
        """Remove what belongs to the state no more: of generations before, or of a run that was cut."""
        kept = {name.split("/")[0] for name in self.content.get("files", {})}
        for entry in self.folder.entries():
            if entry.name.startswith(("rows-", "generation-", f".{STATE}.")) and entry.name not in kept:
                entry.delete()


def _sum(fingerprints: list[str | None]) -> str | None:
    """The fingerprint of some inputs together: of each it is a sum over its rows. None where one is not known."""
    known = [int(fingerprint, 16) for fingerprint in fingerprints if fingerprint is not None]
    return f"{sum(known) % (1 << 96):024x}" if len(known) == len(fingerprints) else None


def _version(content: dict[str, Any]) -> list[Any]:
    """What tells one content of a state from another."""
    return [content.get("generation"), content.get("run")]


@contextmanager
def state_of(settings: Settings, place: Workplace) -> Iterator[State | None]:
    """The state that a run is to change, held; None where there is none.

    Raises UsageError or InputError where the state does not fit.
    """
    option = "--update" if settings.update else "--save-state"
    folder = settings.update or settings.save_state
    if folder is None:
        yield None
        return
    with held(Location.of(folder), option) as lock:
        yield _open(settings, place, lock)


def tidy_state(path: str) -> None:
    """Remove the claim of a dead run that had changed the state and left only that; a living one keeps its own."""
    folder = Location.of(path)
    if (folder / LOCK).exists():
        with suppress(UsageError), held(folder):
            pass


def _open(settings: Settings, place: Workplace, lock: Held) -> State:
    folder = Location.of(settings.update or settings.save_state or "")
    content = _content(folder)
    has_night = any(night["output"] == str(place.output) for night in content.get("nights", ()))
    if settings.save_state and not (has_night and (settings.overwrite or place.next_state())):
        kept = [entry.name for entry in folder.entries() if not entry.name.startswith(_PARTS)]
        if kept:
            raise UsageError(f"--save-state {folder} is not empty; name another folder, or add to it with --update")
        return State(folder, lock)
    content = _read(folder)
    for name in _FIXED:
        if name == "formula" and have_same_density(content["settings"][name], settings.formula):
            continue
        if content["settings"][name] != getattr(settings, name):
            raise InputError(
                f"the state {folder} was made with {name} = {content['settings'][name]!r}, not "
                f"{getattr(settings, name)!r}; give --{name} {content['settings'][name]} or make another state"
            )
    return State(folder, lock, content)


def _content(folder: Location) -> dict[str, Any]:
    """The content of _STATE.json, empty where there is none that can be read."""
    try:
        return (folder / STATE).read_json()
    except (FileNotFoundError, NotADirectoryError, DamageError):
        return {}


def _read(folder: Location) -> dict[str, Any]:
    """The content of _STATE.json, all its files found whole."""
    content = _content(folder)
    try:
        version = content["version"]
    except KeyError:
        raise InputError(f"{folder} is not a state: it has no readable {STATE}; make one with --save-state") from None
    if version != VERSION:
        raise InputError(f"the state {folder} has version {version}, not {VERSION}; make another with --save-state")
    damaged = _damaged(folder, content)
    if damaged:
        raise InputError(
            f"{folder / damaged} is missing or not as the state wrote it, with {content['files'][damaged]} rows; "
            "restore the state or make it again with --save-state"
        )
    return content


def _damaged(folder: Location, content: dict[str, Any]) -> str | None:
    """The first file of the state that is missing or has not the rows it was written with."""
    for name, rows in content["files"].items():
        try:
            found = _rows_in(folder / name)
        except (FileNotFoundError, DamageError):
            found = None
        if found != rows:
            return str(name)
    return None


def _rows_in(file: Location) -> int:
    return file.parse(lambda parquet: int(parquet.metadata.num_rows))


# --- a new state ------------------------------------------------------------------------------------------


def _create(
    state: State, context: SparkContext, pool: Pool, settings: Settings, work: Location, result: Location
) -> dict[str, Any]:
    report = estimate_density(context, pool, settings, work, for_state=True)
    write_density_result(context, pool, work, settings.id_column, result)
    cells = read_cells(work)
    groups = int(cells.group[-1]) + 1
    keep = partial(_keep_group, pool, work, state.folder, EQUATIONS[settings.formula].among_distinct)
    sizes = context.parallelize(range(groups), groups).map(keep).collect()
    for name in ("centroids.parquet", "measured.parquet"):
        (state.folder / "generation-00000" / name).write_bytes((work / name).read_bytes())
    state._next = {
        "version": VERSION,
        "settings": {name: getattr(settings, name) for name in (*_FIXED, "target_recall")},
        "dimension": pool.dimension,
        "kind": kind_of(pool),
        "integer_ids": pool.integer_ids,
        "rows": pool.candidates,
        "numbers": pool.candidates,
        "sizes": np.sum(sizes, axis=0).tolist(),
        "probes": report["probes"],
        "fraction": report["measured_fraction"],
        "parts": ["rows-00000"],
        "nights": [],
    }
    return report


def _keep_group(pool: Pool, work: Location, folder: Location, among_distinct: bool, group: int) -> Integers:
    """Write a group into the state; return how many possible neighbours it has in each cell."""
    rows = read_group(Layout(work / "cells", kind_of(pool), 0), group)
    write_rows(folder / "rows-00000" / group_name(group), rows)
    found = (work / "found" / group_name(group)).read_parquet(["squared"])
    lists = lists_of(rows, matrix(found.column("squared"), "float64"))
    lists.write(folder / "generation-00000" / group_name(group))
    equal, id_of = read_equal(pool.work), dict(zip(rows.row.tolist(), rows.id.tolist(), strict=True))
    of_rows = [
        (row, id_)
        for row, digest in zip(lists.row.tolist(), lists.digest.tolist(), strict=True)
        for id_ in (id_of[row], *equal.get(digest, ()))
    ]
    row, ids = zip(*of_rows, strict=True) if of_rows else ((), ())
    table = ids_of(row, ids, [0] * len(row), pool.integer_ids)
    (folder / "generation-00000" / ids_name(group)).write_parquet(table)
    return counts_of(rows, among_distinct, len(read_cells(work).group))

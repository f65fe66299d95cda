"""A state of the density job on disk, to which a night's new rows are added at a cost in proportion to them.

::

    _STATE.json           what it was made with and which files belong to it: written last, by a rename
    centroids.parquet     the cells
    night-00000/group-*   the rows of one run by cells, with their vectors: never changed
    generation-00000/     of all rows: number, id, digest, squared distances to the nearest; measured candidates

A row keeps the number it got when it came. Adding searches the new rows in the cells they probe, among old and new,
and takes them into account for the old rows of those cells. The files of the next generation are written beside
those of the last, which go once the new _STATE.json is there: a run that fails leaves the state as it was. A run holds
the state as it holds its output, and changes it last: what it is to become waits in the stage until the result is
published. Files of a run that was cut before are removed by the next.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
from pyspark.sql import SparkSession

from novelsum.density import estimate_density, write_density_result
from novelsum.errors import DamageError, InputError, RunError, UsageError
from novelsum.layout import Layout, group_name, kind_of, matrix, read_cells, read_group
from novelsum.lock import LOCK, Held, held
from novelsum.settings import Settings
from novelsum.source import Source
from novelsum.storage import Location
from novelsum.store import Pool
from novelsum.update import counts_of, lists_of, update
from novelsum.workplace import Workplace

VERSION = 1
STATE = "_STATE.json"
_FIXED = ("formula", "metric", "neighbors", "duplicates")
_PARTS = ("night-", "generation-", "centroids", ".", LOCK)
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
        if source.integer_ids != self.content["integer_ids"]:
            kinds = ("integers", "strings") if source.integer_ids else ("strings", "integers")
            raise InputError(
                f"column {source.id_column!r} of {source.path} holds {kinds[0]}, but the ids of the state "
                f"{self.folder} are {kinds[1]}; add rows with the same type of id"
            )
        if source.wide and self.content["kind"] == "float32":
            raise InputError(
                f"embeddings of {source.path} are doubles, but those of the state {self.folder} floats; convert them"
            )
        return replace(source, wide=self.content["kind"] == "float64")

    def add(self, spark: SparkSession, pool: Pool, settings: Settings, result: Location) -> dict[str, Any]:
        """Add the pool, write the density factors of all rows to ``result``, return what the manifest says.

        The state changes only with :meth:`commit`.
        """
        self._clear()
        night = 1 + self.content["generation"] if self.content else 0
        folders = [self.folder / f"night-{night:05d}", self.folder / f"generation-{night:05d}"]
        for folder in folders:
            folder.delete()
            folder.make_folder()
        try:
            if self.content:
                report, self._next = update(spark, pool, self.folder, self.content, night, settings.id_column, result)
            else:
                report = _create(self, spark, pool, settings, result)
        except BaseException:
            for folder in folders:
                folder.delete()
            raise
        nights = [self.folder / f"night-{number:05d}" for number in range(night)]
        files = [self.folder / "centroids.parquet", *(file for part in (*nights, *folders) for file in part.entries())]
        root = len(str(self.folder)) + 1
        self._next["files"] = {str(file)[root:]: _rows_in(file) for file in files}
        self._next["generation"] = night
        return report

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
        return _version(self.content) == _version(following["content"])

    def _clear(self) -> None:
        """Remove files that belong to no state: of the last generation, or of a run that was cut."""
        kept = {name.split("/")[0] for name in (*self.content.get("files", {}), STATE, LOCK)}
        for entry in self.folder.entries():
            if entry.name not in kept:
                entry.delete()


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


def _open(settings: Settings, place: Workplace, lock: Held) -> State:
    folder = Location.of(settings.update or settings.save_state or "")
    content = _content(folder)
    if settings.save_state and not (content and content.get("run") == place.key and place.next_state()):
        kept = [entry.name for entry in folder.entries() if not entry.name.startswith(_PARTS)]
        if kept:
            raise UsageError(f"--save-state {folder} is not empty; name another folder, or add to it with --update")
        return State(folder, lock)
    content = _read(folder)
    for name in _FIXED:
        if content["settings"][name] != getattr(settings, name):
            raise InputError(
                f"the state {folder} was made with {name} = {content['settings'][name]!r}, not "
                f"{getattr(settings, name)!r}; give --{name} {content['settings'][name]} or make another state"
            )
    return State(folder, lock, content)


def _content(folder: Location) -> dict[str, Any]:
    """The content of _STATE.json, empty where there is none that can be read."""
    try:
        content = json.loads((folder / STATE).read_bytes())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


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


def _create(state: State, spark: SparkSession, pool: Pool, settings: Settings, result: Location) -> dict[str, Any]:
    report = estimate_density(spark, pool, settings, for_state=True)
    write_density_result(spark, pool, settings.id_column, result)
    cells = read_cells(pool.work)
    groups = int(cells.group[-1]) + 1
    context = spark.sparkContext
    keep = partial(_keep_group, pool, state.folder, settings.formula == "released")
    sizes = context.parallelize(range(groups), groups).map(keep).collect()
    for name, target in (("centroids.parquet", ""), ("measured.parquet", "generation-00000/")):
        (state.folder / f"{target}{name}").write_bytes((pool.work / name).read_bytes())
    state._next = {
        "version": VERSION,
        "settings": {name: getattr(settings, name) for name in (*_FIXED, "target_recall")},
        "dimension": pool.dimension,
        "kind": kind_of(pool),
        "integer_ids": pool.integer_ids,
        "rows": pool.candidates,
        "numbers": pool.candidates,
        "sizes": np.sum([np.array(of_group) for of_group in sizes], axis=0).tolist(),
        "probes": report["probes"],
        "fraction": report["measured_fraction"],
    }
    return report


def _keep_group(pool: Pool, folder: Location, released: bool, group: int) -> list[int]:
    """Copy a group into the state; return how many possible neighbours it has in each cell."""
    source = pool.work / "cells" / group_name(group)
    (folder / "night-00000" / group_name(group)).write_bytes(source.read_bytes())
    rows = read_group(Layout(pool.work / "cells", kind_of(pool), 0), group)
    found = (pool.work / "found" / group_name(group)).read_parquet(["squared"])
    squared = matrix(found.column("squared"), "float64")
    lists_of(rows, squared).write(folder / "generation-00000" / group_name(group))
    return counts_of(rows, released, len(read_cells(pool.work).group))

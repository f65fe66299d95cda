"""Results of many small trainings, one JSON line each, kept as they come: what was killed goes on where it was."""

import hashlib
import json
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

STRATEGIES = ("random", "k-means", "farthest-first", "paper", "symmetric", "released", "paper-density0")
"""Whose picks train models."""
MINUTES = float(os.environ.get("MINUTES", "35"))
"""After these a step ends by itself."""


class Task(NamedTuple):
    """A subset: of a corpus, by a configuration, from a start (1 to 5), for a budget in percent."""

    corpus: str
    config: str
    start: int
    budget: int


class Kept:
    """Results in a file. ``setup``: how they are made; those made otherwise, or of other picks, are made again."""

    def __init__(self, path: Path, setup: str) -> None:
        self._path, self._setup = path, setup
        path.parent.mkdir(parents=True, exist_ok=True)
        content = path.read_text() if path.exists() else ""
        if content and not content.endswith("\n"):  # the end of a line that was not written to its end
            content = content[: content.rfind("\n") + 1]
            path.write_text(content)
        self._results = {self._key(result): result for result in map(json.loads, content.splitlines())}

    def has(self, task: Task, picks: Sequence[str]) -> bool:
        """Whether there is a result of this task, made in this way of these picks."""
        found = self._results.get(task)
        return found is not None and found["setup"] == self._setup and found["ids"] == digest(picks)

    def add(self, task: Task, picks: Sequence[str], result: dict[str, Any]) -> None:
        """Append a result; it is on the disk when this returns."""
        whole = {**task._asdict(), **result, "setup": self._setup, "ids": digest(picks)}
        with self._path.open("a") as file:
            file.write(json.dumps(whole) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self._results[task] = whole

    def __iter__(self) -> Iterator[tuple[Task, dict[str, Any]]]:
        """The results made in this way, the last of each task."""
        return ((task, found) for task, found in self._results.items() if found["setup"] == self._setup)

    @staticmethod
    def _key(result: dict[str, Any]) -> Task:
        return Task(*(result[name] for name in Task._fields))


def digest(ids: Iterable[str]) -> str:
    """A short name of some ids in their order."""
    return hashlib.sha256("\n".join(ids).encode()).hexdigest()[:12]


class Clock:
    """When a step is to end."""

    def __init__(self) -> None:
        self._started = time.monotonic()

    def is_over(self) -> bool:
        """Whether its minutes are over."""
        return time.monotonic() - self._started > 60 * MINUTES

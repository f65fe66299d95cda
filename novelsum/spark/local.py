"""Scratch folders on an executor's own disks, and what tries that were killed have left in them.

Scratch is named for where the run has its store and for the try, so that a try finds what those before it have left
when they were killed. The output's lock sees to it that only one try lives.
"""

import errno
import glob
import hashlib
import os
import shutil
import socket
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from functools import cache
from pathlib import Path
from typing import Any

from numpy.lib.format import open_memmap
from pyspark import SparkContext

from novelsum.errors import RunError
from novelsum.files.location import Location

_TRY = uuid.uuid4().hex
_NOTED: ContextVar[list[str] | None] = ContextVar("passes over blocks since somebody asked", default=None)
_SPARK_FOLDERS = ("", "blockmgr-*", "spark-*/blockmgr-*", "spark-*/executor-*/blockmgr-*")
"""Where Spark may have made local directories in those that it was given, and has left them if it was killed."""


def new_run(work: Location) -> str:
    """What a pass over blocks calls its scratch: for where the run has its store, this try of it, and the pass."""
    run = f"{_of_this_try(work)}-{uuid.uuid4().hex}"
    noted = _NOTED.get()
    if noted is not None:
        noted.append(run)
    return run


@contextmanager
def removed_after(context: SparkContext) -> Iterator[None]:
    """Remove the scratch of all passes within, on a Spark that goes on living and so does not remove it itself."""
    runs: list[str] = []
    token = _NOTED.set(runs)
    try:
        yield
    finally:
        _NOTED.reset(token)
        if runs:
            tasks = context.defaultParallelism
            with suppress(Exception):  # what is left costs room, and only until that Spark ends
                context.parallelize(range(tasks), tasks).foreach(lambda _: _remove(runs))


def _remove(runs: list[str]) -> None:
    for run in runs:
        shutil.rmtree(local_directory() / f"novelsum-{run}", ignore_errors=True)


def _of_this_try(work: Location) -> str:
    return f"{hashlib.blake2b(str(work).encode(), digest_size=8).hexdigest()}-{_TRY}"


def local_directory() -> Path:
    """Where this executor may write: its first directory of Spark's local ones, which Spark removes at the end."""
    return _local_directories()[0]


def _local_directories() -> list[Path]:
    named = [name for name in os.environ.get("SPARK_LOCAL_DIRS", "").split(",") if name]
    return [Path(name) for name in named or [tempfile.gettempdir()]]


@contextmanager
def made_aside(folder: Path) -> Iterator[Path]:
    """A folder beside another's place, of its owner alone, that is moved there once it is filled.

    Where another task was first, that one's stays. Raises RunError where the disk of scratch is full.
    """
    temporary = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}")
    try:
        temporary.mkdir(mode=0o700, parents=True)
        yield temporary
        temporary.rename(folder)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise RunError(
                f"the scratch disk of {local_directory()} on {socket.gethostname()} is full; free some of it, or set "
                "spark.local.dir (SPARK_LOCAL_DIRS) to a larger one, and run again to go on"
            ) from error
        if not folder.exists():
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def make_array(path: Path, kind: Any, shape: tuple[int, ...]) -> None:
    """A file that can be mapped as an array of zeros.

    A full disk is found now, and not by a signal when a page is written. Of Linux, not of macOS.
    """
    open_memmap(path, mode="w+", dtype=kind, shape=shape)
    with open(path, "rb+") as file:
        os.posix_fallocate(file.fileno(), 0, path.stat().st_size)


def remove_dead(context: SparkContext, work: Location) -> None:
    """Remove what earlier tries of the run with its store there have left in scratch, where tasks come to be."""
    context.setJobDescription("novelsum: scratch of earlier tries")
    tasks, this_try = context.defaultParallelism, _of_this_try(work)
    context.parallelize(range(tasks), tasks).foreach(lambda _: _remove_others(this_try))
    context.setJobDescription("")


@cache
def folder_of(run: str) -> Path:
    """Where this executor has the scratch of a pass; that of earlier tries is gone, also if the executor is new."""
    _remove_others(run.rpartition("-")[0])
    return local_directory() / f"novelsum-{run}"


def _remove_others(this_try: str) -> None:
    of_all_tries = f"novelsum-{this_try.rpartition('-')[0]}-*"
    for local in _local_directories():
        given = local
        while given.name.startswith(("blockmgr-", "executor-", "spark-")):
            given = given.parent
        for place in (glob.escape(str(local)), *(Path(glob.escape(str(given))) / made for made in _SPARK_FOLDERS)):
            for left in glob.glob(f"{place}/{of_all_tries}"):
                if not Path(left).name.startswith(f"novelsum-{this_try}-"):
                    shutil.rmtree(left, ignore_errors=True)

"""Plain loops that numba compiles, and where it keeps what it has compiled.

A loop is compiled when it is first called, for the types it is called with, and what comes of it is kept in a folder of
the user's named by the source itself: a module that comes in a zip file, from a folder that is another in each run as
Spark's are, is compiled once on a machine and not in each process. Where no folder can be written, each process
compiles anew. As a module's own source is all that is looked at, a module of loops imports nothing else of the package.
"""

import hashlib
import inspect
import os
import sys
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import numba
from numba.core import caching

Function = TypeVar("Function", bound=Callable[..., Any])

_BUILT_IN = ("UserProvidedCacheLocator", "InTreeCacheLocator", "UserWideCacheLocator")


def compiled(function: Function) -> Function:
    """Compile a loop over arrays and numbers. It lets go of Python's lock; a division by zero gives inf or nan."""
    loop: Function = numba.njit(cache=_folder() is not None, nogil=True, error_model="numpy")(function)
    return loop


def reordered(function: Function) -> Function:
    """Compile a loop whose sums may be added up in any order, several terms at a time, as no decision hangs on them."""
    flags = {"reassoc", "contract"}
    loop: Function = numba.njit(cache=_folder() is not None, nogil=True, error_model="numpy", fastmath=flags)(function)
    return loop


@cache
def _folder() -> Path | None:
    """Where compiled loops are kept: a folder that belongs to this user and to nobody else."""
    mine = f"novelsum-{os.getuid()}"
    homes = [os.environ.get("NUMBA_CACHE_DIR"), os.environ.get("XDG_CACHE_HOME"), os.path.expanduser("~/.cache")]
    for home, name in [*((home, "novelsum") for home in homes if home), (tempfile.gettempdir(), mine)]:
        folder = Path(home) / name
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if folder.stat().st_uid == os.getuid() and not folder.is_symlink():
                tempfile.TemporaryFile(dir=folder).close()
                return folder
        except OSError:
            continue
    return None


class BySource(caching._CacheLocator):  # type: ignore[misc]
    """Tells numba where to keep the loops of this package: by what their module says, wherever it lies."""

    def __init__(self, function: Any, source: str, folder: Path) -> None:
        self._stamp = hashlib.sha256(source.encode()).hexdigest()
        self._line = function.__code__.co_firstlineno
        self._folder = folder / self._stamp[:32]

    def get_cache_path(self) -> str:
        return str(self._folder)

    def get_source_stamp(self) -> str:
        return self._stamp

    def get_disambiguator(self) -> str:
        return str(self._line)

    @classmethod
    def from_function(cls, function: Any, _: str) -> "BySource | None":
        """None for functions of others."""
        folder = _folder()
        if folder is None or not function.__module__.startswith("novelsum."):
            return None
        locator = cls(function, inspect.getsource(sys.modules[function.__module__]), folder)
        locator.ensure_cache_path()
        return locator


numba.config.CACHE_LOCATOR_CLASSES = ",".join((f"{__name__}.{BySource.__name__}", *_BUILT_IN))

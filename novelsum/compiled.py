"""Plain loops that numba compiles, and where what it has compiled is kept.

A loop is compiled when it is first called, for the types it is called with, and what comes of it is kept in a folder of
the user's under a name made of the source itself: a module that comes in a zip file, from a folder that is another in
each run as Spark's are, is compiled once on a machine and not in each process. Where no folder can be written, each
process compiles anew. As a module's own source is all that is looked at, a module of loops imports nothing else of the
package. numba itself is imported with the first call: that takes half a second, which no error of usage waits for.
"""

import gc
import hashlib
import os
import pickle
import stat
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from functools import cache, update_wrapper
from pathlib import Path
from threading import Thread
from typing import Any, TypeVar, cast

Function = TypeVar("Function", bound=Callable[..., Any])

_DIGEST = 32


def compiled(function: Function) -> Function:
    """Compile a loop over arrays and numbers. It lets go of Python's lock; a division by zero gives inf or nan."""
    return cast(Function, _Loop(function, is_reordered=False))


def reordered(function: Function) -> Function:
    """Compile a loop whose sums may be added up in any order, several terms at a time, as no decision hangs on them."""
    return cast(Function, _Loop(function, is_reordered=True))


def import_ahead(is_ours: bool = True) -> None:
    """Make numba ready in a thread, while the caller waits for something else: it takes half a second.

    ``is_ours``: whether all that this process holds by then may be taken for no garbage.
    """
    if "numba" not in sys.modules:
        Thread(target=_make_ready, args=(is_ours,), name="numba").start()


def _make_ready(is_ours: bool = True) -> None:
    """Import numba and, what it leaves to the first call, all that it knows of types; none of it is garbage."""
    with suppress(Exception):  # told where it is missed
        import numpy.ma  # noqa: F401
        from numba.core.compiler_lock import global_compiler_lock
        from numba.core.registry import cpu_target

        # They are made before the lock is taken: numba takes it while it makes them, under locks of their own.
        typing_context, target_context = cpu_target.typing_context, cpu_target.target_context
        with global_compiler_lock:
            typing_context.refresh()
            target_context.refresh()
    if is_ours:
        gc.freeze()  # PySpark's workers collect garbage after every task, and would walk all this each time


class _Loop:
    """A function that numba takes over with its first call, or with the first call of a loop that calls it."""

    def __init__(self, function: Callable[..., Any], is_reordered: bool) -> None:
        update_wrapper(self, function)
        self._function, self._is_reordered, self._source = function, is_reordered, _source(function.__module__)
        self._compiler: Any = None

    def __call__(self, *arguments: Any) -> Any:
        return self.compiler(*arguments)

    @property
    def _numba_type_(self) -> Any:
        """What numba asks for where another loop calls this one."""
        return self.compiler._numba_type_

    @property
    def compiler(self) -> Any:
        """numba's own object for the function. It is made under no lock: numba has its own, and two do no harm."""
        if self._compiler is not None:
            return self._compiler
        import numba

        flags = {"reassoc", "contract"} if self._is_reordered else False
        compiler: Any = numba.njit(nogil=True, error_model="numpy", fastmath=flags)(self._function)
        folder = _folder()
        if folder and self._source:
            compiler._cache = Kept(self._function, self._source, self._is_reordered, folder)
        self._compiler = compiler
        return compiler


@cache
def _source(module: str) -> str | None:
    """What a module says, read while it is imported: later another version may lie in its place."""
    loader = getattr(sys.modules[module], "__loader__", None)
    try:
        return cast(str | None, loader.get_source(module)) if loader else None
    except (AttributeError, ImportError):
        return None


@cache
def _folder() -> Path | None:
    """Where compiled loops are kept: a folder that belongs to this user and that nobody else can write."""
    homes = [os.environ.get("NUMBA_CACHE_DIR"), os.environ.get("XDG_CACHE_HOME"), os.path.expanduser("~/.cache")]
    places = [Path(home) / "novelsum" for home in homes if home]
    for folder in (*places, Path(tempfile.gettempdir()) / f"novelsum-{os.getuid()}"):
        if not folder.is_absolute():  # a user without a home
            continue
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            found = folder.lstat()
            if stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o022:
                tempfile.TemporaryFile(dir=folder).close()
                return folder
        except OSError:
            continue
    return None


class Kept:
    """What has been compiled of a function, for numba, which calls the public names here: a file for each signature.

    numba's own keeper counts its files in an index, and processes that compile at once may write one over another's,
    so that a loop meets code for other types. Here a file is named by what it is for and sealed by a digest, and what
    cannot be read or written is compiled anew.
    """

    def __init__(self, function: Callable[..., Any], source: str, is_reordered: bool, folder: Path) -> None:
        import numba

        self._name = f"{function.__qualname__}-{function.__code__.co_firstlineno}{'-reordered' * is_reordered}"
        made_of = repr((source, numba.__version__, sys.version))
        self._folder = folder / hashlib.sha256(made_of.encode()).hexdigest()[:32]

    @property
    def cache_path(self) -> str:
        """Where all is kept."""
        return str(self._folder)

    def load_overload(self, signature: Any, context: Any) -> Any:
        """What has been compiled for a signature, or None."""
        from numba.core.compiler import CompileResult

        context.refresh()
        with suppress(Exception):  # of numba, pickle or the system: whatever it is, there is a way on
            content = self._path(signature, context.codegen()).read_bytes()
            if hashlib.sha256(content[_DIGEST:]).digest() == content[:_DIGEST]:
                return CompileResult._rebuild(context, *pickle.loads(content[_DIGEST:]))
        return None

    def save_overload(self, signature: Any, result: Any) -> None:
        """Keep what has been compiled for a signature."""
        from numba.core.serialize import dumps

        if result.library.has_dynamic_globals or result.lifted:  # these hold addresses of this process
            return
        with suppress(Exception):
            content = dumps(result._reduce())
            self._folder.mkdir(mode=0o700, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=self._folder, suffix=".unfinished", delete=False) as file:
                try:
                    file.write(hashlib.sha256(content).digest() + content)
                    file.close()
                    os.replace(file.name, self._path(signature, result.codegen))
                except OSError:
                    os.unlink(file.name)
                    raise

    def flush(self) -> None:
        """numba compiles all anew; what is kept stays true."""

    def _path(self, signature: Any, codegen: Any) -> Path:
        key = hashlib.sha256(repr((signature, codegen.magic_tuple())).encode()).hexdigest()[:32]
        return self._folder / f"{self._name}-{key}.nbc"

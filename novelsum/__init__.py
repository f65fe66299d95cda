"""NovelSum and NovelSelect at scale on Spark. Start with :mod:`novelsum.formula`, which states the mathematics.

:func:`select`, :func:`density` and :func:`diversity` take a Spark DataFrame or a path (:mod:`novelsum.api`).
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from novelsum.api import Result as Result
    from novelsum.api import select as select
    from novelsum.errors import InputError as InputError
    from novelsum.errors import RunError as RunError
    from novelsum.errors import UsageError as UsageError

__version__ = "0.1.0"

_HOMES = {
    "select": "api",
    "Result": "api",
    **dict.fromkeys(("UsageError", "InputError", "RunError"), "errors"),
}


def __getattr__(name: str) -> Any:
    """What a program asks for first, imported only then: the formula needs no Spark."""
    if name in _HOMES:
        return getattr(importlib.import_module(f"novelsum.{_HOMES[name]}"), name)
    if name in ("density", "diversity"):  # packages that can be called
        return importlib.import_module(f"novelsum.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

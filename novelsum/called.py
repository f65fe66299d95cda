"""Packages that can be called: ``novelsum.density`` is both a room of the engine and a function of a program's."""

import importlib
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any


class CalledPackage(ModuleType):
    """A package that, called, is the function of its name in :mod:`novelsum.api`, which is imported only then."""

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        return self._function(*arguments, **keywords)

    @property
    def _function(self) -> Callable[..., Any]:
        name = self.__name__.rpartition(".")[2]
        function: Callable[..., Any] = getattr(importlib.import_module("novelsum.api"), name)
        return function

    @property
    def __wrapped__(self) -> Callable[..., Any]:
        """What ``inspect.signature`` asks for."""
        return self._function

    def __reduce__(self) -> tuple[Any, ...]:
        return importlib.import_module, (self.__name__,)


def can_be_called(package: str) -> None:
    """Let the package of that name be called."""
    sys.modules[package].__class__ = CalledPackage

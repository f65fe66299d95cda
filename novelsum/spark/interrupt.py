"""Signals that end a run, for all who must not take them for an error: Spark turns what they raise into its own."""

import logging
import signal
import socketserver
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_signals: list[int] = []
_deferred = False


def listen() -> None:
    """From now on SIGTERM and SIGINT raise KeyboardInterrupt and are remembered."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _remember)


@contextmanager
def deferred() -> Iterator[None]:
    """Let a signal that comes within raise only at the end.

    Spark must not be cut while it starts: its Java would wait for a Python that is gone, for ever. It takes SIGINT for
    itself then, so that who listened before listens again.
    """
    global _deferred
    listens = signal.getsignal(signal.SIGTERM) is _remember
    _deferred = True
    try:
        yield
    finally:
        _deferred = False
        if listens:
            listen()
    if _signals:
        raise KeyboardInterrupt


def came() -> bool:
    """Whether a signal has come."""
    return bool(_signals)


def _remember(number: int, frame: FrameType | None) -> None:
    """Raise what ends the run, and let nobody tell of what that cuts: Py4J of its calls, to the root logger too, and
    PySpark, where the signal ends Java first, of its connections and of how Java ended.
    """
    _signals.append(number)
    warnings.simplefilter("ignore")
    socketserver.BaseServer.handle_error = lambda *request: None  # type: ignore[method-assign]
    logging.getLogger().disabled = True
    logging.getLogger("py4j").setLevel(logging.CRITICAL + 1)
    if not _deferred:
        raise KeyboardInterrupt

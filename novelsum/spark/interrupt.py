"""Signals that end a run, for all who must not take them for an error: Spark turns what they raise into its own.

A job on the command line listens for them and ends with its Spark. What a program calls must leave both alone: it works
in a thread of its own, which an interrupt of the caller ends, with the Spark jobs it has begun and no others.
"""

import ctypes
import logging
import signal
import socketserver
import threading
import uuid
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import copy_context
from types import FrameType
from typing import TypeVar

from pyspark import InheritableThread, SparkContext

T = TypeVar("T")

_CANCEL_SECONDS = 0.5

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


def apart(context: SparkContext, act: Callable[[], T]) -> T:
    """What ``act`` returns, or raises, in a thread with local properties of Spark of its own, after the caller's.

    An interrupt of the caller, as by Ctrl-C or a notebook, meets no call to Java half way, after which nobody could
    talk to that Java: it is passed on to the thread, once, and what Spark does for the thread is cancelled.
    """
    tag = f"novelsum-{uuid.uuid4().hex}"
    found: list[T] = []
    failed: list[BaseException] = []
    ended = threading.Event()
    variables = copy_context()

    def work() -> None:
        try:
            context.addJobTag(tag)
            found.append(variables.run(act))
        except BaseException as error:
            failed.append(error)
        finally:
            ended.set()

    thread = InheritableThread(target=work)
    thread.start()
    try:
        ended.wait()  # and no join(): Python takes a thread for ended whose join was interrupted
    except BaseException:
        if not ended.is_set():
            number = ctypes.c_ulong(thread.ident or 0)
            ctypes.pythonapi.PyThreadState_SetAsyncExc(number, ctypes.py_object(KeyboardInterrupt))
        while not ended.wait(_CANCEL_SECONDS):
            context.cancelJobsWithTag(tag)
        raise
    finally:
        thread.join()
    if failed:
        raise failed[0]
    return found[0]


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

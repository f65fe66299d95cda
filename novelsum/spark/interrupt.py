"""Signals that end a run, for all who must not take them for an error: Spark turns what they raise into its own."""

import signal
from types import FrameType

_signals: list[int] = []


def listen() -> None:
    """From now on SIGTERM and SIGINT raise KeyboardInterrupt and are remembered."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _remember)


def listen_again() -> None:
    """The same where it was so already: PySpark takes SIGINT for itself when it starts."""
    if signal.getsignal(signal.SIGTERM) is _remember:
        listen()


def came() -> bool:
    """Whether a signal has come."""
    return bool(_signals)


def _remember(number: int, frame: FrameType | None) -> None:
    _signals.append(number)
    raise KeyboardInterrupt

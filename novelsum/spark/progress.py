"""What a run tells while it works: on a terminal a bar, and a line for each stage when it is done; elsewhere log lines,
of progress every 30 seconds. Where a program of the caller's runs, all of it are log lines, for that to show or not.
"""

import logging
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

from pyspark import RDD

LOG_SECONDS = 30.0
_BAR_SECONDS = 0.2
_BAR_WIDTH = 30

logger = logging.getLogger("novelsum")


def log_to_stderr() -> None:
    """Send the package's log lines to standard error, one line each; with the time where it is no terminal."""
    if sys.stderr.isatty():
        logging.basicConfig(handlers=[_Terminal()], format="%(message)s")
        _Terminal.is_ours = True
    else:
        logging.basicConfig(stream=sys.stderr, format="%(asctime)s %(message)s", datefmt="%Y-%m-%d %H:%M:%S")
    logger.setLevel(logging.INFO)


class _Terminal(logging.Handler):
    """Log lines on a terminal, where what is told within a stage passes: it stands until there is something newer."""

    is_ours = False
    passes = False

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line, in its ``words`` if it has some."""
        text = str(getattr(record, "words", None) or self.format(record))
        if self.passes and record.levelno <= logging.INFO:
            _write(" ".join(text.split())[: shutil.get_terminal_size().columns - 1])
        else:
            _write(text + "\n")


def _write(text: str) -> None:
    """Write a text to the terminal in place of its last line."""
    sys.stderr.write(f"\r\033[K{text}")
    sys.stderr.flush()


def clear() -> None:
    """Leave nothing of the terminal's last line, where there is a terminal."""
    if _Terminal.is_ours:
        _write("")


@contextmanager
def passing() -> Iterator[None]:
    """On a terminal, let what is told within pass, and leave nothing of it at the end."""
    _Terminal.passes = True
    try:
        yield
    finally:
        _Terminal.passes = False
        clear()


class Progress:
    """Counts work done against a known total and shows it; a context manager that tells what it came to."""

    def __init__(self, stage: str, total: int) -> None:
        self._stage, self._total, self._done = stage, total, 0
        self._started = self._shown = time.monotonic()
        self._bar = _Terminal.is_ours

    def __enter__(self) -> Self:
        return self

    def advance(self, amount: int = 1) -> None:
        """Count ``amount`` more as done and show it if it is time to."""
        self.reach(self._done + amount)

    def reach(self, done: int) -> None:
        """Set how much is done and show it if it is time to."""
        self._done = done
        now = time.monotonic()
        if now - self._shown >= (_BAR_SECONDS if self._bar else LOG_SECONDS):
            self._shown = now
            self._show(now)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            logger.info("%s: %d in %.1f s", self._stage, self._done, time.monotonic() - self._started)

    def _show(self, now: float) -> None:
        seconds = max(now - self._started, 1e-9)
        rate = self._done / seconds
        left = f"{(self._total - self._done) / rate:.0f} s left" if self._done else "starting"
        text = f"{self._stage}: {self._done} of {self._total}, {rate:.1f}/s, {left}"
        if self._bar:
            filled = _BAR_WIDTH * self._done // max(self._total, 1)
            bar = "█" * filled + "·" * (_BAR_WIDTH - filled)
            _write(f"{bar} {text}")
        else:
            logger.info("%s", text)


def collect(results: RDD[Any], stage: str) -> list[Any]:
    """Collect an RDD as one Spark job whose finished tasks are shown as the progress of the stage."""
    tracker = results.ctx.statusTracker()
    finished = threading.Event()
    with Progress(f"{stage} (blocks)", results.getNumPartitions()) as progress:

        def watch() -> None:
            while not finished.wait(_BAR_SECONDS):
                infos = [tracker.getStageInfo(number) for number in tracker.getActiveStageIds()]
                progress.reach(max((info.numCompletedTasks for info in infos if info), default=0))

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            collected = results.collect()
        finally:
            finished.set()
            watcher.join()
        progress.reach(results.getNumPartitions())
    return collected

"""How long each stage of a job takes."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from novelsum.spark import progress

logger = logging.getLogger("novelsum")


class Stages:
    """Seconds of each stage, in the order they ran."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def time(self, stage: str) -> Iterator[dict[str, Any]]:
        """Time a stage and log its end in one line of ``name=value``, with the facts it puts into what it is given.

        On a terminal that line is in words, and the only one of the stage that stays.
        """
        started = time.monotonic()
        facts: dict[str, Any] = {}
        with progress.passing():
            yield facts
        self.seconds[stage] = round(time.monotonic() - started, 3)
        line = {"stage": stage, "seconds": self.seconds[stage], **facts}
        told = [f"{value} {name}" if name.endswith("s") else f"{name} {value}" for name, value in facts.items()]
        words = f"{stage}: {', '.join([*told, f'{self.seconds[stage]:.1f} s'])}"
        logger.info("%s", " ".join(f"{name}={value}" for name, value in line.items()), extra={"words": words})

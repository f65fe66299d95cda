"""How long each stage of a job takes."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

logger = logging.getLogger("novelsum")


class Stages:
    """Seconds of each stage, in the order they ran."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def time(self, stage: str) -> Iterator[dict[str, Any]]:
        """Time a stage and log its end in one line of ``name=value``, with the facts it puts into what it is given."""
        started = time.monotonic()
        facts: dict[str, Any] = {}
        yield facts
        self.seconds[stage] = round(time.monotonic() - started, 3)
        line = {"stage": stage, "seconds": self.seconds[stage], **facts}
        logger.info("%s", " ".join(f"{name}={value}" for name, value in line.items()))

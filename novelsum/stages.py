"""How long each stage of a job takes."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

logger = logging.getLogger("novelsum")


class Stages:
    """Seconds of each stage, in the order they ran."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def time(self, stage: str) -> Iterator[None]:
        """Time a stage and log its end."""
        started = time.monotonic()
        yield
        self.seconds[stage] = round(time.monotonic() - started, 3)
        logger.info("%s: done in %.1f s", stage, self.seconds[stage])

"""One run at a time on an output: claims in ``<output>/_lock``, on any file system that lists what was written.

A run writes a claim, then looks for others. Of two that start at the same moment each sees the other, so at most one
goes on. The holder renews its claim every few seconds; a claim whose process is gone, or that nobody has renewed for a
while, is taken away. A holder that finds its claim gone must not publish.
"""

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa

from novelsum.errors import UsageError, unwritable
from novelsum.storage import Location

LOCK = "_lock"
RENEWED_EVERY = 15.0
"""Seconds."""
STALE_AFTER = 120.0
"""Seconds without renewal after which the claim of a run on another machine counts for nothing."""


class Held:
    """An output held by this run."""

    def __init__(self, claim: Location) -> None:
        self._claim = claim
        self._content = {**_process(), "since": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
        self._released = threading.Event()
        self._write()

    def require(self) -> None:
        """Raise UsageError unless the output is still held."""
        if not self._claim.exists():
            raise UsageError(
                f"{self._claim} is gone: another run took this one for dead; this one ends without a result"
            )

    def renew(self) -> None:
        """Until released, show every few seconds that this run lives; runs in a thread of its own."""
        while not self._released.wait(RENEWED_EVERY):
            try:
                if self._claim.exists():
                    self._write()
            except (OSError, pa.ArrowException):
                continue  # storage may be slow for a moment; the claim is found stale only much later

    def release(self) -> None:
        """Let others have the output."""
        self._released.set()
        self._claim.delete()
        folder = Location(self._claim.uri.rsplit("/", 1)[0])
        output = Location(folder.uri.rsplit("/", 1)[0])
        for empty in (folder, output):  # the output is there for the lock alone if the run has left nothing in it
            if not empty.entries():
                empty.delete()

    def _write(self) -> None:
        self._claim.write_bytes(json.dumps(self._content).encode())


@contextmanager
def held(output: Location) -> Iterator[Held]:
    """Hold an output; raise UsageError where another run does."""
    folder = output / LOCK
    try:
        folder.make_folder()
        lock = Held(folder / f"{uuid.uuid4().hex}.json")
    except (OSError, pa.ArrowException) as error:
        raise unwritable(f"{output} cannot be written", error) from None
    try:
        for other in folder.entries():
            if other != lock._claim and not other.name.startswith("."):
                _refuse_unless_dead(output, other)
        renewing = threading.Thread(target=lock.renew, daemon=True)
        renewing.start()
        yield lock
    finally:
        lock.release()


def _refuse_unless_dead(output: Location, claim: Location) -> None:
    """Remove a claim nobody stands behind; raise UsageError if somebody does."""
    try:
        age = time.time() - claim.modified()
        content = json.loads(claim.read_bytes())
    except (OSError, ValueError):
        return  # let go at this moment
    here = _process()
    is_here = all(content.get(name) == here[name] for name in ("host", "boot", "namespace"))
    is_alive = _started(content["pid"]) == content["started"] if is_here else age < STALE_AFTER
    if not is_alive:
        claim.delete()
        return
    wait = "" if is_here else f"; if it is dead, try again in {STALE_AFTER - age:.0f} s"
    raise UsageError(
        f"--output {output} is being written by process {content['pid']} on {content['host']} since {content['since']}"
        f"{wait}; let it end or name another folder"
    )


def _process() -> dict[str, Any]:
    """What tells this process from all others, on this machine and elsewhere."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError:
        boot, namespace = "", ""
    pid = os.getpid()
    return {"host": socket.gethostname(), "boot": boot, "namespace": namespace, "pid": pid, "started": _started(pid)}


def _started(pid: int) -> str:
    """When a process started, in ticks since boot; empty if there is none, or it is a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] == "Z" else fields[19]
